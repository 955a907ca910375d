"""The brain of a pool, without Ray: whatever happens, in whatever order, no task is lost sight of
and no node wrongly used."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysearch.cluster.deadlines import MIN_SECONDS, Deadlines, weight
from raysearch.cluster.instructions import (
    Instruction,
    LoadReplica,
    Message,
    ProbeReplica,
    StartReplica,
    StopReplica,
)
from raysearch.cluster.node_health import START_ATTEMPTS
from raysearch.cluster.pool_shape import Node, PoolShape
from raysearch.cluster.slots import LINGER_SECONDS, RETRY_NODES_SECONDS, Slots
from raysearch.core.events import Block, Lost, Measured, Task
from raysearch.core.lease import Lease
from raysearch.errors import ResourcesError
from tests.cluster.contract import at

AUTO = PoolShape("auto", start_seconds=600.0, deadline_seconds=100.0)


def task(number: int, attempt: int = 0) -> Task:
    return Task(number, "measure", (at(0), at(1)), (Block("test", 0, (0, 1, 2)),), attempt)


def leased(number: int) -> Task:
    """A lease of at most 90 rows or 5 seconds, in steps of 10 rows."""
    blocks = tuple(Block("test", i, tuple(range(10 * i, 10 * i + 10))) for i in range(100))
    lease = Lease(((),), False, step=10, rows=80, seconds=5.0)
    return Task(number, "measure", (at(0),), blocks, lease=lease)


def measured(task: Task, blocks: int = 1) -> list[Measured]:
    """The observations of a task's first blocks, of answers of three tokens."""
    return [
        Measured(
            *(task.id, i.key, b.split, b.index, b.pairs, ((1, 2, 3),) * len(b.pairs)),
            *(0, 3 * len(b.pairs), 0.0, "cpu", "w", task.attempt),
        )
        for i in task.interventions
        for b in task.blocks[:blocks]
    ]


@dataclass
class Actor:
    name: str
    avoid: tuple[str, ...]
    node: str = ""
    loading: bool = False
    loaded: bool = False
    asked: bool = False


class Cluster:
    """What Ray would do with the instructions, and a check that they can be followed. `room`: CPUs
    of a node."""

    def __init__(self, shape: PoolShape, nodes: Iterable[str] = ("a",), room: float = 2.0) -> None:
        self.now = 0.0
        self.shape = shape
        self.slots = Slots(shape, self.now)
        self.room = room
        self.living = {n: Node(n, {"CPU": room}) for n in nodes}
        self.actors: dict[int, Actor] = {}
        self.names: set[str] = set()
        self.out: dict[int, int] = {}
        self.warm: set[str] = set()
        self.said: list[str] = []
        self.lost: list[Lost] = []
        self.given = 0

    def do(self, instructions: Iterable[Instruction]) -> None:
        for it in instructions:
            match it:
                case StartReplica(slot, name, avoid):
                    assert slot not in self.actors, f"{name} begins while its last actor lives"
                    assert name not in self.names, f"two actors are called {name}"
                    self.names.add(name)
                    self.actors[slot] = Actor(name, avoid)
                case LoadReplica(slot):
                    actor = self.actors[slot]
                    assert actor.node
                    assert actor.node in self.warm or actor.node not in self.loading(), (
                        "two load on a cold node"
                    )
                    actor.loading = True
                case ProbeReplica(slot):
                    assert slot in self.out.values()
                    self.actors[slot].asked = True
                case StopReplica(slot):
                    del self.actors[slot]
                case Message(text):
                    self.said.append(text)
                case Lost():
                    del self.out[it.task]  # told once
                    self.lost.append(it)

    def loading(self) -> list[str]:
        return [a.node for a in self.actors.values() if a.loading]

    def tick(self, seconds: float = 0.0) -> None:
        self.now += seconds
        self.slots.update_nodes(self.living.values())
        self.do(self.slots.tick(self.now))
        self.check()

    def check(self) -> None:
        busy = {s.number for s in self.slots.ready() if s.task is not None}
        assert busy == set(self.out.values())
        has = {
            t.id: s.number
            for s in self.slots.ready()
            for t in (s.task, s.prefetched)
            if t is not None
        }
        assert has == self.out
        free = [s for s in self.slots.ready() if s.task is None]
        ahead = [s for s in self.slots.ready() if s.state == "busy" and s.prefetched is None]
        assert len(free) <= self.slots.free
        assert self.slots.free <= len(free) + sum(
            not self.living[s.node].draining for s in ahead if s.node in self.living
        )
        for slot in free:
            assert not self.living[slot.node].draining, (
                "a replica on a node that drains may be given a task"
            )
        if self.shape.replicas == "auto":
            pending = sum(not a.node for a in self.actors.values())
            room = sum(int(n.resources["CPU"]) for n in self.living.values() if not n.draining)
            assert pending <= max(1, room) + (
                max(1, len(self.slots.ready())) if self.shape.max_replicas else 0
            )
            assert self.shape.max_replicas is None or len(
                self.actors
            ) <= self.shape.max_replicas + len(busy)

    def place(self, node: str | None = None) -> int | None:
        """Puts the first actor that waits where there is room (or on `node`)."""
        held = Counter(a.node for a in self.actors.values())
        for slot, actor in self.actors.items():
            fit = [
                n.id
                for n in self.living.values()
                if not actor.node
                and not n.draining
                and n.id not in actor.avoid
                and held[n.id] < n.resources["CPU"]
            ]
            if fit and (node is None or node in fit):
                actor.node = node or fit[0]
                if not self.slots.is_known(actor.node):
                    self.slots.update_nodes(self.living.values())
                self.do(self.slots.on_placed(slot, actor.node, self.now))
                return slot
        return None

    def load(self, digest: str = "same") -> None:
        for slot, actor in list(self.actors.items()):
            if actor.loading:
                actor.loading, actor.loaded = False, True
                if digest == "same":
                    self.warm.add(actor.node)
                self.do(self.slots.on_loaded(slot, digest, self.now))
                return

    def settle(self, turns: int = 40) -> None:
        """Until all that fit are ready."""
        for _ in range(turns):
            self.tick(1.0)
            while self.place() is not None:
                pass
            self.tick()
            self.load()

    def give(self, new: Callable[[int], Task] = task) -> int:
        number, self.given = self.given, self.given + 1
        self.out[number] = self.slots.assign(new(number), self.now)
        return number

    def begun(self) -> list[int]:
        """The tasks that are not behind another."""
        return [s.task.id for s in self.slots.ready() if s.task is not None]

    def answer(self, number: int, blocks: int = 1) -> None:
        """Answers a task of which so many blocks were run."""
        slot = self.out.pop(number)
        done = self.slots[slot].task
        assert done is not None
        self.do(self.slots.on_answered(slot, self.now, measured(done, blocks)))

    def die(self, slot: int, certain: bool = True) -> None:
        self.slots.update_nodes(self.living.values())
        self.do(self.slots.on_died(slot, "it was killed", self.now, certain=certain))

    def drain(self, node: str) -> None:
        self.living[node] = replace(self.living[node], draining=True)

    def nodes_held(self) -> Counter[str]:
        return Counter(s.node for s in self.slots.ready())


ACTIONS = ("tick", "tick", "place", "place", "load", "load", "give", "give", "answer", "answer", "die", "unreachable", "there",
           "foreign", "add", "remove", "drain")  # fmt: skip


def _act(cluster: Cluster, action: str, which: int) -> None:
    """One thing that may happen, if it can just now."""

    def one(of: Iterable[int]) -> int | None:
        found = sorted(of)
        return found[which % len(found)] if found else None

    nodes = sorted(cluster.living)
    match action:
        case "tick":
            cluster.tick((0.0, 0.3, 2.0, 40.0, 130.0)[which % 5])
        case "place":
            cluster.place()
        case "load":
            cluster.load()
        case "foreign" if cluster.warm:  # the first replica says which model it is
            cluster.load("other")
        case "give" if cluster.slots.free:
            cluster.give()
        case "answer" if (number := one(cluster.begun())) is not None:
            if not cluster.actors[cluster.out[number]].asked:
                cluster.answer(number)
        case "die" if (
            slot := one(
                s for s, a in cluster.actors.items() if not a.loaded or s in cluster.out.values()
            )
        ) is not None:
            cluster.die(slot)
        case "unreachable" if (slot := one(cluster.out.values())) is not None:
            cluster.actors[slot].asked = False
            cluster.die(slot, certain=False)
        case "there" if (
            slot := one(s for s in cluster.out.values() if cluster.actors[s].asked)
        ) is not None:
            cluster.actors[slot].asked = False
            cluster.do(cluster.slots.on_reconnected(slot, cluster.now))
        case "add" if len(nodes) < 5:
            cluster.living[name] = Node(
                name := f"n{cluster.given}-{which}-{cluster.now}", {"CPU": cluster.room}
            )
        case "remove" if len(nodes) > 1:
            del cluster.living[nodes[which % len(nodes)]]
        case "drain" if nodes:
            cluster.drain(nodes[which % len(nodes)])


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from((AUTO, replace(AUTO, max_replicas=5), replace(AUTO, replicas=3))),
    st.booleans(),
    st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 9)), max_size=120),
)
def test_whatever_happens_every_task_that_is_given_ends_once(
    shape: PoolShape, settled: bool, story: list[tuple[str, int]]
) -> None:
    cluster = Cluster(shape, ("a", "b"))
    try:
        if settled:
            cluster.settle(6)
        for action, which in story:
            _act(cluster, action, which)
        for _ in range(4):  # nobody answers any more: the deadlines pass
            cluster.tick(shape.deadline_seconds + 1)
        assert not cluster.out
        assert not any(s.state in ("doubtful", "probed") for s in cluster.slots.ready())
        cluster.living = {"fresh": Node("fresh", {"CPU": 2.0})}
        cluster.tick()
        cluster.tick()
    except ResourcesError:
        assert not cluster.slots.ready(), "it gave up though replicas were ready"
        return
    assert not any(a.node and a.node != "fresh" for a in cluster.actors.values())
    cluster.settle()
    assert cluster.slots.free == 2
    cluster.slots.close()
    assert cluster.slots.free == 0


def test_one_replica_loads_on_a_cold_node_and_the_others_when_it_has() -> None:
    cluster = Cluster(replace(AUTO, replicas=4), ("a", "b"))
    cluster.tick()
    while cluster.place() is not None:
        pass
    cluster.tick()
    assert sorted(cluster.loading()) == ["a", "b"]
    cluster.load()
    cluster.tick()
    assert sorted(cluster.loading()) == ["a", "b"]
    assert cluster.slots.free == 1


def test_auto_grows_into_a_new_node_while_there_is_work_and_out_of_one_that_is_lost() -> None:
    cluster = Cluster(AUTO)
    cluster.settle()
    assert cluster.nodes_held() == {"a": 2}
    cluster.living["b"] = Node("b", {"CPU": 3.0})
    cluster.settle()
    assert cluster.nodes_held() == {"a": 2}, "replicas are idle: there is no work for more"
    work = [cluster.give(), cluster.give()]
    cluster.tick(1.0)
    assert len(cluster.actors) == 5
    del cluster.living["a"]
    for number in work:
        cluster.die(cluster.out[number])
    assert [e.cause for e in cluster.lost] == ["node", "node"]
    cluster.settle()
    assert cluster.nodes_held() == {"b": 3}
    assert len(cluster.actors) == 3, "what was on the lost node does not wait for ever"


def test_a_fixed_number_waits_for_room_as_pending_actors() -> None:
    cluster = Cluster(replace(AUTO, replicas=5))
    cluster.settle()
    assert cluster.nodes_held() == {"a": 2}
    begun = len(cluster.names)
    cluster.settle()
    assert (len(cluster.actors), len(cluster.names)) == (5, begun)


def test_a_pool_that_has_lost_all_its_nodes_says_that_it_waits_once() -> None:
    cluster = Cluster(AUTO)
    cluster.settle()
    cluster.living = {}
    for _ in range(20):
        cluster.tick(10.0)
    (said,) = cluster.said
    assert said == (
        "no replica is there for 30 s: each asks 1 CPU, the cluster has 0 CPUs and 0 GPUs on 0 "
        "nodes; waiting for room"
    )
    cluster.living["b"] = Node("b", {"CPU": 1.0})
    cluster.settle()
    assert cluster.slots.free == 1


def test_auto_asks_a_cluster_that_can_grow_for_as_many_again_and_gives_back_what_lingers() -> None:
    cluster = Cluster(replace(AUTO, max_replicas=16))

    def waiting() -> int:
        return sum(not a.node for a in cluster.actors.values())

    cluster.settle(1)
    assert (len(cluster.actors), waiting()) == (3, 1), "one more than there is room for"
    cluster.settle()
    cluster.give(), cluster.give()
    cluster.tick(1.0)
    assert (len(cluster.actors), waiting()) == (4, 2)
    for name in ("b", "c", "d", "e", "f", "g"):
        cluster.living[name] = Node(name, {"CPU": 2.0})
        while cluster.place() is not None:
            pass
        for _ in range(4):
            cluster.tick(0.5)
            cluster.load()
        while cluster.slots.free:
            cluster.give()
        cluster.tick(0.5)
    assert len(cluster.actors) == 16, "no more than max_replicas"
    for number in list(cluster.out):
        cluster.answer(number)
    cluster.tick(10.0)
    assert waiting() == 0, "there is no work for more"
    cluster.tick(LINGER_SECONDS)
    assert len(cluster.actors) == 1


def test_a_draining_node_finishes_its_task_and_gets_no_other() -> None:
    cluster = Cluster(replace(AUTO, replicas=2), ("a",))
    cluster.settle()
    first = cluster.give()
    cluster.drain("a")
    cluster.living["b"] = Node("b", {"CPU": 2.0})
    cluster.tick(1.0)
    assert cluster.slots.free == 0
    assert [a.node for a in cluster.actors.values()].count("a") == 1
    cluster.answer(first)
    assert cluster.slots.free == 0
    cluster.settle()
    assert cluster.nodes_held() == {"b": 2}
    assert not cluster.lost


def test_a_replica_that_is_quick_is_given_a_task_ahead_and_what_it_had_not_begun_does_not_count() -> (
    None
):
    cluster = Cluster(replace(AUTO, replicas=1))
    cluster.settle()
    cluster.answer(cluster.give())  # at once
    first, second = cluster.give(), cluster.give()
    assert cluster.slots.free == 0
    cluster.answer(first)
    third = cluster.give()
    cluster.tick(0.2)
    cluster.die(cluster.out[second])
    assert [(e.task, e.cause, e.counts_as_attempt) for e in cluster.lost] == [
        (second, "worker", True),
        (third, "queued", False),
    ]


def test_a_replica_that_takes_its_time_has_one_task_and_none_behind_it() -> None:
    cluster = Cluster(replace(AUTO, replicas=1))
    cluster.settle()
    assert cluster.slots.free == 1
    number = cluster.give()
    assert cluster.slots.free == 0, "nobody knows yet how long it takes"
    cluster.tick(1.0)
    cluster.answer(number)
    cluster.give()
    assert cluster.slots.free == 0


def test_a_replica_whose_node_drains_finishes_both_its_tasks() -> None:
    cluster = Cluster(replace(AUTO, replicas=1), ("a", "b"))
    cluster.settle()
    cluster.answer(cluster.give())
    first, second = cluster.give(), cluster.give()
    cluster.drain(cluster.slots[cluster.out[first]].node)
    cluster.tick()
    cluster.answer(first)
    assert cluster.slots.free == 0
    cluster.answer(second)
    assert not cluster.lost
    assert not cluster.slots.ready()


def test_of_an_actor_out_of_reach_the_task_behind_is_told_at_once() -> None:
    cluster = Cluster(replace(AUTO, replicas=1))
    cluster.settle()
    cluster.answer(cluster.give())
    first, second = cluster.give(), cluster.give()
    cluster.die(cluster.out[first], certain=False)
    assert [(e.task, e.cause) for e in cluster.lost] == [(second, "queued")]
    cluster.tick()
    cluster.do(cluster.slots.on_reconnected(cluster.out[first], cluster.now))
    assert [e.task for e in cluster.lost] == [second, first]
    assert cluster.slots.free == 1


def test_a_task_that_dies_with_a_draining_node_does_not_count() -> None:
    cluster = Cluster(replace(AUTO, replicas=1))
    cluster.settle()
    number = cluster.give()
    cluster.drain("a")
    cluster.die(cluster.out[number])
    assert [e.cause for e in cluster.lost] == ["node"]


def test_an_actor_out_of_reach_is_asked_until_its_node_is_known_to_be_dead() -> None:
    cluster = Cluster(replace(AUTO, replicas=2), ("a", "b"), room=1.0)
    cluster.settle()
    numbers = cluster.give(), cluster.give()
    for number in numbers:
        cluster.die(cluster.out[number], certain=False)
    assert not cluster.lost
    cluster.tick()
    assert all(a.asked for a in cluster.actors.values())
    slots = [cluster.out[n] for n in numbers]
    del cluster.living[cluster.slots[slots[0]].node]
    cluster.tick(1.0)
    assert [(e.task, e.cause) for e in cluster.lost] == [(numbers[0], "node")]
    cluster.die(slots[1])  # now for certain, and its node lives
    assert [(e.task, e.cause) for e in cluster.lost[1:]] == [(numbers[1], "worker")]


def test_a_node_on_which_replicas_do_not_start_holds_no_more_than_it_has() -> None:
    cluster = Cluster(replace(AUTO, replicas=4), ("a",), room=4.0)
    cluster.tick()
    cluster.place(), cluster.tick(), cluster.load(), cluster.tick()
    for _ in range(START_ATTEMPTS):
        slot = cluster.place()
        assert slot is not None
        cluster.tick()
        cluster.die(slot)
        cluster.tick(40.0)
    assert [s for s in cluster.said if "holds no more than 1 replica from now on" in s]
    while (slot := cluster.place()) is not None:  # those that were begun before that was known
        cluster.tick(40.0)
        assert slot not in cluster.actors or not cluster.actors[slot].node
    assert all("a" in a.avoid for a in cluster.actors.values() if not a.node)
    assert cluster.nodes_held() == {"a": 1}
    cluster.tick(RETRY_NODES_SECONDS)
    cluster.settle()
    assert cluster.nodes_held() == {"a": 4}


def _start_in_vain(cluster: Cluster, placed: bool) -> None:
    for _ in range(2 * START_ATTEMPTS):
        cluster.tick(40.0)
        if placed:
            assert cluster.place() is not None
            cluster.tick()
        cluster.die(0)


def test_a_pool_that_cannot_start_says_what_happened_each_time() -> None:
    each = r"replica-0\S* did not start on node a: it was killed"
    with pytest.raises(
        ResourcesError, match=rf"no replica started, 3 attempts: {each}; {each}; {each}\."
    ):
        _start_in_vain(Cluster(replace(AUTO, replicas=1)), placed=True)
    with pytest.raises(
        ResourcesError, match="did not start before it was on a node: it was killed"
    ):
        _start_in_vain(Cluster(replace(AUTO, replicas=1)), placed=False)


def test_nodes_that_die_while_many_load_count_once_each() -> None:
    cluster = Cluster(replace(AUTO, replicas=3), ("a", "b"), room=4.0)
    cluster.tick()
    for _ in range(3):
        cluster.place("a")
    cluster.tick()
    del cluster.living["a"]
    for slot in range(3):
        cluster.die(slot)
    cluster.settle()
    assert cluster.nodes_held() == {"b": 3}


def test_a_pool_whose_replicas_all_see_another_model_says_so_at_once_and_waits_where_more_may_come() -> (
    None
):
    def another(shape: PoolShape) -> Cluster:
        cluster = Cluster(shape)
        cluster.tick()
        cluster.place(), cluster.tick(), cluster.load()
        cluster.give()
        cluster.tick()
        cluster.die(0)
        cluster.tick(1.0)
        cluster.place(), cluster.tick(), cluster.load("other")
        return cluster

    cluster = another(replace(AUTO, replicas=1))
    with pytest.raises(
        ResourcesError,
        match=r"no replica is left, and no other node has room for one: replica-0.1 on node a has "
        r"another",
    ):
        cluster.tick()
    cluster = another(replace(AUTO, max_replicas=4))
    cluster.tick()
    cluster.living["b"] = Node("b", {"CPU": 1.0})
    cluster.settle()
    assert cluster.nodes_held() == {"b": 1}


def test_a_replica_that_never_finishes_loading_is_given_up() -> None:
    cluster = Cluster(replace(AUTO, replicas=1))
    cluster.tick()
    cluster.place(), cluster.tick()
    cluster.tick(300.0)
    assert cluster.actors
    cluster.tick(301.0)
    assert cluster.actors == {}
    with pytest.raises(
        ResourcesError, match=r"no replica was ready for 600 s .* took longer than 600 s to load"
    ):
        cluster.tick(601.0)


def test_deadlines_follow_what_tasks_took_and_their_size() -> None:
    deadlines = Deadlines(600.0)
    small, large = (
        task(0),
        replace(task(1), blocks=tuple(Block("test", i, tuple(range(100))) for i in range(10))),
    )
    assert deadlines.deadline(small) == 600.0
    for _ in range(50):
        deadlines.record(small, 0.6, measured(small))
    assert deadlines.deadline(small) == MIN_SECONDS
    assert (weight(small), weight(large)) == (6, 2000)
    assert deadlines.deadline(large) == 600.0
    half = replace(large, interventions=(at(0),), blocks=large.blocks[:1])
    assert deadlines.deadline(half) == pytest.approx(20 * 0.1 * 100)
    assert deadlines.deadline(replace(half, attempt=1)) == pytest.approx(2 * 20 * 0.1 * 100)
    assert Deadlines(0.5).deadline(small) == 0.5
    quick = Deadlines(0.5)
    quick.record(small, 0.001, measured(small))
    assert quick.deadline(small) == 0.5


def test_of_a_lease_what_it_ran_is_recorded() -> None:
    """Not the rows that it might have run, nor the tokens of its answers."""
    deadlines = Deadlines(10_000.0)
    deadlines.record(leased(0), 4.0, measured(leased(0), blocks=4))
    assert deadlines.expected(task(0)) == pytest.approx(6 * 0.1)


def test_a_lease_is_expected_to_take_its_time_and_one_more_step_at_most() -> None:
    slow, quick = Deadlines(10_000.0), Deadlines(10_000.0)
    slow.record(task(0), 6 * 0.5, measured(task(0)))
    assert slow.expected(leased(0)) == pytest.approx(5 + 10 * 0.5), "and not 45 s"
    assert slow.deadline(leased(0)) == pytest.approx(20 * 10)
    quick.record(task(0), 6 * 0.01, measured(task(0)))
    assert quick.expected(leased(0)) == pytest.approx(90 * 0.01), "its rows take less than 5 s"
    assert Deadlines(600.0).deadline(leased(0)) == 600.0


def test_a_replica_that_hangs_in_a_lease_is_lost_at_the_deadline_of_what_leases_ran() -> None:
    cluster = Cluster(PoolShape(1, start_seconds=600.0, deadline_seconds=10_000.0))
    cluster.settle()
    number = cluster.give(leased)
    cluster.tick(20.0)
    cluster.answer(number, blocks=4)  # half a second a row
    number = cluster.give(leased)
    cluster.tick(199.0)
    assert not cluster.lost
    cluster.tick(2.0)
    assert [(e.task, e.cause) for e in cluster.lost] == [(number, "deadline")]


def test_a_task_that_raised_says_nothing_about_how_long_others_take() -> None:
    cluster = Cluster(replace(AUTO, replicas=1))
    cluster.settle()
    number = cluster.give()
    cluster.do(cluster.slots.on_answered(cluster.out.pop(number), cluster.now, ()))
    cluster.give()
    assert cluster.slots.free == 0, "it raised at once, so no other is expected to be quick"
