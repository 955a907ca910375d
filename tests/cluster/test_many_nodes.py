"""A pool on a Ray of several nodes that come, drain and go: all on this machine, where GPUs and
custom resources are Ray's word only."""

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from itertools import count

import pytest
import ray
from ray.cluster_utils import Cluster

from raysearch.cluster.nodes import nodes
from raysearch.cluster.pool_shape import PoolShape, first_replicas
from raysearch.cluster.ray_pool import RayPool
from raysearch.cluster.ray_session import ray_session
from raysearch.core.events import Block, Event, Lost, Measured, Task
from raysearch.errors import ResourcesError
from tests.cluster.chaos_world import added
from tests.cluster.contract import at, lost
from tests.cluster.worlds import planted_work

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SMALL = planted_work(test=24, holdout=0)
PATIENCE_SECONDS = 200.0
"""Of a test, for what takes Ray seconds on an idle machine."""
PREEMPTION = 2
"""Why a node drains: autoscaler.proto, DrainNodeReason."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head that holds no replica; the tests add nodes, each with a resource of its own."""
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    try:
        with ray_session(cluster.address):
            yield cluster
    finally:
        cluster.shutdown()


class Working:
    """A pool with as much work as it takes, and what has come of it."""

    def __init__(self, pool: RayPool) -> None:
        self.pool = pool
        self.opened = pool.open()
        self.events: list[Event] = []
        self._numbers = count()

    def submit(self) -> None:
        block = Block("test", 0, tuple(e.index for e in self.opened.encoded[:2]))
        self.pool.submit(Task(next(self._numbers), "measure", (at(0),), (block,)))

    def until(self, seen: Callable[[], bool], what: str, *, work: bool = True) -> None:
        """Turns of the driver until something is so."""
        end = time.monotonic() + PATIENCE_SECONDS
        while not seen():
            assert time.monotonic() < end, (
                f"{what}: not in {PATIENCE_SECONDS:.0f} s; the pool has {self.pool.workers}"
            )
            while work and self.pool.free:
                self.submit()
            self.events += self.pool.wait()

    @property
    def at_work(self) -> set[str]:
        """Who has answered since this was last asked."""
        names = {e.worker for e in self.events if isinstance(e, Measured)}
        self.events = [e for e in self.events if isinstance(e, Lost)]
        return names


@pytest.fixture
def pools() -> Iterator[list[RayPool]]:
    made: list[RayPool] = []
    yield made
    for pool in made:
        pool.close()


def test_replicas_take_parts_of_gpus_of_the_nodes_that_are_asked_for(
    cluster: Cluster, pools: list[RayPool], caplog: pytest.LogCaptureFixture
) -> None:
    added(cluster, num_cpus=4, num_gpus=1, resources={"gpu_host": 1})
    chosen = added(
        cluster, num_cpus=4, num_gpus=1, labels={"accelerator": "H100"}, resources={"spot": 2}
    )
    shape = PoolShape(
        "auto", gpus=0.5, labels={"accelerator": "in(H100, A100)"}, custom={"spot": 1}, or_cpu=True
    )
    assert first_replicas(nodes(), shape) == 2
    pool = RayPool(SMALL, "parts", shape)
    pools.append(pool)
    with caplog.at_level(logging.WARNING):
        pool.open()
        Working(pool).until(lambda: pool.free == 2, "two replicas on half a GPU each", work=False)
    assert {
        r.getMessage()
        for r in caplog.records
        if "which torch cannot use: it runs on the CPU" in r.getMessage()
    }
    here = {n["NodeID"]: n for n in ray.nodes()}[chosen.node_id]
    assert here["Alive"]
    assert ray._private.state.available_resources_per_node()[chosen.node_id].get("GPU", 0.0) == 0.0
    pool.close()
    required = RayPool(SMALL, "required", PoolShape(replicas=1, gpus=1, custom={"gpu_host": 1}))
    pools.append(required)
    with pytest.raises(
        ResourcesError,
        match=r"which torch cannot use .*; mend that, or set resources.gpus to 0 or auto",
    ):
        required.open()


def test_a_pool_follows_nodes_that_come_drain_and_are_lost(
    cluster: Cluster, pools: list[RayPool]
) -> None:
    first = added(cluster, num_cpus=2, resources={"room": 1})
    pool = RayPool(SMALL, "follows", PoolShape("auto", custom={"room": 1}))
    pools.append(pool)
    working = Working(pool)
    working.until(lambda: working.at_work == {"replica-0"}, "work on the first node")

    second = added(cluster, num_cpus=2, resources={"room": 1})
    working.until(lambda: "replica-1" in working.at_work, "work on a node that came")

    _drain(cluster, first.node_id)
    working.until(lambda: pool.ready == ("replica-1",), "no replica on a node that drains")
    assert not lost(working.events)
    working.until(
        lambda: len(pool.workers) == 1, "the last answers", work=False
    )  # `free` counts places ahead of tasks, too

    ((_, pid),) = pool.workers
    os.kill(pid, signal.SIGSTOP)  # so that its task is out when the node dies
    working.submit()
    cluster.remove_node(second, allow_graceful=False)
    os.kill(pid, signal.SIGKILL)
    working.until(lambda: bool(lost(working.events)), "the loss of a node", work=False)
    assert [e.cause for e in lost(working.events)] == ["node"]
    assert pool.free == 0

    added(cluster, num_cpus=2, resources={"room": 1})
    working.until(lambda: bool(working.at_work), "work on a node that came after all were lost")


def _drain(cluster: Cluster, node: str) -> None:
    """Tells Ray that `node` is being preempted, as a cloud's notice (`ray drain-node`) does."""
    gcs = ray._raylet.GcsClient(address=cluster.address)
    in_an_hour = int((time.time() + 3600) * 1000)
    accepted, why = gcs.drain_node(node, PREEMPTION, "a test", in_an_hour)
    assert accepted, why
