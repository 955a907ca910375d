"""How long a task may take: many times what tasks of its kind and size took so far. Pure: seconds
are given.

Invariants: never under a minute (the first task of a replica warms it up) nor over what the job
allows, whichever is less.
"""

import math

from raysearch.core.events import Task

TIMES = 20.0
"""A replica that takes so many times longer than the others hangs."""
LEAST_SECONDS = 60.0
_SHARE = 0.1
"""Of the newest task in the running estimate."""


class Deadlines:
    """The running estimate of seconds for each unit of work, by kind of task."""

    def __init__(self, most_seconds: float) -> None:
        self._most = most_seconds
        self._seconds: dict[str, float] = {}

    def took(self, task: Task, seconds: float) -> None:
        """Takes note of a task that was answered."""
        each = seconds / weight(task)
        old = self._seconds.get(task.kind, each)
        self._seconds[task.kind] = old + _SHARE * (each - old)

    def expected(self, task: Task) -> float:
        """Seconds that `task` will take; infinite before any of its kind was answered."""
        return self._seconds.get(task.kind, math.inf) * weight(task)

    def deadline(self, task: Task) -> float:
        """Seconds that `task` may take; twice as many for each attempt before, in case it was the
        estimate that was wrong."""
        return min(max(TIMES * self.expected(task) * 2.0**task.attempt, LEAST_SECONDS), self._most)


def weight(task: Task) -> int:
    """The size of a task in its own unit: rows of a forward pass, or seeds x training steps."""
    if task.kind == "fit":
        return max(1, len(task.seeds) * (task.steps[1] - task.steps[0]))
    return max(1, task.rows)
