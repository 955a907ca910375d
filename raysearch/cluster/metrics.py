"""A search as metrics of Ray: what its pool sees, counted and shown at the metrics port of the
driver's node.

Everything is emitted by the driver: the counters of a worker that is killed would vanish with it.
Invariants: a figure is registered once in a process; nothing is emitted more often than every
`EVERY` seconds, and nothing that was counted is left out; a search does not wait for anybody who
looks.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Protocol, assert_never

from ray.util import metrics as ray_metrics

from raysearch.cluster import metric_definitions as figures
from raysearch.cluster.metric_definitions import RUN, Metric
from raysearch.core.events import (
    Attributed,
    Event,
    Failed,
    Fitted,
    Lost,
    Measured,
    Opened,
    Screened,
    Task,
)
from raysearch.core.records import Snapshot
from raysearch.engine.execution.usage import Memory, Usage

EVERY = 1.0
"""Seconds. Ray reports every ten."""

_Tags = tuple[tuple[str, str], ...]


class Metrics:
    """Counts what happens, and emits it when it is shown where the search stands (`show`)."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._emitted_at = -EVERY
        self._counted: defaultdict[tuple[Metric, _Tags], float] = defaultdict(float)
        self._observed: list[tuple[Metric, _Tags, float]] = []
        self._memory: dict[str, Memory] = {}
        self._last: tuple[str, Snapshot] | None = None

    def usage(self, worker: str, task: Task | None, usage: Usage) -> None:
        """Counts what `worker` has used for a task, or until it was ready."""
        self._memory[worker] = usage.memory
        self._count(figures.TOKENS, usage.tokens)
        for phase, seconds in usage.phases.items():
            self._count(figures.PHASE_SECONDS, seconds, phase=phase)
        if task is not None:
            self._observed.append((figures.TASK_SECONDS, (("kind", task.kind),), usage.seconds))

    def events(self, events: Sequence[Event]) -> None:
        """Counts what has come in."""
        for event in events:
            match event:
                case Measured():
                    self._count(figures.PAIRS, len(event.pairs))
                case Lost():
                    self._count(figures.LOSSES, 1, cause=event.cause)
                case Failed():
                    self._count(
                        figures.FAILURES,
                        1,
                        of="task" if event.intervention is None else "intervention",
                    )
                case Screened() | Attributed() | Fitted():
                    pass  # how long they took, `usage` knows
                case _:
                    assert_never(event)

    def show(self, run: str, snapshot: Snapshot, ready: Sequence[str]) -> None:
        """Emits where the search `run` stands, and what was counted, if that is due. `ready`: the
        replicas, by name."""
        self._last = run, snapshot
        now = self._clock()
        if now - self._emitted_at >= EVERY:
            self._emitted_at = now
            self._emit(run, snapshot, ready, snapshot.queued, snapshot.out)

    def close(self) -> None:
        """Emits the rest; nothing is ready or out any more."""
        if self._last is not None:
            self._emit(*self._last, ready=(), queued=0, out=0)

    def _count(self, figure: Metric, amount: float, **tags: str) -> None:
        self._counted[figure, tuple(tags.items())] += amount

    def _emit(
        self, run: str, snapshot: Snapshot, ready: Sequence[str], queued: int, out: int
    ) -> None:
        self._memory = {
            worker: memory for worker, memory in self._memory.items() if worker in ready
        }
        for figure, tags, value in self._gauges(snapshot, ready, queued, out):
            _gauge(figure).set(value, {RUN: run, **tags})
        for (figure, of), amount in self._counted.items():
            if amount > 0:  # Ray takes no other
                _counter(figure).inc(amount, {RUN: run, **dict(of)})
        for figure, of, value in self._observed:
            _histogram(figure).observe(value, {RUN: run, **dict(of)})
        self._counted.clear()
        self._observed.clear()

    def _gauges(
        self, snapshot: Snapshot, ready: Sequence[str], queued: int, out: int
    ) -> list[tuple[Metric, Mapping[str, str], float]]:
        states = figures.HYPOTHESES.tags["state"]
        memory = self._memory.values()
        return [
            *((figures.HYPOTHESES, {"state": state}, getattr(snapshot, state)) for state in states),
            (figures.QUEUE, {"state": "ready"}, queued),
            (figures.QUEUE, {"state": "out"}, out),
            (figures.REPLICAS, {}, len(ready)),
            (
                figures.REPLICA_MEMORY,
                {"of": "process"},
                max((m.process for m in memory), default=0),
            ),
            (figures.REPLICA_MEMORY, {"of": "gpu"}, max((m.gpu for m in memory), default=0)),
            (figures.MEMORY_SHARE, {"of": "host"}, max((m.host for m in memory), default=0.0)),
            (figures.MEMORY_SHARE, {"of": "gpu"}, max((m.device for m in memory), default=0.0)),
        ]


class _Replicas(Protocol):
    """A pool that says which replicas are ready."""

    @property
    def ready(self) -> tuple[str, ...]: ...

    @property
    def free(self) -> int: ...

    def open(self) -> Opened: ...

    def submit(self, task: Task, tensors: Mapping[str, bytes]) -> None: ...

    def wait(self) -> list[Event]: ...

    def on_lost(self, say: Callable[[], None]) -> None: ...

    def close(self) -> None: ...


class Watched:
    """A pool whose traffic is counted by `metrics`."""

    def __init__(self, pool: _Replicas, metrics: Metrics) -> None:
        self._pool = pool
        self._metrics = metrics

    @property
    def free(self) -> int:
        return self._pool.free

    def open(self) -> Opened:
        return self._pool.open()

    def submit(self, task: Task, tensors: Mapping[str, bytes]) -> None:
        self._pool.submit(task, tensors)

    def wait(self) -> list[Event]:
        events = self._pool.wait()
        self._metrics.events(events)
        return events

    def on_lost(self, say: Callable[[], None]) -> None:
        self._pool.on_lost(say)

    def show(self, run: str, snapshot: Snapshot) -> None:
        """Shows where the search `run` stands."""
        self._metrics.show(run, snapshot, self._pool.ready)

    def close(self) -> None:
        self._pool.close()
        self._metrics.close()


@cache
def _gauge(figure: Metric) -> ray_metrics.Gauge:
    return ray_metrics.Gauge(figure.name, _said(figure), (RUN, *figure.tags))


@cache
def _counter(figure: Metric) -> ray_metrics.Counter:
    return ray_metrics.Counter(figure.name, _said(figure), (RUN, *figure.tags))


@cache
def _histogram(figure: Metric) -> ray_metrics.Histogram:
    return ray_metrics.Histogram(
        figure.name, _said(figure), list(figure.boundaries), (RUN, *figure.tags)
    )


def _said(figure: Metric) -> str:
    return f"{figure.unit}: {figure.description}"
