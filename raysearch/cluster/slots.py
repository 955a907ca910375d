"""The brain of a pool of workers: what happened goes in, with the time; what is to be done comes
out. No Ray, no clock.

A slot is a worker's place:

    out -> resting -> pending -> placed -> loading -> idle <-> busy -> doubtful <-> asked
             ^           |         |          |         |        |        |            |
             +-----------+---------+----------+---------+--------+--------+------------+

A replica whose tasks take less than `AHEAD_SECONDS` is given the next one before it has answered:
it would wait for the driver otherwise.

Invariants: a task that was given is either answered or told as Lost, once; a slot is started only
after its last actor was ended; on a node that no replica has loaded on yet, one loads while the
others wait; a node that drains is given nothing; without any replica for too long, or when none can
come any more, it raises ResourcesError.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from raysearch.cluster.deadlines import Deadlines
from raysearch.cluster.node_health import NodeHealth
from raysearch.cluster.replica_spec import lost
from raysearch.cluster.shape import Node, PoolShape
from raysearch.core.events import Lost, Task

BACK_OFF_SECONDS = (0.5, 1.0, 2.0, 5.0, 15.0, 30.0)
IDLE_SECONDS = 5.0
"""A replica that has had nothing to do for so long shows that there is no work for another one."""
SILENT_SECONDS = 30.0
"""Without any replica, before that is said."""
PARDON_SECONDS = 600.0
"""After which nodes on which replicas did not start are tried again."""
AHEAD_SECONDS = 0.05
"""A replica is given a task ahead while the one that it has is expected to take less: some ten
times what a call costs."""
LINGER_SECONDS = 300.0
"""After which a replica without work is given back, where the pool asked the cluster to grow for
it."""

SlotState = Literal[
    "out", "resting", "pending", "placed", "loading", "idle", "busy", "doubtful", "asked"
]
READY: frozenset[SlotState] = frozenset({"idle", "busy", "doubtful", "asked"})
STARTING: frozenset[SlotState] = frozenset({"pending", "placed", "loading"})


@dataclass(frozen=True, slots=True)
class StartReplica:
    """Make the actor of a slot, on none of the nodes `avoid`, and ask it where it is."""

    slot: int
    name: str
    avoid: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LoadReplica:
    """Have the actor of a slot load its replica."""

    slot: int


@dataclass(frozen=True, slots=True)
class ProbeReplica:
    """Ask the actor of a slot whether it is still there."""

    slot: int


@dataclass(frozen=True, slots=True)
class StopReplica:
    """Kill the actor of a slot, and hear nothing more of it."""

    slot: int


@dataclass(frozen=True, slots=True)
class Message:
    """A line for whoever watches."""

    text: str


Instruction = StartReplica | LoadReplica | ProbeReplica | StopReplica | Message | Lost
"""What a pool is to do; a Lost is to be told."""


@dataclass(slots=True)
class Slot:
    """A worker's place. `since`: when it came into its state, or began its task; `until`: when it
    goes on; `falls`: deaths since it last answered; `ahead`: a task that it was given on top of
    `task`."""

    number: int
    state: SlotState = "out"
    life: int = -1
    node: str = ""
    task: Task | None = None
    ahead: Task | None = None
    since: float = 0.0
    until: float = 0.0
    falls: int = 0

    @property
    def name(self) -> str:
        return f"replica-{self.number}" + (f".{self.life}" if self.life > 0 else "")


class Slots:
    """All slots of a pool, which begins at `now`. Times are seconds of a clock that only runs
    forward."""

    def __init__(self, shape: PoolShape, now: float) -> None:
        self._shape = shape
        self._slots: list[Slot] = []
        self._idle: dict[int, Slot] = {}
        self._quick: dict[int, Slot] = {}
        self._standing = NodeHealth(shape)
        self._pace = Deadlines(shape.deadline_seconds)
        self._digest: str | None = None
        self._coming_at = now
        self._pardoned_at = now
        self._waits = False

    @property
    def free(self) -> int:
        """How many tasks may be given."""
        return len(self._idle) + len(self._quick)

    def ready(self) -> list[Slot]:
        """The slots whose replicas have loaded."""
        return [s for s in self._slots if s.state in READY]

    def __getitem__(self, number: int) -> Slot:
        return self._slots[number]

    def nodes(self, nodes: Iterable[Node]) -> None:
        """Which nodes live."""
        self._standing.seen(nodes)

    def knows(self, node: str) -> bool:
        """Whether a node was among those that lived when they were last told."""
        return not self._standing.is_gone(node)

    def given(self, task: Task, now: float) -> int:
        """The slot that takes `task`; there must be one (`free`). It is the one that was idle last,
        so that what is too many lingers; where none is idle, the one whose turn to be given a task
        ahead came first."""
        if self._idle:
            slot = self._idle[next(reversed(self._idle))]
            self._take(slot, task, now)
        else:
            slot = self._quick.pop(next(iter(self._quick)))
            slot.ahead = task
        return slot.number

    def placed(self, number: int, node: str, now: float) -> list[Instruction]:
        """The actor of a slot lives, on `node`, which must be known (`knows`) unless it is gone by
        now."""
        slot = self._slots[number]
        slot.node = node
        self._become(slot, "placed", now)
        self._coming_at = now
        if not self._standing.takes(node, self._held()[node]):
            return self._leave(slot, now)
        return []

    def loaded(self, number: int, digest: str, now: float) -> list[Instruction]:
        """The replica of a slot has loaded. `digest`: of its model and how it sees the pairs, which
        must be as the first one's."""
        slot = self._slots[number]
        self._digest = self._digest or digest
        if digest != self._digest:
            why = (
                f"{slot.name} on node {slot.node[:8]} has another model, or encodes the pairs "
                f"otherwise, than the first replica "
                f"({digest[:12]} against {self._digest[:12]})"
            )
            self._standing.shun(slot.node, why)
            return [
                Message(
                    f"{why}: the node is left out; give every node the same files and package "
                    f"versions"
                ),
                *self._leave(slot, now),
            ]
        self._standing.started(slot.node)
        slot.falls = 0
        return self._rejoin(slot, now)

    def answered(self, number: int, now: float, *, whole: bool = True) -> list[Instruction]:
        """A slot's task was answered; not `whole` where it raised. It goes on with the one that it
        was given ahead."""
        slot = self._slots[number]
        assert slot.task is not None, slot
        if whole:
            self._pace.took(slot.task, now - slot.since)
        ahead, slot.task, slot.ahead, slot.falls = slot.ahead, None, None, 0
        if ahead is None:
            return self._rejoin(slot, now)
        self._take(slot, ahead, now)
        return []

    def there(self, number: int, now: float) -> list[Instruction]:
        """A worker whose connection broke is still there; what it answered is not."""
        slot = self._slots[number]
        assert slot.task is not None, slot
        assert slot.ahead is None, slot
        told = lost(
            slot.task,
            "node",
            slot.name,
            "the connection to the worker broke, and its answer is lost",
        )
        slot.task = None
        return [told, *self._rejoin(slot, now)]

    def died(
        self, number: int, said: str, now: float, *, certain: bool = True
    ) -> list[Instruction]:
        """A call to the actor of a slot came to nothing, and all calls behind it. Not `certain`:
        the actor could not be reached, which tells neither why nor whether it is dead. (Ray takes
        many seconds to see that a node is dead, and says this until then.)"""
        slot = self._slots[number]
        gone = bool(slot.node) and self._standing.is_going(slot.node)
        if not certain and not gone and slot.task is not None:
            slot.state = "doubtful"  # `since` and `until` stay those of the task
            self._quick.pop(number, None)
            return self._drop_ahead(slot)
        return self._fall(slot, "node" if gone else "worker", said, now)

    def tick(self, now: float) -> list[Instruction]:
        """What time itself asks for. Raises: ResourcesError where the pool has waited long enough,
        or in vain."""
        did = self._check(now)  # first: whatever is decided after it must be carried out
        did += self._pardon(now)
        did += self._overdue(now)
        did += self._leave_going(now)
        did += self._resize(now)
        did += self._give_back(now)
        did += self._begin(now)
        did += self._load(now)
        did += self._ask()
        return did

    def close(self) -> None:
        """Forgets all slots."""
        self._slots.clear()
        self._idle.clear()
        self._quick.clear()

    def _take(self, slot: Slot, task: Task, now: float) -> None:
        self._become(slot, "busy", now)
        slot.task, slot.until = task, now + self._pace.deadline(task)
        if self._pace.expected(task) < AHEAD_SECONDS and not self._standing.is_going(slot.node):
            self._quick[slot.number] = slot

    def _drop_ahead(self, slot: Slot) -> list[Instruction]:
        """What is told of the task that a slot was given ahead, when its actor is gone."""
        ahead, slot.ahead = slot.ahead, None
        if ahead is None:
            return []
        return [lost(ahead, "queued", slot.name, "its worker was lost with the task before it")]

    def _become(self, slot: Slot, state: SlotState, now: float) -> None:
        slot.state, slot.since = state, now
        self._quick.pop(slot.number, None)
        if state == "idle":
            self._idle[slot.number] = slot
        else:
            self._idle.pop(slot.number, None)

    def _rejoin(self, slot: Slot, now: float) -> list[Instruction]:
        """Ready for the next task, unless its node goes."""
        if self._standing.is_going(slot.node):
            return self._leave(slot, now)
        self._become(slot, "idle", now)
        return []

    def _leave(
        self, slot: Slot, now: float, rest: float = 0.0, state: SlotState = "resting"
    ) -> list[Instruction]:
        """Ends the actor of a slot, which begins anew after `rest` seconds; at nobody's count."""
        assert slot.task is None, slot
        assert slot.ahead is None, slot
        had = slot.state not in ("out", "resting")
        self._become(slot, state, now)
        slot.node, slot.until = "", now + rest
        return [StopReplica(slot.number)] if had else []

    def _fall(
        self, slot: Slot, cause: Literal["worker", "node", "deadline"], said: str, now: float
    ) -> list[Instruction]:
        node, task, state, name = slot.node, slot.task, slot.state, slot.name
        did = self._drop_ahead(slot)
        slot.task = None
        slot.falls += 1
        blameless = cause == "node" and state in READY
        did += self._leave(
            slot,
            now,
            0.0 if blameless else BACK_OFF_SECONDS[min(slot.falls, len(BACK_OFF_SECONDS)) - 1],
        )
        if state in STARTING:
            where = f"on node {node[:8]}" if node else "before it was on a node"
            line = self._standing.fell(
                node, f"{name} did not start {where}: {said}", self._held()[node]
            )
            did += [Message(line)] if line else []
        if task is not None:
            did.insert(0, lost(task, cause, name, said))
        return did

    def _pardon(self, now: float) -> Iterator[Instruction]:
        """Lets nodes be tried again now and then, by actors that do not avoid them."""
        if now - self._pardoned_at > PARDON_SECONDS:
            self._pardoned_at = now
            if self._standing.pardon():
                for slot in self._slots:
                    if slot.state == "pending":
                        yield from self._leave(slot, now)

    def _overdue(self, now: float) -> Iterator[Instruction]:
        for slot in self._slots:
            if slot.task is not None and now > slot.until:
                said = f"task {slot.task.id} took longer than {slot.until - slot.since:.0f} s"
                cause: Literal["node", "deadline"] = (
                    "node" if self._standing.is_going(slot.node) else "deadline"
                )
                yield from self._fall(slot, cause, said, now)
            elif slot.state in ("doubtful", "asked") and self._standing.is_gone(slot.node):
                yield from self._fall(slot, "node", "its node died", now)
            elif slot.state == "loading" and now - slot.since > self._shape.start_seconds:
                said = f"it took longer than {self._shape.start_seconds:.0f} s to load (resources.wait)"
                yield from self._fall(slot, "worker", said, now)

    def _leave_going(self, now: float) -> Iterator[Instruction]:
        """Off the nodes that drain, are gone, or take no more; tasks that are out there are
        finished, or will be heard to be lost."""
        held = self._held()
        for slot in self._slots:
            if self._standing.is_going(slot.node):
                self._quick.pop(slot.number, None)
            off = slot.state == "idle" and self._standing.is_going(slot.node)
            if off or (
                slot.state in ("placed", "loading")
                and not self._standing.takes(slot.node, held[slot.node])
            ):
                yield from self._leave(slot, now)

    def _resize(self, now: float) -> Iterator[Instruction]:
        """As many slots as there are to be; those that live on a node stay, whatever that number
        is."""
        living = [
            s
            for s in self._slots
            if s.state != "out" and not (s.node and self._standing.is_going(s.node))
        ]
        aim = self._aim(len(living), now)
        surplus = [s for s in reversed(living) if s.state in ("resting", "pending")][
            : max(0, len(living) - aim)
        ]
        for slot in surplus:
            yield from self._leave(slot, now, state="out")
        spare = [s for s in self._slots if s.state == "out"]
        for _ in range(aim - len(living)):
            slot = spare.pop(0) if spare else Slot(len(self._slots))
            if slot.number == len(self._slots):
                self._slots.append(slot)
            self._leave(slot, now)

    def _aim(self, living: int, now: float) -> int:
        """How many replicas there are to be.

        "auto": as many as there is room for while there is work for more; beyond that as many again
        as there are, up to `most`, whose pending actors are what an autoscaler goes by.
        """
        if self._shape.replicas != "auto":
            return self._shape.replicas
        room = max(1, self._standing.room(self._held()))
        if any(now - s.since > IDLE_SECONDS for s in self._idle.values()):
            return min(room, living)
        if self._shape.most is None:
            return room
        return min(self._shape.most, room + max(1, len(self.ready())))

    def _give_back(self, now: float) -> Iterator[Instruction]:
        """The replicas that have lingered, one aside: as long as it has nothing to do, no other is
        wanted."""
        if self._shape.replicas == "auto" and self._shape.most is not None:
            lingering = [s for s in self._idle.values() if now - s.since > LINGER_SECONDS]
            for slot in lingering[1:]:
                yield from self._leave(slot, now, state="out")

    def _begin(self, now: float) -> Iterator[Instruction]:
        rested = [s for s in self._slots if s.state == "resting" and now >= s.until]
        avoid = self._standing.full(self._held()) if rested else ()
        for slot in rested:
            slot.life += 1
            self._become(slot, "pending", now)
            yield StartReplica(slot.number, slot.name, avoid)

    def _load(self, now: float) -> Iterator[Instruction]:
        busy = {s.node for s in self._slots if s.state == "loading"}
        for slot in self._slots:
            if slot.state == "placed" and (
                self._standing.is_warm(slot.node) or slot.node not in busy
            ):
                busy.add(slot.node)
                self._become(slot, "loading", now)
                yield LoadReplica(slot.number)

    def _ask(self) -> Iterator[Instruction]:
        for slot in self._slots:
            if slot.state == "doubtful":
                slot.state = "asked"
                yield ProbeReplica(slot.number)

    def _check(self, now: float) -> list[Instruction]:
        if self.ready():
            self._standing.well()
        if any(s.state in READY or s.state in ("placed", "loading") for s in self._slots):
            self._coming_at, self._waits = now, False
            return []
        waited = now - self._coming_at
        self._standing.check(waited)
        if self._waits or waited < SILENT_SECONDS:
            return []
        self._waits = True
        return [
            Message(
                f"no replica is there for {waited:.0f} s: {self._standing.wants()}; waiting for "
                f"room"
            )
        ]

    def _held(self) -> Counter[str]:
        return Counter(s.node for s in self._slots if s.node)
