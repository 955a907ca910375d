"""The trial before a search: each kind of task is timed on the job's own model, and what follows
from it adds up."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from raysearch.core.events import Event, Task
from raysearch.engine.replica import Replica
from raysearch.errors import SearchFailedError
from raysearch.job import Job
from raysearch.runner.plans.time_estimate import TimeEstimate, calibrate
from raysearch.runner.resolution.resolve import resolve
from raysearch.stats.power import Power

QUICKSTART = Path(__file__).parents[2] / "jobs" / "quickstart.yaml"


def _trial(*sets: str) -> TimeEstimate:
    return calibrate(
        resolve(Job.load(QUICKSTART, ("pairs.test=32", "pairs.fit=64", "resources.gpus=0", *sets)))
    )


def test_swaps_are_timed_from_all_over_the_space(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Task] = []
    do = Replica.do

    def heard(self: Replica, task: Task, *tensors: object) -> Sequence[Event]:
        asked.append(task)
        return do(self, task, *tensors)  # type: ignore[arg-type]

    monkeypatch.setattr(Replica, "do", heard)
    found = _trial("space.components=[residual, head]")
    measured = [t for t in asked if t.kind == "measure"]
    sites = {u.site for t in measured[1:] for i in t.interventions for u in i.units}
    assert {s.component for s in sites} == {"residual", "head"}
    assert len({s.position for s in sites}) >= 4
    assert found.rows == sum(t.rows for t in measured[1:])
    assert found.inputs > 0
    assert found.load > found.an_input > 0
    assert found.a_row > 0
    assert (found.path, found.device, found.steps) == ("replay", "cpu", 0)
    assert found.process > 2**27


def test_training_is_timed_and_what_was_trained_is_measured() -> None:
    found = _trial("space.subspaces=[{das: [2]}, {pca: [2]}]", "space.layers=[1]", "fit.together=3")
    assert found.steps == 4 * 3
    assert found.a_step > 0
    assert found.rows == 2 * (3 + 1), "three rotations and one PCA on two pairs"


def test_seconds_are_inputs_steps_rows_and_the_holdout_of_what_is_accepted() -> None:
    found = TimeEstimate("cpu", "replay", 0, 5.0, 10, 0.1, 10, 0.01, 10, 0.5, 0, 0)
    none = found.seconds(
        Power(0.0, 0.0, 1.0, 0.0, 4.0), inputs=100, interventions=10, steps=0, holdout=20
    )
    assert none == pytest.approx(100 * 0.1 + 10 * 4 * 0.01)
    every = found.seconds(
        Power(1.0, 1.0, 0.0, 0.0, 60.0), inputs=100, interventions=10, steps=6, holdout=20
    )
    assert every == pytest.approx(100 * 0.1 + 6 * 0.5 + 10 * (60 + 20 + 16) * 0.01)


def test_a_task_that_raises_is_one_line() -> None:
    with pytest.raises(
        SearchFailedError,
        match="a fit task raised JobError: pca: 32 features asked, the centred activations span",
    ):
        _trial("space.subspaces=[{pca: [32]}]", "pairs.fit=8")
