"""Every pool keeps the contract; the same search gives the same verdicts on each; workers that die
cost time only."""

import logging
import os
import shutil
import signal
import time
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
import ray

from raysearch import driver
from raysearch.cluster.local_pool import LocalPool, device_here
from raysearch.cluster.pool_shape import GIB, Node, bytes_on_cpu, room_in, room_on
from raysearch.cluster.ray_pool import PoolShape, RayPool
from raysearch.cluster.ray_session import Session, check_fits
from raysearch.cluster.replica_spec import ReplicaSpec
from raysearch.core.events import Block, Encoded, Event, Ids, Measured, Task
from raysearch.core.hypothesis import Intervention
from raysearch.core.model_source import ModelSource
from raysearch.core.records import Record
from raysearch.errors import ModelError, PositionError, ResourcesError
from raysearch.search.search import Search
from raysearch.testing.fake_pool import FakePool, FakeWorld
from tests.cluster.contract import PoolContract, answers, at, lost
from tests.cluster.worlds import planted_search, planted_work, true_cells

SMALL = planted_work(test=24, holdout=0)


class _Keeper:
    """A ledger in memory, checking that events come before what is thought of them."""

    def __init__(self) -> None:
        self.kept: list[Event] = []
        self.noted: list[Record] = []

    def write_events(self, events: list[Event]) -> None:  # type: ignore[override]
        self.kept += events

    def write_records(self, notes: list[Record]) -> None:  # type: ignore[override]
        self.noted += notes

    def tensors_for(self, task: Task) -> dict[str, bytes]:
        return {}


def _search(pool: LocalPool | RayPool, work: ReplicaSpec, rows: int = 64) -> Search:
    search = planted_search(work, pool.open(), rows)
    driver.drive(search, pool, _Keeper(), lambda _: None)  # type: ignore[arg-type]
    search.validate()
    return search


def _accepted(search: Search) -> set[tuple[str, int, str]]:
    sites = [
        (d.hypothesis.variable, d.hypothesis.intervention.units[0].site)
        for d in search.verdicts.values()
        if d.verdict == "accept"
    ]
    return {(v, s.layer, s.position) for v, s in sites}


class TestFakePool(PoolContract):
    @pytest.fixture(scope="class")
    @classmethod
    def pool(cls) -> FakePool:
        def under(pair: Encoded, intervention: Intervention) -> Ids:
            if intervention.units[0].site.layer > 3:
                raise ValueError("there is no such layer")
            return (pair.index * 10 + intervention.units[0].site.layer,)

        where = {"last": (1,)}, {"source": {"last": (0,)}}
        answers = {"base": (1,), "source": (2,)}
        pairs = [
            Encoded(i, (1, 2), {"source": (3,)}, *where, answers, {"v": (2,)}) for i in range(12)
        ]
        return FakePool(FakeWorld(pairs, lambda pair, name: (pair.index,), under), workers=2)


class TestLocalPool(PoolContract):
    @pytest.fixture(scope="class")
    @classmethod
    def pool(cls) -> LocalPool:
        return LocalPool(SMALL)


class TestRayPool(PoolContract):
    @pytest.fixture(scope="class")
    @classmethod
    def pool(cls, session: Session) -> RayPool:
        return RayPool(SMALL, f"contract-{time.monotonic_ns()}", PoolShape(replicas=1))


@pytest.fixture(scope="module")
def plain() -> Search:
    """The search on the planted model, in this process."""
    return _search(LocalPool(planted_work()), planted_work())


def test_the_search_accepts_exactly_the_planted_cells(plain: Search) -> None:
    assert _accepted(plain) == true_cells()


@pytest.mark.slow_unless(replicas=[2])
@pytest.mark.parametrize(("replicas", "rows"), [(1, 64), (2, 24)])
def test_verdicts_n_and_matches_are_the_same_on_ray(
    session: Session, plain: Search, replicas: int, rows: int
) -> None:
    work = planted_work(rows=rows)
    pool = RayPool(work, f"same-{replicas}", PoolShape(replicas))
    try:
        search = _search(pool, work, rows)
    finally:
        pool.close()
    assert search.verdicts == plain.verdicts
    assert search.estimates == plain.estimates


@pytest.mark.slow  # a real Ray whose workers are killed
def test_a_worker_killed_with_9_costs_time_not_results(session: Session, plain: Search) -> None:
    work = planted_work()
    pool = RayPool(work, "murder", PoolShape(replicas=2))
    search = planted_search(work, pool.open())
    keeper, killed = _Keeper(), False
    try:
        named = [n for n in ray.util.list_named_actors() if n.startswith("murder")]
        assert sum(":replica-" in n for n in named) == 2, "as the dashboard shows them"
        while not search.done:
            idle = [] if killed or len(keeper.kept) <= 20 else pool.workers
            for _, pid in idle:
                os.kill(
                    pid, signal.SIGSTOP
                )  # so that the task that it is given now is out when it is killed
            for task in search.ask(pool.free):
                pool.submit(task)
            for _, pid in idle:
                os.kill(pid, signal.SIGKILL)
            killed = killed or bool(idle)
            events = pool.wait()
            keeper.write_events(events)
            search.tell(events)
    finally:
        pool.close()
    assert killed
    assert lost(keeper.kept)
    assert all(e.cause == "worker" for e in lost(keeper.kept))
    assert search.verdicts == plain.verdicts


@pytest.mark.slow  # a real Ray and a deadline
def test_a_worker_that_hangs_is_lost_at_its_deadline_and_replaced(session: Session) -> None:
    pool = RayPool(SMALL, "hung", PoolShape(replicas=1, deadline_seconds=1.0))
    opened = pool.open()
    block = Block("test", 0, tuple(e.index for e in opened.encoded[:2]))
    try:
        os.kill(pool.workers[0][1], signal.SIGSTOP)
        pool.submit(Task(0, "measure", (at(0), at(1)), (block,)))
        (event,) = lost(answers(pool, 1))
        assert (event.cause, event.group) == ("deadline", (at(0).id, at(1).id))
        events: list[Event] = []
        for number in count(1):  # on a busy machine one that does not hang may be late, too
            while not pool.free:
                assert pool.wait() == []
            pool.submit(Task(number, "measure", (at(0),), (block,)))
            events = answers(pool, 1)
            if not lost(events):
                break
        assert [e.intervention for e in events if isinstance(e, Measured)] == [at(0).id]
    finally:
        pool.close()


@pytest.mark.slow
def test_a_replica_that_sees_another_model_is_left_out_and_a_pool_that_can_have_no_other_says_so_at_once(
    session: Session, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = tmp_path / "model"
    shutil.copytree(SMALL.model.path, model)
    pool = RayPool(replace(SMALL, model=ModelSource(str(model))), "changed", PoolShape(replicas=1))
    pool.open()
    try:
        config = model / "config.json"
        config.write_text(config.read_text() + " ")
        os.kill(pool.workers[0][1], signal.SIGKILL)
        with (
            caplog.at_level(logging.WARNING),
            pytest.raises(
                ResourcesError,
                match=r"no replica is left.*replica-0.1 on node .* has another model",
            ),
        ):
            _wait_for_ever(pool)
    finally:
        pool.close()
    assert [r.getMessage() for r in caplog.records if "has another model" in r.getMessage()]


def _wait_for_ever(pool: RayPool) -> None:
    pool.submit(Task(0, "measure", (at(0),), (Block("test", 0, (0,)),)))
    while True:
        assert all(e.task == 0 for e in pool.wait())


def test_a_model_that_cannot_be_loaded_ends_the_run_with_the_engines_own_line(
    session: Session,
) -> None:
    pool = RayPool(replace(SMALL, model=ModelSource("/nowhere")), "absent", PoolShape(replicas=1))
    with pytest.raises(ModelError, match="/nowhere"):
        pool.open()
    pool.close()
    with pytest.raises((PositionError, KeyError), match="zzz"):
        LocalPool(replace(SMALL, positions=("a", "zzz"))).open()


@pytest.mark.slow
def test_a_replica_that_dies_while_it_loads_is_tried_again_and_then_told(
    session: Session, tmp_path: Path
) -> None:
    deadly = tmp_path / "deadly.py"
    deadly.write_text(
        "import os, signal\n\n\ndef model():\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    pool = RayPool(
        replace(SMALL, model=ModelSource(f"{deadly}:model", is_factory=True)),
        "deadly",
        PoolShape(replicas=2),
    )
    with pytest.raises(
        ResourcesError,
        match=r"no replica started, [34] attempts: replica-\S+ did not start on node \w+: ",
    ):
        pool.open()
    pool.close()


def test_a_cluster_without_room_is_said(session: Session) -> None:
    pool = RayPool(SMALL, "no-room", PoolShape(replicas=1, gpus=64, start_seconds=2.0))
    with pytest.raises(ResourcesError, match="64 GPUs"):
        pool.open()
    pool.close()
    with pytest.raises(ResourcesError, match="100 replicas of 1 CPU need 100 CPUs"):
        check_fits(session, PoolShape(replicas=100))
    with pytest.raises(ResourcesError, match="1 replica of 1 spot need 1 spots, this Ray has 0"):
        check_fits(session, PoolShape("auto", custom={"spot": 1}))
    with pytest.raises(ResourcesError, match=r"resources.labels: {'accelerator': 'H100'}"):
        check_fits(session, PoolShape(replicas=1, labels={"accelerator": "H100"}))
    check_fits(session, PoolShape("auto"))
    with pytest.raises(ResourcesError, match="no GPU"):
        device_here(1)


def test_replicas_fill_a_node_but_not_its_memory() -> None:
    node = Node("n", {"CPU": 16.0, "memory": 30.0 * GIB})
    assert room_on(node, PoolShape("auto", cpus=2, bytes=bytes_on_cpu(0))) == 8
    assert room_on(node, PoolShape("auto", bytes=bytes_on_cpu(2 * GIB))) == 4
    assert room_on(node, PoolShape("auto", bytes=bytes_on_cpu(50 * GIB))) == 0
    gpus = Node("g", {**node.resources, "GPU": 4.0, "spot": 3.0}, {"accelerator": "H100"})
    assert room_on(gpus, PoolShape("auto", gpus=0.5, bytes=bytes_on_cpu(50 * GIB))) == 8
    assert room_on(gpus, PoolShape("auto", gpus=0.1)) == 16
    assert room_on(gpus, PoolShape("auto", gpus=2)) == 2
    assert room_on(gpus, PoolShape("auto", custom={"spot": 1})) == 3
    assert room_on(node, PoolShape("auto", custom={"spot": 1})) == 0


def test_room_is_reckoned_node_by_node() -> None:
    assert (
        room_in([Node("a", {"CPU": 3.0}), Node("b", {"CPU": 3.0})], PoolShape("auto", cpus=2)) == 2
    )


@pytest.mark.parametrize(
    ("selector", "room"),
    [("H100", 1), ("!H100", 0), ("in(A100, H100)", 1), ("!in(A100)", 1), ("A100", 0)],
)
def test_only_nodes_with_the_label_have_room(selector: str, room: int) -> None:
    node = Node("n", {"CPU": 1.0}, {"accelerator": "H100"})
    assert room_on(node, PoolShape("auto", labels={"accelerator": selector})) == room
