"""Computes how long a task may take: a multiple of what similar tasks took so far.

Pure: callers pass the seconds.

Invariants: a deadline is at least a minute (a replica's first task is slow), and at most what the
job allows, whichever is less.
"""

import math

from raysearch.core.events import Task

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

    def record(self, task: Task, seconds: float, rows: int | None = None) -> None:
        """Records how long an answered task took; `rows`: that it ran, if a lease left some out."""
        per_unit = seconds / (rows or weight(task))
        old = self._seconds.get(task.kind, per_unit)
        self._seconds[task.kind] = old + _SMOOTHING * (per_unit - old)

    def expected(self, task: Task) -> float:
        """Returns the expected seconds for `task`; infinite until one of its kind was answered."""
        return self._seconds.get(task.kind, math.inf) * weight(task)

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
