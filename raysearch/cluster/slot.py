"""The place of one worker, and its states."""

from dataclasses import dataclass
from typing import Literal

from raysearch.core.events import Task

SlotState = Literal[
    "out", "resting", "pending", "placed", "loading", "idle", "busy", "doubtful", "probed"
]
READY: frozenset[SlotState] = frozenset({"idle", "busy", "doubtful", "probed"})
STARTING: frozenset[SlotState] = frozenset({"pending", "placed", "loading"})


@dataclass(slots=True)
class Slot:
    """The place of one worker.

    `starts`: index of its current actor, -1 before the first; `since`: when its state or task
    began; `until`: when it ends; `failures`: deaths since its last answer; `prefetched`: the task
    after `task`.
    """

    number: int
    state: SlotState = "out"
    starts: int = -1
    node: str = ""
    task: Task | None = None
    prefetched: Task | None = None
    since: float = 0.0
    until: float = 0.0
    failures: int = 0

    @property
    def name(self) -> str:
        return f"replica-{self.number}" + (f".{self.starts}" if self.starts > 0 else "")
