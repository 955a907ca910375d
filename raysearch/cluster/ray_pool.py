"""A pool of Ray actors, one replica each: raw named actors, our own wait loop. What to do is
decided in slots.py; this is what Ray is told.

Invariants: an actor runs one call at a time, in the order in which it was called, and is never
restarted by Ray (max_restarts=0, max_task_retries=0): what is lost is told as Lost, and the search
decides; of an actor that was ended nothing more is heard, so a late answer is no answer.
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

from raysearch.cluster.nodes import nodes
from raysearch.cluster.ray_watch import RayWatch
from raysearch.cluster.replica_spec import (
    NOTHING,
    OnUsage,
    ReplicaSpec,
    check_answers,
    failed_whole,
    unheard,
)
from raysearch.cluster.shape import PoolShape
from raysearch.cluster.slots import (
    Instruction,
    LoadReplica,
    Message,
    ProbeReplica,
    Slots,
    StartReplica,
    StopReplica,
)
from raysearch.cluster.worker import ReplicaReady, Worker, WorkerLocation
from raysearch.core.events import Event, Lost, Opened, Task
from raysearch.errors import RaysearchError

_log = logging.getLogger("raysearch.cluster")

POLL_SECONDS = 1.0
TICK_SECONDS = 0.2
NODES_SECONDS = 3.0
"""Between two looks at the nodes of the cluster. A preempted one has 30 s on most clouds."""
FETCH_SECONDS = 60.0
"""In which an answer that is there must have come."""

__all__ = ["PoolShape", "RayPool"]


class RayPool:
    """Replicas as actors of the Ray that this process is connected to. `run` prefixes the actors'
    names.

    `worker`: the class of the actors; `on_usage` hears what each task took; `vigil`: watches
    whether that Ray lives.
    """

    def __init__(
        self,
        work: ReplicaSpec,
        run: str,
        shape: PoolShape,
        on_usage: OnUsage = unheard,
        worker: type[Worker] = Worker,
        vigil: RayWatch | None = None,
    ) -> None:
        self._run = run
        self._vigil = vigil
        self._worker = worker
        self._shape = shape
        self._on_usage = on_usage
        self._work_ref = ray.put(work)
        self._slots = Slots(shape, time.monotonic())
        self._actors: dict[int, Any] = {}
        self._methods: dict[int, dict[str, Any]] = {}
        self._calls: dict[int, deque[Any]] = {}
        self._places: dict[int, WorkerLocation] = {}
        self._opened: Opened | None = None
        self._events: list[Event] = []
        self._looked_at = self._ticked_at = self._heard_at = -NODES_SECONDS

    def open(self) -> Opened:
        """Starts all replicas and returns when the first is ready; the others join when they are.

        Raises: ModelError, PairsError from the replica; ResourcesError if the cluster has no room
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
        """The replicas that have loaded and are there, by name."""
        return tuple(slot.name for slot in self._slots.ready())

    @property
    def workers(self) -> list[tuple[str, int]]:
        """(name, process id) of each replica that is ready and has no task; for tests that kill
        one."""
        return [(s.name, self._places[s.number].pid) for s in self._slots.ready() if s.task is None]

    def submit(self, task: Task, tensors: Mapping[str, bytes] = NOTHING) -> None:
        number = self._slots.given(task, time.monotonic())
        with self._asking():
            self._call(number, self._named(number, task.kind).remote(task, dict(tensors)))

    def wait(self) -> list[Event]:
        return self._collect()

    def on_lost(self, say: Callable[[], None]) -> None:
        """`say` is called before this process is ended because Ray died in the middle of a call
        that does not come back."""
        if self._vigil is not None:
            self._vigil.last_words(say)

    def close(self) -> None:
        """Ends all actors."""
        self._slots.close()
        for actor in self._actors.values():
            ray.kill(actor)
        self._actors.clear()
        self._calls.clear()

    def _collect(self) -> list[Event]:
        """Whatever has come in, after at most a moment. Raises: ClusterError where Ray is dead."""
        with self._asking():
            self._turn()
        events, self._events = self._events, []
        return events

    def _turn(self) -> None:
        if time.monotonic() - self._looked_at >= NODES_SECONDS:
            self._look()
        if time.monotonic() - self._ticked_at > TICK_SECONDS:
            self._ticked_at = time.monotonic()
            self._do(self._slots.tick(self._ticked_at))
        if self._calls:
            self._hear()
        else:
            time.sleep(TICK_SECONDS)

    def _asking(self) -> AbstractContextManager[None]:
        return nullcontext() if self._vigil is None else self._vigil.asking()

    def _look(self) -> None:
        self._looked_at = time.monotonic()
        self._slots.nodes(nodes())

    def _hear(self) -> None:
        """Calls that came back; waits for one, but not longer than until there may be something
        else to do."""
        calls = {ref: number for number, refs in self._calls.items() for ref in refs}
        done, _ = ray.wait(list(calls), num_returns=1, timeout=POLL_SECONDS)
        if done:
            done, _ = ray.wait(list(calls), num_returns=len(calls), timeout=0)
        self._heard_at = time.monotonic()
        back = set(done)
        for number in dict.fromkeys(calls[ref] for ref in done):
            while (refs := self._calls.get(number)) and refs[
                0
            ] in back:  # none: of an actor that was ended a moment ago
                ref = refs.popleft()
                if not refs:
                    del self._calls[number]
                self._do(self._finished(number, ref))

    def _call(self, number: int, ref: Any) -> None:
        self._calls.setdefault(number, deque()).append(ref)

    def _finished(self, number: int, ref: Any) -> Iterable[Instruction]:
        """What a call of a slot's actor has come to."""
        task = self._slots[number].task
        try:
            result = ray.get(ref, timeout=FETCH_SECONDS)
        except RayTaskError as e:
            if task is None and self._opened is None:
                raise _cause(e) from e
            if task is None:  # others could load it: something of this node's
                return self._slots.died(
                    number, f"{type(_cause(e)).__name__}: {_cause(e)}", time.monotonic()
                )
            slot = self._slots[number]
            self._events.append(
                replace(failed_whole(task, _cause(e), slot.name, slot.node), traceback=str(e))
            )
            return self._slots.answered(number, time.monotonic(), whole=False)
        except RayError as e:  # the actor died, its node did, it is out of reach, its answer was lost or did not come in time
            if self._looked_at < self._heard_at:  # once for all that died together
                self._look()
            self._calls.pop(number, None)  # those behind it
            certain = not isinstance(e, (ActorUnavailableError, GetTimeoutError))
            return self._slots.died(number, _one_line(e), time.monotonic(), certain=certain)
        return self._answered(number, task, result)

    def _answered(self, number: int, task: Task | None, result: Any) -> Iterable[Instruction]:
        now = time.monotonic()
        if isinstance(result, WorkerLocation):
            self._places[number] = result
            if not self._slots.knows(result.node):  # a new one
                self._look()
            return (
                self._slots.placed(number, result.node, now)
                if task is None
                else self._slots.there(number, now)
            )
        if isinstance(result, ReplicaReady):
            return self._joined(number, result, now)
        assert task is not None, number
        events, usage = result
        self._on_usage(self._slots[number].name, task, usage)
        check_answers(task, events)
        self._events += events
        return self._slots.answered(number, now)

    def _joined(self, number: int, ready: ReplicaReady, now: float) -> Iterable[Instruction]:
        """A replica has loaded."""
        name = self._slots[number].name
        if self._opened is None:
            self._opened = ready.opened
        self._on_usage(name, None, ready.usage)
        first, here = self._opened.facts, ready.opened.facts
        if here.path != first.path:
            _log.warning("%s takes the %s path, the first replica %s", name, here.path, first.path)
        if ready.said:
            _log.warning("%s: it runs on the CPU", ready.said)
        return self._slots.loaded(number, ready.digest, now)

    def _do(self, instructions: Iterable[Instruction]) -> None:
        for it in instructions:
            match it:
                case StartReplica():
                    self._start(it)
                case LoadReplica(slot):
                    call = self._actors[slot].open.options(name=f"load {self._slots[slot].name}")
                    self._call(slot, call.remote(self._work_ref))
                case ProbeReplica(slot):
                    self._call(slot, self._actors[slot].place.remote())
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

    def _named(self, number: int, kind: str) -> Any:
        """The call of a task, by the name of its kind, under which Ray's dashboard sums them up.
        Made once: 0.1 ms of a call's 1.0."""
        methods = self._methods.setdefault(number, {})
        if kind not in methods:
            methods[kind] = self._actors[number].do.options(name=kind)
        return methods[kind]

    def _start(self, start: StartReplica) -> None:
        shape = self._shape
        elsewhere = {"ray.io/node-id": f"!in({','.join(start.avoid)})"} if start.avoid else {}
        options = {
            "name": f"{self._run}:{start.name}",
            "num_cpus": shape.cpus,
            "num_gpus": shape.gpus,
            "resources": dict(shape.custom),
            "label_selector": {**shape.labels, **elsewhere},
            "max_restarts": 0,
            "max_task_retries": 0,
        }
        actor = ray.remote(self._worker).options(**options).remote(start.name, shape.or_cpu)
        self._actors[start.slot] = actor
        self._call(start.slot, actor.place.options(name=f"place {start.name}").remote())


def _cause(error: RayTaskError) -> BaseException:
    """What the worker raised; its own traceback stays in the text of the RayTaskError, which is
    chained."""
    cause = error.cause
    if isinstance(cause, RaysearchError):
        return cause
    return cause if isinstance(cause, BaseException) else error


def _one_line(error: BaseException) -> str:
    """What an error of Ray's says: its last line has the cause, where the first says no more than
    that an actor died."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines)[:400] if lines else type(error).__name__
