"""What a job's resources ask of a cluster."""

from typing import Any

import pytest

from raysearch.cluster.pool_shape import DEADLINE_SECONDS, GIB, Node, PoolShape, first_replicas
from raysearch.job import Job
from raysearch.runner.session.resources import shape_of


def _shape(
    gpus_there: float, device_map: str | None = None, **resources: Any
) -> tuple[PoolShape, str]:
    content = {
        "name": "x",
        "model": {"path": "owner/model", "device_map": device_map},
        "problem": {"use": "raysearch.problems.capitals"},
        "resources": resources,
    }
    said: list[str] = []
    return shape_of(Job.model_validate(content), gpus_there, said.append), " ".join(said)


def test_auto_takes_a_gpu_where_there_is_one_and_says_that_it_takes_the_cpu() -> None:
    shape, said = _shape(8.0)
    assert (shape.gpus, shape.or_cpu, said) == (1.0, True, "")
    shape, said = _shape(0.0)
    assert (shape.gpus, shape.each) == (0.0, {"CPU": 1})
    assert "none here: replicas run on CPUs" in said


def test_a_number_of_gpus_is_a_requirement() -> None:
    shape, said = _shape(0.0, gpus=0.5)
    assert (shape.gpus, shape.or_cpu, said) == (0.5, False, "")


@pytest.mark.parametrize(
    ("device_map", "says"), [(None, "2 for each replica, which uses one of them"), ("auto", "")]
)
def test_several_gpus_without_a_device_map_are_said_to_be_idle(
    device_map: str | None, says: str
) -> None:
    shape, said = _shape(8.0, device_map, gpus=2)
    assert shape.gpus == 2
    assert says in said
    assert bool(says) == bool(said)


def test_every_key_reaches_the_pool() -> None:
    shape, _ = _shape(
        0.0,
        max_replicas=3,
        cpus=2,
        labels={"zone": "!b"},
        custom={"spot": 1},
        deadline=30,
        wait=1800,
    )
    assert shape == PoolShape(
        "auto",
        2,
        0.0,
        max_replicas=3,
        labels={"zone": "!b"},
        custom={"spot": 1},
        deadline_seconds=30,
        start_seconds=1800,
        bytes=3 * GIB,
        or_cpu=True,
    )
    assert _shape(0.0)[0].deadline_seconds == DEADLINE_SECONDS


def test_a_run_begins_with_what_there_is_room_for() -> None:
    nodes = [Node("a", {"CPU": 4.0}), Node("b", {"CPU": 3.0})]
    assert first_replicas(nodes, PoolShape("auto", cpus=2)) == 3
    assert first_replicas(nodes, PoolShape("auto", cpus=2, max_replicas=2)) == 2
    assert first_replicas(nodes, PoolShape("auto", cpus=8)) == 1
    assert first_replicas(nodes, PoolShape(5)) == 5
