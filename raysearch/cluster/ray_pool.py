"""A pool of Ray actors, one replica each: raw named actors, our own wait loop, retries and deadlines in one place.

Invariants: an actor runs one task at a time and is never restarted by Ray (max_restarts=0, max_task_retries=0): what is lost is told
as Lost, and the search decides; a worker that dies is replaced after a back-off; a replica that does not see the same pairs as
the first one never works; without any replica for too long, the pool says so and ends.
"""

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import ray
from ray.exceptions import RayError, RayTaskError

from raysearch.cluster.work import NOTHING, OnUsage, Work, check_answers, failed_whole, lost, unheard
from raysearch.cluster.worker import Ready, Worker
from raysearch.errors import ClusterError, RaysearchError, ResourcesError
from raysearch.search.events import Event, Opened, Task

_log = logging.getLogger("raysearch.cluster")

POLL_SECONDS = 1.0
DEADLINE_SECONDS = 600.0
"""A task is a second to a few tens of seconds; one that takes ten minutes hangs."""
BACK_OFF_SECONDS = (0.5, 1.0, 2.0, 5.0, 15.0, 30.0)
START_ATTEMPTS = 3


@dataclass(frozen=True)
class Shape:
    """Of a pool: how many replicas, and what each takes. `start_seconds`: how long it may be without any that is ready."""

    replicas: int
    cpus: int = 1
    gpus: float = 0.0
    start_seconds: float = 600.0
    deadline_seconds: float = DEADLINE_SECONDS


@dataclass
class _Slot:
    """A worker's place. `ref` is the call that is out: the opening of the replica, or `task`."""

    number: int
    actor: Any = None
    ref: Any = None
    task: Task | None = None
    since: float = 0.0
    node: str = ""
    ready: bool = False
    retired: bool = False
    deaths: int = 0
    born_at: float = 0.0
    history: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"replica-{self.number}" + (f".{self.deaths}" if self.deaths else "")


class RayPool:
    """Replicas as actors of the Ray that this process is connected to. `run` prefixes the actors' names.

    `worker`: the class of the actors; `on_usage` hears what each task took.
    """

    def __init__(
        self, work: Work, run: str, shape: Shape, on_usage: OnUsage = unheard, worker: type[Worker] = Worker
    ) -> None:
        self._run = run
        self._worker = worker
        self._shape = shape
        self._on_usage = on_usage
        self._work_ref = ray.put(work)
        self._slots = [_Slot(i) for i in range(shape.replicas)]
        self._opened: Opened | None = None
        self._digest = ""
        self._alive_at = time.monotonic()

    def open(self) -> Opened:
        """Starts all replicas and returns when the first is ready; the others join when they are.

        Raises: ModelError, PairsError from the replica; ResourcesError if the cluster has no room for one in time.
        """
        self._alive_at = time.monotonic()
        for slot in self._slots:
            self._start(slot)
        while self._opened is None:
            self._collect()
        return self._opened

    @property
    def free(self) -> int:
        return sum(slot.ready and slot.task is None for slot in self._slots)

    @property
    def ready(self) -> tuple[str, ...]:
        """The replicas that have loaded and are there, by name."""
        return tuple(slot.name for slot in self._slots if slot.ready)

    @property
    def workers(self) -> list[tuple[str, int]]:
        """(name, process id) of each replica that is ready; for tests that kill one."""
        ready = [s for s in self._slots if s.ready]
        return [(s.name, ray.get(s.actor.pid.remote())) for s in ready if s.task is None]

    def submit(self, task: Task, tensors: Mapping[str, bytes] = NOTHING) -> None:
        slot = next(s for s in self._slots if s.ready and s.task is None)
        slot.task, slot.since = task, time.monotonic()
        slot.ref = slot.actor.do.options(name=f"{task.kind} {task.id}").remote(task, dict(tensors))

    def wait(self) -> list[Event]:
        return self._collect()

    def close(self) -> None:
        """Ends all actors."""
        for slot in self._slots:
            if slot.actor is not None:
                ray.kill(slot.actor)
            slot.actor, slot.ready, slot.ref = None, False, None

    def _collect(self) -> list[Event]:
        """Whatever has come in, after at most a moment."""
        self._revive()
        self._check_alive()
        refs = {s.ref: s for s in self._slots if s.ref is not None}
        if not refs:
            time.sleep(min(POLL_SECONDS, 0.1))
            return []
        done, _ = ray.wait(list(refs), num_returns=1, timeout=POLL_SECONDS)
        if done:
            done, _ = ray.wait(list(refs), num_returns=len(refs), timeout=0)
        events: list[Event] = []
        for ref in done:
            events += self._finished(refs[ref])
        events += self._overdue()
        return events

    def _finished(self, slot: _Slot) -> Iterator[Event]:
        ref, task = slot.ref, slot.task
        slot.ref = None
        try:
            result = ray.get(ref, timeout=60)
        except RayTaskError as e:
            if task is None:
                raise _cause(e) from e
            slot.task = None
            yield replace(failed_whole(task, _cause(e), slot.name, slot.node), traceback=str(e))
            return
        except RayError as e:  # the actor died, its node did, its answer was lost or could not be fetched in time
            yield from self._died(slot, "node" if _node_is_dead(slot.node) else "worker", _first_line(e))
            return
        if task is None:
            self._on_usage(slot.name, None, result.usage)
            self._join(slot, result)
            return
        slot.task = None
        events, usage = result
        self._on_usage(slot.name, task, usage)
        check_answers(task, events)
        yield from events

    def _join(self, slot: _Slot, ready: Ready) -> None:
        """Admits a replica that has loaded."""
        if self._opened is None:
            self._opened, self._digest = ready.opened, ready.digest
        elif ready.digest != self._digest:
            _log.warning(
                "%s on node %s has another model, or encodes the pairs otherwise, than the first replica (%s against %s): it is left "
                "out; give every node the same files and package versions",
                slot.name,
                ready.node[:8],
                ready.digest[:12],
                self._digest[:12],
            )
            ray.kill(slot.actor)
            slot.actor, slot.retired = None, True
            return
        if ready.opened.facts.path != self._opened.facts.path:
            _log.warning(
                "%s takes the %s path, the first replica %s",
                slot.name,
                ready.opened.facts.path,
                self._opened.facts.path,
            )
        slot.node, slot.ready = ready.node, True

    def _died(self, slot: _Slot, cause: Literal["worker", "node", "deadline"], message: str) -> Iterator[Event]:
        opening, task = not slot.ready, slot.task
        _log.info("%s is gone (%s): %s", slot.name, cause, message)
        if slot.actor is not None:
            ray.kill(slot.actor)
        worker = slot.name
        slot.actor, slot.ref, slot.task, slot.ready = None, None, None, False
        slot.deaths += 1
        slot.born_at = time.monotonic() + BACK_OFF_SECONDS[min(slot.deaths, len(BACK_OFF_SECONDS)) - 1]
        slot.history.append("start" if opening else "work")
        if slot.history[-START_ATTEMPTS:] == ["start"] * START_ATTEMPTS:
            raise ClusterError(
                f"{worker} died {START_ATTEMPTS} times while it loaded the model: {message}; "
                "is there memory for a replica? (resources.replicas: 1 takes the least)"
            )
        if task is not None:
            yield lost(task, cause, worker, message)

    def _overdue(self) -> Iterator[Event]:
        now = time.monotonic()
        for slot in self._slots:
            if slot.task is not None and slot.ref is not None and now - slot.since > self._shape.deadline_seconds:
                message = f"task {slot.task.id} took longer than {self._shape.deadline_seconds:.0f} s"
                yield from self._died(slot, "deadline", message)

    def _check_alive(self) -> None:
        """Raises: ResourcesError where no replica has been ready for too long."""
        now = time.monotonic()
        if any(slot.ready for slot in self._slots):
            self._alive_at = now
        elif now - self._alive_at > self._shape.start_seconds:
            self.close()
            raise ResourcesError(
                f"no replica was ready for {self._shape.start_seconds:.0f} s; each asks {self._shape.cpus} CPUs and "
                f"{self._shape.gpus:g} GPUs, the cluster has {_resources()}; lower resources.cpus or resources.gpus, or add nodes "
                "(or the model takes longer than that to load, or the replicas see another one than the first did)"
            )

    def _revive(self) -> None:
        now = time.monotonic()
        for slot in self._slots:
            if slot.actor is None and slot.deaths and not slot.retired and now >= slot.born_at:
                self._start(slot)

    def _start(self, slot: _Slot) -> None:
        options = {
            "name": f"{self._run}:{slot.name}",
            "num_cpus": self._shape.cpus,
            "num_gpus": self._shape.gpus,
            "max_restarts": 0,
            "max_task_retries": 0,
        }
        slot.actor = ray.remote(self._worker).options(**options).remote(slot.name)
        slot.ref = slot.actor.open.options(name=f"load {slot.name}").remote(self._work_ref)


def _resources() -> str:
    found = ray.cluster_resources()
    return f"{found.get('CPU', 0):g} CPUs and {found.get('GPU', 0):g} GPUs"


def _node_is_dead(node: str) -> bool:
    return any(n["NodeID"] == node and not n["Alive"] for n in ray.nodes())


def _cause(error: RayTaskError) -> BaseException:
    """What the worker raised; its own traceback stays in the text of the RayTaskError, which is chained."""
    cause = error.cause
    if isinstance(cause, RaysearchError):
        return cause
    return cause if isinstance(cause, BaseException) else error


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
