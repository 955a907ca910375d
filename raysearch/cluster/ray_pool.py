"""A pool of named Ray actors with one replica each, and its wait loop. slots.py decides; this
executes.

Invariants: an actor runs its calls one at a time, in order, and Ray never restarts it
(max_restarts=0, max_task_retries=0): lost work becomes Lost, and the search decides; results of an
actor that was stopped are ignored, however late they come.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, assert_never

import ray
from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayError, RayTaskError

from raysearch.cluster.instructions import (
    Instruction,
    LoadReplica,
    Message,
    ProbeReplica,
    StartReplica,
    StopReplica,
)
from raysearch.cluster.nodes import nodes
from raysearch.cluster.pool_shape import PoolShape
from raysearch.cluster.ray_watch import RayWatch
from raysearch.cluster.replica_spec import (
    NO_TENSORS,
    OnUsage,
    ReplicaSpec,
    build_failed,
    check_answers,
    ignore_usage,
)
from raysearch.cluster.slots import Slots
from raysearch.cluster.worker import ReplicaReady, Worker, WorkerLocation
from raysearch.core.events import Event, Lost, Opened, Task
from raysearch.errors import RaysearchError

_log = logging.getLogger("raysearch.cluster")

POLL_SECONDS = 1.0
TICK_SECONDS = 0.2
REFRESH_SECONDS = 3.0
"""Time between two queries of the cluster's nodes. Most clouds give a preempted one 30 s."""
FETCH_SECONDS = 60.0
"""Time limit for fetching a result that is ready."""

__all__ = ["PoolShape", "RayPool"]


class RayPool:
    """Runs replicas as actors of the Ray that this process is connected to.

    `run`: prefix of the actors' names; `worker`: their class; `on_usage`: called with what each
    task used; `watch`: notices when that Ray dies.
    """

    def __init__(
        self,
        spec: ReplicaSpec,
        run: str,
        shape: PoolShape,
        on_usage: OnUsage = ignore_usage,
        worker: type[Worker] = Worker,
        watch: RayWatch | None = None,
    ) -> None:
        self._run = run
        self._watch = watch
        self._worker = worker
        self._shape = shape
        self._on_usage = on_usage
        self._spec_ref = ray.put(spec)
        self._slots = Slots(shape, time.monotonic())
        self._actors: dict[int, Any] = {}
        self._methods: dict[int, dict[str, Any]] = {}
        self._calls: dict[int, deque[Any]] = {}
        self._locations: dict[int, WorkerLocation] = {}
        self._opened: Opened | None = None
        self._events: list[Event] = []
        self._refreshed_at = self._ticked_at = self._received_at = -REFRESH_SECONDS

    def open(self) -> Opened:
        """Starts all replicas and returns when the first is ready; the others join later.

        Raises: ModelError or PairsError from the replica; ResourcesError if the cluster has no room
        for one in time.
        """
        while self._opened is None:
            self._collect()
        return self._opened

    @property
    def free(self) -> int:
        return self._slots.free

    @property
    def ready(self) -> tuple[str, ...]:
        """Names of the replicas that have loaded."""
        return tuple(slot.name for slot in self._slots.ready())

    @property
    def workers(self) -> list[tuple[str, int]]:
        """(name, process id) of each ready replica without a task; for tests that kill one."""
        return [
            (s.name, self._locations[s.number].pid) for s in self._slots.ready() if s.task is None
        ]

    def submit(self, task: Task, tensors: Mapping[str, bytes] = NO_TENSORS) -> None:
        number = self._slots.assign(task, time.monotonic())
        with self._guard():
            self._call(number, self._method(number, task.kind).remote(task, dict(tensors)))

    def wait(self) -> list[Event]:
        return self._collect()

    def on_lost(self, say: Callable[[], None]) -> None:
        """Registers `say`, called before this process is ended because a call to a dead Ray is
        stuck."""
        if self._watch is not None:
            self._watch.before_exit(say)

    def on_step(self, show: Callable[[int, int, float], None]) -> None:
        """Does nothing: a replica elsewhere says where it is when its task ends."""

    def close(self) -> None:
        """Kills all actors."""
        self._slots.close()
        for actor in self._actors.values():
            ray.kill(actor)
        self._actors.clear()
        self._calls.clear()

    def _collect(self) -> list[Event]:
        """Returns the events that came in, after a short wait at most. Raises: ClusterError when
        Ray is dead."""
        with self._guard():
            self._step()
        events, self._events = self._events, []
        return events

    def _step(self) -> None:
        if time.monotonic() - self._refreshed_at >= REFRESH_SECONDS:
            self._refresh_nodes()
        if time.monotonic() - self._ticked_at > TICK_SECONDS:
            self._ticked_at = time.monotonic()
            self._execute(self._slots.tick(self._ticked_at))
        if self._calls:
            self._receive()
        else:
            time.sleep(TICK_SECONDS)

    def _guard(self) -> AbstractContextManager[None]:
        return nullcontext() if self._watch is None else self._watch.guard()

    def _refresh_nodes(self) -> None:
        self._refreshed_at = time.monotonic()
        self._slots.update_nodes(nodes())

    def _receive(self) -> None:
        """Handles finished calls; waits for one at most POLL_SECONDS."""
        calls = {ref: number for number, refs in self._calls.items() for ref in refs}
        done, _ = ray.wait(list(calls), num_returns=1, timeout=POLL_SECONDS)
        if done:
            done, _ = ray.wait(list(calls), num_returns=len(calls), timeout=0)
        self._received_at = time.monotonic()
        returned = set(done)
        for number in dict.fromkeys(calls[ref] for ref in done):
            while (refs := self._calls.get(number)) and refs[
                0
            ] in returned:  # empty once the actor was stopped
                ref = refs.popleft()
                if not refs:
                    del self._calls[number]
                self._execute(self._on_call_done(number, ref))

    def _call(self, number: int, ref: Any) -> None:
        self._calls.setdefault(number, deque()).append(ref)

    def _on_call_done(self, number: int, ref: Any) -> Iterable[Instruction]:
        """Returns the instructions that follow from a finished call."""
        task = self._slots[number].task
        try:
            result = ray.get(ref, timeout=FETCH_SECONDS)
        except RayTaskError as e:
            if task is None and self._opened is None:
                raise _cause(e) from e
            if task is None:  # others could load it: this node is at fault
                return self._slots.on_died(
                    number, f"{type(_cause(e)).__name__}: {_cause(e)}", time.monotonic()
                )
            slot = self._slots[number]
            self._events.append(
                replace(build_failed(task, _cause(e), slot.name, slot.node), traceback=str(e))
            )
            return self._slots.on_answered(number, time.monotonic(), ())
        # the actor or its node died, cannot be reached, or its answer was lost or came too late
        except RayError as e:
            if self._refreshed_at < self._received_at:  # once for all that died together
                self._refresh_nodes()
            self._calls.pop(number, None)  # the calls queued behind it
            certain = not isinstance(e, (ActorUnavailableError, GetTimeoutError))
            return self._slots.on_died(number, _one_line(e), time.monotonic(), certain=certain)
        return self._on_result(number, task, result)

    def _on_result(self, number: int, task: Task | None, result: Any) -> Iterable[Instruction]:
        now = time.monotonic()
        if isinstance(result, WorkerLocation):
            self._locations[number] = result
            if not self._slots.is_known(result.node):  # a new node
                self._refresh_nodes()
            return (
                self._slots.on_placed(number, result.node, now)
                if task is None
                else self._slots.on_reconnected(number, now)
            )
        if isinstance(result, ReplicaReady):
            return self._on_ready(number, result, now)
        assert task is not None, number
        events, usage = result
        self._on_usage(self._slots[number].name, task, usage)
        check_answers(task, events)
        self._events += events
        return self._slots.on_answered(number, now, events)

    def _on_ready(self, number: int, ready: ReplicaReady, now: float) -> Iterable[Instruction]:
        """Handles a replica that has loaded."""
        name = self._slots[number].name
        if self._opened is None:
            self._opened = ready.opened
        self._on_usage(name, None, ready.usage)
        first, here = self._opened.facts, ready.opened.facts
        if here.path != first.path:
            _log.warning("%s takes the %s path, the first replica %s", name, here.path, first.path)
        if ready.warning:
            _log.warning("%s: it runs on the CPU", ready.warning)
        return self._slots.on_loaded(number, ready.digest, now)

    def _execute(self, instructions: Iterable[Instruction]) -> None:
        for it in instructions:
            match it:
                case StartReplica():
                    self._start(it)
                case LoadReplica(slot):
                    call = self._actors[slot].open.options(name=f"load {self._slots[slot].name}")
                    self._call(slot, call.remote(self._spec_ref))
                case ProbeReplica(slot):
                    self._call(slot, self._actors[slot].locate.remote())
                case StopReplica(slot):
                    self._calls.pop(slot, None)
                    self._methods.pop(slot, None)
                    ray.kill(self._actors.pop(slot))
                case Message(text):
                    _log.warning("%s", text)
                case Lost():
                    _log.info(
                        "task %s of %s is lost (%s): %s", it.task, it.worker, it.cause, it.message
                    )
                    self._events.append(it)
                case _:
                    assert_never(it)

    def _method(self, number: int, kind: str) -> Any:
        """Returns the actor's method for tasks of `kind`, which is their name on Ray's dashboard.

        Cached: building it costs 0.1 ms of a call's 1.0.
        """
        methods = self._methods.setdefault(number, {})
        if kind not in methods:
            methods[kind] = self._actors[number].do.options(name=kind)
        return methods[kind]

    def _start(self, start: StartReplica) -> None:
        shape = self._shape
        not_avoided = {"ray.io/node-id": f"!in({','.join(start.avoid)})"} if start.avoid else {}
        options = {
            "name": f"{self._run}:{start.name}",
            "num_cpus": shape.cpus,
            "num_gpus": shape.gpus,
            "resources": dict(shape.custom),
            "label_selector": {**shape.labels, **not_avoided},
            "max_restarts": 0,
            "max_task_retries": 0,
        }
        actor = ray.remote(self._worker).options(**options).remote(start.name, shape.or_cpu)
        self._actors[start.slot] = actor
        self._call(start.slot, actor.locate.options(name=f"place {start.name}").remote())


def _cause(error: RayTaskError) -> BaseException:
    """Returns the worker's own exception; its traceback stays in the chained RayTaskError."""
    cause = error.cause
    if isinstance(cause, RaysearchError):
        return cause
    return cause if isinstance(cause, BaseException) else error


def _one_line(error: BaseException) -> str:
    """Returns an error of Ray's in one line; the first says only that an actor died, the last says
    why."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines)[:400] if lines else type(error).__name__
