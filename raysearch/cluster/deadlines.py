"""Computes how long a task may take: a multiple of what similar tasks took so far.

Pure: callers pass the seconds.

Invariants: a deadline is at least a minute (a replica's first task is slow), and at most what the
job allows, whichever is less; a lease is expected to take its time and one more step at most.
"""

import math
from collections.abc import Sequence

from raysearch.core.events import Event, Measured, Task

HANG_FACTOR = 20.0
"""A replica that takes this many times longer than expected counts as hanging."""
MIN_SECONDS = 60.0
_SMOOTHING = 0.1
"""Weight of the newest task in the moving average."""


class Deadlines:
    """Keeps a moving average of the seconds for each unit of work, by kind of task."""

    def __init__(self, max_seconds: float) -> None:
        self._max_seconds = max_seconds
        self._seconds: dict[str, float] = {}

    def record(self, task: Task, seconds: float, events: Sequence[Event]) -> None:
        """Records how long a task took that was answered by `events`."""
        per_unit = seconds / _done(task, events)
        old = self._seconds.get(task.kind, per_unit)
        self._seconds[task.kind] = old + _SMOOTHING * (per_unit - old)

    def expected(self, task: Task) -> float:
        """Returns the expected seconds for `task`, if no intervention stops early; infinite until
        one of its kind was answered."""
        per_unit = self._seconds.get(task.kind, math.inf)
        whole = per_unit * weight(task)
        if task.lease is None:
            return whole
        return min(whole, task.lease.seconds + per_unit * task.lease.step)

    def deadline(self, task: Task) -> float:
        """Returns the seconds that `task` may take; doubles with each attempt, as the estimate may
        be low."""
        return min(
            max(HANG_FACTOR * self.expected(task) * 2.0**task.attempt, MIN_SECONDS),
            self._max_seconds,
        )


def weight(task: Task) -> int:
    """Returns the size of a task: rows of a forward pass, or seeds x training steps."""
    if task.kind == "fit":
        return max(1, len(task.seeds) * (task.steps[1] - task.steps[0]))
    return max(1, task.rows)


def _done(task: Task, events: Sequence[Event]) -> int:
    """Returns how much of a task was done, in the units of `weight`: a lease may leave blocks
    out."""
    if task.lease is None:
        return weight(task)
    return sum(len(e.pairs) for e in events if isinstance(e, Measured)) or weight(task)
