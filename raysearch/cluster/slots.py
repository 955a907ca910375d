"""The state machine of a pool: takes events with their time, returns instructions. No Ray, no
clock.

A slot is the place of one worker:

    out -> resting -> pending -> placed -> loading -> idle <-> busy -> doubtful <-> probed
     ^           |         |          |         |        |        |            |
     +-----------+---------+----------+---------+--------+--------+------------+

A replica whose tasks take less than `PREFETCH_SECONDS` is assigned the next one before it has
answered; it would wait for the driver otherwise.

Invariants: an assigned task is answered or reported as Lost, exactly once; a slot starts an actor
only after its last one was stopped; while a node is loading its first replica, its others wait; a
draining node gets no tasks; it raises ResourcesError when it has been without a replica for too
long, or none can come any more.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from raysearch.cluster.deadlines import Deadlines
from raysearch.cluster.instructions import (
    Instruction,
    LoadReplica,
    Message,
    ProbeReplica,
    StartReplica,
    StopReplica,
)
from raysearch.cluster.node_health import NodeHealth
from raysearch.cluster.pool_shape import Node, PoolShape
from raysearch.cluster.replica_spec import lost
from raysearch.cluster.slot import READY, STARTING, Slot, SlotState
from raysearch.core.events import Event, Task

BACK_OFF_SECONDS = (0.5, 1.0, 2.0, 5.0, 15.0, 30.0)
IDLE_SECONDS = 5.0
"""A replica that is idle for this long shows that there is no work for another one."""
SILENT_SECONDS = 30.0
"""Time without any replica after which a message says so."""
RETRY_NODES_SECONDS = 600.0
"""Time after which nodes with failed starts are tried again."""
PREFETCH_SECONDS = 0.05
"""A replica is assigned a second task while its first is expected to take less than this, some ten
times the cost of a call."""
LINGER_SECONDS = 300.0
"""Time after which an idle replica is released, if the pool made the cluster grow for it."""


class Slots:
    """All slots of a pool, created at `now`. Times are seconds of a monotonic clock."""

    def __init__(self, shape: PoolShape, now: float) -> None:
        self._shape = shape
        self._slots: list[Slot] = []
        self._idle: dict[int, Slot] = {}
        self._prefetchable: dict[int, Slot] = {}
        self._health = NodeHealth(shape)
        self._deadlines = Deadlines(shape.deadline_seconds)
        self._digest: str | None = None
        self._progress_at = now
        self._retried_at = now
        self._is_wait_reported = False

    @property
    def free(self) -> int:
        """Number of tasks that may be assigned."""
        return len(self._idle) + len(self._prefetchable)

    def ready(self) -> list[Slot]:
        """Returns the slots whose replicas have loaded."""
        return [s for s in self._slots if s.state in READY]

    def __getitem__(self, number: int) -> Slot:
        return self._slots[number]

    def update_nodes(self, nodes: Iterable[Node]) -> None:
        """Replaces the list of living nodes."""
        self._health.update(nodes)

    def is_known(self, node: str) -> bool:
        """Says whether a node is in the last list of living nodes."""
        return not self._health.is_gone(node)

    def assign(self, task: Task, now: float) -> int:
        """Assigns `task` to a slot and returns its number; requires `free` > 0.

        Picks the slot that became idle last, so that surplus replicas stay idle and can be
        released. If none is idle, picks the one that has waited longest for a second task.
        """
        if self._idle:
            slot = self._idle[next(reversed(self._idle))]
            self._take(slot, task, now)
        else:
            slot = self._prefetchable.pop(next(iter(self._prefetchable)))
            slot.prefetched = task
        return slot.number

    def on_placed(self, number: int, node: str, now: float) -> list[Instruction]:
        """Handles that an actor lives on `node`. A new node must be in `update_nodes` first
        (`is_known`)."""
        slot = self._slots[number]
        slot.node = node
        self._become(slot, "placed", now)
        self._progress_at = now
        if not self._health.accepts(node, self._replicas_per_node()[node]):
            return self._leave(slot, now)
        return []

    def on_loaded(self, number: int, digest: str, now: float) -> list[Instruction]:
        """Handles that a replica has loaded.

        Args: digest: of its model and encoding; must equal the first replica's.
        """
        slot = self._slots[number]
        self._digest = self._digest or digest
        if digest != self._digest:
            why = (
                f"{slot.name} on node {slot.node[:8]} has another model, or encodes the pairs "
                f"otherwise, than the first replica ({digest[:12]} against {self._digest[:12]})"
            )
            self._health.exclude(slot.node, why)
            return [
                Message(
                    f"{why}: the node is left out; give every node the same files and package "
                    f"versions"
                ),
                *self._leave(slot, now),
            ]
        self._health.on_started(slot.node)
        slot.failures = 0
        return self._rejoin(slot, now)

    def on_answered(self, number: int, now: float, events: Sequence[Event]) -> list[Instruction]:
        """Handles that a task was answered (without events: it raised), and begins the next."""
        slot = self._slots[number]
        assert slot.task is not None, slot
        if events:
            self._deadlines.record(slot.task, now - slot.since, events)
        prefetched, slot.task, slot.prefetched, slot.failures = slot.prefetched, None, None, 0
        if prefetched is None:
            return self._rejoin(slot, now)
        self._take(slot, prefetched, now)
        return []

    def on_reconnected(self, number: int, now: float) -> list[Instruction]:
        """Handles that a worker is alive after its connection broke, with its answer lost."""
        slot = self._slots[number]
        assert slot.task is not None, slot
        assert slot.prefetched is None, slot
        event = lost(
            slot.task,
            "node",
            slot.name,
            "the connection to the worker broke, and its answer is lost",
        )
        slot.task = None
        return [event, *self._rejoin(slot, now)]

    def on_died(
        self, number: int, reason: str, now: float, *, certain: bool = True
    ) -> list[Instruction]:
        """Handles that a call to an actor failed, with all calls queued behind it.

        Args: certain: whether the actor is known to be dead. If not, it was unreachable; Ray
        reports this for many seconds before it finds that a node is dead.
        """
        slot = self._slots[number]
        gone = bool(slot.node) and self._health.is_leaving(slot.node)
        if not certain and not gone and slot.task is not None:
            slot.state = "doubtful"  # `since` and `until` still belong to the task
            self._prefetchable.pop(number, None)
            return self._drop_prefetched(slot)
        return self._fail(slot, "node" if gone else "worker", reason, now)

    def tick(self, now: float) -> list[Instruction]:
        """Returns the instructions that are due at `now`.

        Raises: ResourcesError when no replica came in time, or none can come.
        """
        # first: it may raise, and later instructions must be carried out
        instructions = self._check(now)
        instructions += self._retry_nodes(now)
        instructions += self._fail_overdue(now)
        instructions += self._leave_draining(now)
        instructions += self._resize(now)
        instructions += self._release_idle(now)
        instructions += self._start(now)
        instructions += self._load(now)
        instructions += self._probe()
        return instructions

    def close(self) -> None:
        """Forgets all slots."""
        self._slots.clear()
        self._idle.clear()
        self._prefetchable.clear()

    def _take(self, slot: Slot, task: Task, now: float) -> None:
        self._become(slot, "busy", now)
        slot.task, slot.until = task, now + self._deadlines.deadline(task)
        if self._deadlines.expected(task) < PREFETCH_SECONDS and not self._health.is_leaving(
            slot.node
        ):
            self._prefetchable[slot.number] = slot

    def _drop_prefetched(self, slot: Slot) -> list[Instruction]:
        """Reports a slot's prefetched task as lost with its actor."""
        prefetched, slot.prefetched = slot.prefetched, None
        if prefetched is None:
            return []
        return [
            lost(prefetched, "queued", slot.name, "its worker was lost with the task before it")
        ]

    def _become(self, slot: Slot, state: SlotState, now: float) -> None:
        slot.state, slot.since = state, now
        self._prefetchable.pop(slot.number, None)
        if state == "idle":
            self._idle[slot.number] = slot
        else:
            self._idle.pop(slot.number, None)

    def _rejoin(self, slot: Slot, now: float) -> list[Instruction]:
        """Makes a slot idle, or stops its actor if the node is leaving."""
        if self._health.is_leaving(slot.node):
            return self._leave(slot, now)
        self._become(slot, "idle", now)
        return []

    def _leave(
        self, slot: Slot, now: float, rest: float = 0.0, state: SlotState = "resting"
    ) -> list[Instruction]:
        """Stops the slot's actor, to restart it after `rest` seconds. Counts as no failure."""
        assert slot.task is None, slot
        assert slot.prefetched is None, slot
        had = slot.state not in ("out", "resting")
        self._become(slot, state, now)
        slot.node, slot.until = "", now + rest
        return [StopReplica(slot.number)] if had else []

    def _fail(
        self, slot: Slot, cause: Literal["worker", "node", "deadline"], reason: str, now: float
    ) -> list[Instruction]:
        node, task, state, name = slot.node, slot.task, slot.state, slot.name
        instructions = self._drop_prefetched(slot)
        slot.task = None
        slot.failures += 1
        blameless = cause == "node" and state in READY
        instructions += self._leave(
            slot,
            now,
            0.0 if blameless else BACK_OFF_SECONDS[min(slot.failures, len(BACK_OFF_SECONDS)) - 1],
        )
        if state in STARTING:
            where = f"on node {node[:8]}" if node else "before it was on a node"
            line = self._health.on_failed_start(
                node, f"{name} did not start {where}: {reason}", self._replicas_per_node()[node]
            )
            instructions += [Message(line)] if line else []
        if task is not None:
            instructions.insert(0, lost(task, cause, name, reason))
        return instructions

    def _retry_nodes(self, now: float) -> Iterator[Instruction]:
        """Now and then lets nodes with failed starts be tried again, by new actors that do not
        avoid them."""
        if now - self._retried_at > RETRY_NODES_SECONDS:
            self._retried_at = now
            if self._health.retry():
                for slot in self._slots:
                    if slot.state == "pending":
                        yield from self._leave(slot, now)

    def _fail_overdue(self, now: float) -> Iterator[Instruction]:
        for slot in self._slots:
            if slot.task is not None and now > slot.until:
                reason = f"task {slot.task.id} took longer than {slot.until - slot.since:.0f} s"
                cause: Literal["node", "deadline"] = (
                    "node" if self._health.is_leaving(slot.node) else "deadline"
                )
                yield from self._fail(slot, cause, reason, now)
            elif slot.state in ("doubtful", "probed") and self._health.is_gone(slot.node):
                yield from self._fail(slot, "node", "its node died", now)
            elif slot.state == "loading" and now - slot.since > self._shape.start_seconds:
                limit = f"{self._shape.start_seconds:.0f} s"
                reason = f"it took longer than {limit} to load (resources.wait)"
                yield from self._fail(slot, "worker", reason, now)

    def _leave_draining(self, now: float) -> Iterator[Instruction]:
        """Stops idle and starting actors on nodes that are leaving or full; tasks there finish or
        get lost."""
        held = self._replicas_per_node()
        for slot in self._slots:
            if self._health.is_leaving(slot.node):
                self._prefetchable.pop(slot.number, None)
            off = slot.state == "idle" and self._health.is_leaving(slot.node)
            if off or (
                slot.state in ("placed", "loading")
                and not self._health.accepts(slot.node, held[slot.node])
            ):
                yield from self._leave(slot, now)

    def _resize(self, now: float) -> Iterator[Instruction]:
        """Adjusts the number of slots; actors that run on a node stay, whatever the target."""
        living = [
            s
            for s in self._slots
            if s.state != "out" and not (s.node and self._health.is_leaving(s.node))
        ]
        target = self._target(len(living), now)
        surplus = [s for s in reversed(living) if s.state in ("resting", "pending")][
            : max(0, len(living) - target)
        ]
        for slot in surplus:
            yield from self._leave(slot, now, state="out")
        spare = [s for s in self._slots if s.state == "out"]
        for _ in range(target - len(living)):
            slot = spare.pop(0) if spare else Slot(len(self._slots))
            if slot.number == len(self._slots):
                self._slots.append(slot)
            self._leave(slot, now)

    def _target(self, living: int, now: float) -> int:
        """Returns the target number of replicas.

        "auto": as many as fit, while there is work for more. If the cluster can grow, up to as many
        again as are ready, at most `max_replicas`; an autoscaler reacts to their pending actors.
        """
        if self._shape.replicas != "auto":
            return self._shape.replicas
        room = max(1, self._health.room(self._replicas_per_node()))
        if any(now - s.since > IDLE_SECONDS for s in self._idle.values()):
            return min(room, living)
        if self._shape.max_replicas is None:
            return room
        return min(self._shape.max_replicas, room + max(1, len(self.ready())))

    def _release_idle(self, now: float) -> Iterator[Instruction]:
        """Releases all but one of the replicas that have been idle for long; the one keeps others
        away."""
        if self._shape.replicas == "auto" and self._shape.max_replicas is not None:
            lingering = [s for s in self._idle.values() if now - s.since > LINGER_SECONDS]
            for slot in lingering[1:]:
                yield from self._leave(slot, now, state="out")

    def _start(self, now: float) -> Iterator[Instruction]:
        rested = [s for s in self._slots if s.state == "resting" and now >= s.until]
        avoid = self._health.full(self._replicas_per_node()) if rested else ()
        for slot in rested:
            slot.starts += 1
            self._become(slot, "pending", now)
            yield StartReplica(slot.number, slot.name, avoid)

    def _load(self, now: float) -> Iterator[Instruction]:
        busy = {s.node for s in self._slots if s.state == "loading"}
        for slot in self._slots:
            if slot.state == "placed" and (
                self._health.is_warm(slot.node) or slot.node not in busy
            ):
                busy.add(slot.node)
                self._become(slot, "loading", now)
                yield LoadReplica(slot.number)

    def _probe(self) -> Iterator[Instruction]:
        for slot in self._slots:
            if slot.state == "doubtful":
                slot.state = "probed"
                yield ProbeReplica(slot.number)

    def _check(self, now: float) -> list[Instruction]:
        if self.ready():
            self._health.clear_failures()
        if any(s.state in READY or s.state in ("placed", "loading") for s in self._slots):
            self._progress_at, self._is_wait_reported = now, False
            return []
        waited = now - self._progress_at
        self._health.check(waited)
        if self._is_wait_reported or waited < SILENT_SECONDS:
            return []
        self._is_wait_reported = True
        return [
            Message(
                f"no replica is there for {waited:.0f} s: {self._health.describe()}; waiting for "
                f"room"
            )
        ]

    def _replicas_per_node(self) -> Counter[str]:
        return Counter(s.node for s in self._slots if s.node)
