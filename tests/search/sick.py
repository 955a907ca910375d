"""Workers that are well but for some interventions, for tests of failures that are tried again."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from raysearch.core.events import Event, Fitted, Measured, Task
from tests.search.worlds import Cluster, World, lost, raising


@dataclass
class Sick(Cluster):
    """Workers that raise, or go away with it, on some interventions: each from a block of its own
    on, and in training: from its first step where that is the first block, else from the second
    stretch.

    `shaky`: the share of all that is read on the holdout at which they do so too.
    """

    sick: Mapping[str, int] = field(default_factory=dict)
    dies: bool = False
    shaky: float = 0.0

    def _answer(self, task: Task, rng: random.Random, late: list[Event]) -> list[Event]:
        bad = [key for key in task.keys if self._begins(key, task) is not None]
        if not bad:
            return super()._answer(task, rng, late)
        if self.dies:
            return [lost(task, "worker", "killed")]
        answers = self.world.run(task)
        well = [
            e
            for e in answers
            if not (isinstance(e, Measured | Fitted) and self._is_hit(e, bad, task))
        ]
        return well + [raising(task, key, self._begins(key, task)) for key in bad]

    def _begins(self, key: str, task: Task) -> int | None:
        """The block of the task at which it fails, if it does."""
        if (
            task.kind == "estimate"
            and random.Random(f"{self.world.seed}.shaky.{key}").random() < self.shaky
        ):
            return task.blocks[0].index
        start = self.sick.get(key.partition("@")[0].partition("#")[0])
        if start is None:
            return None
        if task.kind == "fit":
            return 0 if task.steps[0] or not start else None
        return next((b.index for b in task.blocks if b.index >= start), None)

    def _is_hit(self, event: Measured | Fitted, bad: Sequence[str], task: Task) -> bool:
        if isinstance(event, Fitted):
            return event.key in bad
        begins = self._begins(event.intervention, task) if event.intervention in bad else None
        return begins is not None and event.block >= begins


def sick_of(world: World, rng: random.Random) -> dict[str, int]:
    """A third of the interventions, each from one of the first blocks on."""
    every = sorted({h.intervention.id for h in world.space})
    return {name: rng.randrange(4) for name in rng.sample(every, len(every) // 3)}
