"""Exports a search's progress as Ray metrics, at the metrics port of the driver's node.

The driver emits everything: the counters of a killed worker would vanish with it.

Invariants: a metric is registered once per process; nothing is emitted more often than every
`EMIT_SECONDS`, and no count is dropped; a search never waits for a scraper.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Protocol, assert_never

from ray.util import metrics as ray_metrics

from raysearch.cluster import metric_definitions as definitions
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
from raysearch.driver import Pool
from raysearch.engine.execution.usage import Memory, Usage

EMIT_SECONDS = 1.0
"""Least seconds between two emissions. Ray itself reports every ten."""

_Tags = tuple[tuple[str, str], ...]


class Metrics:
    """Counts events and usage, and emits them when `show` is called."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._emitted_at = -EMIT_SECONDS
        self._counted: defaultdict[tuple[Metric, _Tags], float] = defaultdict(float)
        self._observed: list[tuple[Metric, _Tags, float]] = []
        self._memory: dict[str, Memory] = {}
        self._last: tuple[str, Snapshot] | None = None

    def usage(self, worker: str, task: Task | None, usage: Usage) -> None:
        """Counts what `worker` used for a task, or for loading when `task` is None."""
        self._memory[worker] = usage.memory
        self._count(definitions.TOKENS, usage.tokens)
        self._count(definitions.FAILED_ROWS, usage.failed_rows)
        for phase, seconds in usage.phases.items():
            self._count(definitions.PHASE_SECONDS, seconds, phase=phase)
        if task is not None:
            self._observed.append((definitions.TASK_SECONDS, (("kind", task.kind),), usage.seconds))

    def events(self, events: Sequence[Event]) -> None:
        """Counts what these events report."""
        for event in events:
            match event:
                case Measured():
                    self._count(definitions.PAIRS, len(event.pairs))
                case Lost():
                    self._count(definitions.LOSSES, 1, cause=event.cause)
                case Failed():
                    self._count(
                        definitions.FAILURES,
                        1,
                        of="task" if event.intervention is None else "intervention",
                    )
                case Screened() | Attributed() | Fitted():
                    pass  # `usage` counts their time
                case _:
                    assert_never(event)

    def show(self, run: str, snapshot: Snapshot, ready: Sequence[str]) -> None:
        """Emits the progress of `run` and all counts, if EMIT_SECONDS have passed. `ready`:
        replicas' names."""
        self._last = run, snapshot
        now = self._clock()
        if now - self._emitted_at >= EMIT_SECONDS:
            self._emitted_at = now
            self._emit(run, snapshot, ready, snapshot.queued, snapshot.out)

    def close(self) -> None:
        """Emits the remaining counts, with no replica ready and no task out."""
        if self._last is not None:
            self._emit(*self._last, ready=(), queued=0, out=0)

    def _count(self, metric: Metric, amount: float, **tags: str) -> None:
        self._counted[metric, tuple(tags.items())] += amount

    def _emit(
        self, run: str, snapshot: Snapshot, ready: Sequence[str], queued: int, out: int
    ) -> None:
        self._memory = {
            worker: memory for worker, memory in self._memory.items() if worker in ready
        }
        for metric, tags, value in self._gauges(snapshot, ready, queued, out):
            _registered(metric).set(value, {RUN: run, **tags})
        for (metric, of), amount in self._counted.items():
            if amount > 0:  # Ray accepts no other
                _registered(metric).inc(amount, {RUN: run, **dict(of)})
        for metric, of, value in self._observed:
            _registered(metric).observe(value, {RUN: run, **dict(of)})
        self._counted.clear()
        self._observed.clear()

    def _gauges(
        self, snapshot: Snapshot, ready: Sequence[str], queued: int, out: int
    ) -> list[tuple[Metric, Mapping[str, str], float]]:
        states = definitions.HYPOTHESES.tags["state"]
        memory = self._memory.values()
        return [
            *(
                (definitions.HYPOTHESES, {"state": state}, getattr(snapshot, state))
                for state in states
            ),
            (definitions.QUEUE, {"state": "ready"}, queued),
            (definitions.QUEUE, {"state": "out"}, out),
            (definitions.REPLICAS, {}, len(ready)),
            (
                definitions.REPLICA_MEMORY,
                {"of": "process"},
                max((m.process for m in memory), default=0),
            ),
            (definitions.REPLICA_MEMORY, {"of": "gpu"}, max((m.gpu for m in memory), default=0)),
            (definitions.MEMORY_SHARE, {"of": "host"}, max((m.host for m in memory), default=0.0)),
            (definitions.MEMORY_SHARE, {"of": "gpu"}, max((m.device for m in memory), default=0.0)),
        ]


class _Replicas(Pool, Protocol):
    """A pool that lists its ready replicas."""

    @property
    def ready(self) -> tuple[str, ...]: ...

    def open(self) -> Opened: ...

    def on_lost(self, say: Callable[[], None]) -> None: ...

    def on_step(self, show: Callable[[int, int, float], None]) -> None: ...

    def close(self) -> None: ...


class MeteredPool:
    """Wraps a pool and counts its events with `metrics`."""

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

    def on_step(self, show: Callable[[int, int, float], None]) -> None:
        self._pool.on_step(show)

    def show(self, run: str, snapshot: Snapshot) -> None:
        """Shows the progress of `run`."""
        self._metrics.show(run, snapshot, self._pool.ready)

    def close(self) -> None:
        self._pool.close()
        self._metrics.close()


@cache
def _registered(metric: Metric) -> Any:
    """Returns Ray's gauge, counter or histogram of a metric."""
    words, tags = f"{metric.unit}: {metric.description}", (RUN, *metric.tags)
    if metric.kind == "histogram":
        return ray_metrics.Histogram(metric.name, words, list(metric.boundaries), tags)
    kind = ray_metrics.Gauge if metric.kind == "gauge" else ray_metrics.Counter
    return kind(metric.name, words, tags)
