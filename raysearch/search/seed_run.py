"""The training run of one seed of one intervention, and groups of runs that train in one batch.

Invariants: the start of a run follows from the events of that run and of the larger rotation alone;
a group holds runs of similar interventions.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from raysearch.core.events import Fitted, Seed
from raysearch.core.fitted_interventions import size_of_rotation
from raysearch.core.hypothesis import Intervention
from raysearch.core.records import FitStatus


@dataclass(eq=False, slots=True)
class SeedRun:
    """The training run of a seed; `larger` is the run of the larger rotation within which it
    starts.
    """

    intervention: Intervention
    seed: int
    last: Fitted | None = None
    status: FitStatus | None = None
    failure: str | None = None
    failed_attempts: int = 0
    seen: dict[int, Fitted] = field(default_factory=dict)
    queued: set[int] = field(default_factory=set)
    larger: "SeedRun | None" = field(default=None, compare=False, repr=False)

    @property
    def key(self) -> str:
        return Seed(self.intervention, self.seed).key

    @property
    def size(self) -> int:
        return size_of_rotation(self.intervention)

    @property
    def ended(self) -> bool:
        return self.status is not None or self.failure is not None

    def had_ended(self, step: int) -> bool:
        """Says whether the run had ended at `step`: in a replay, later events may be known
        already."""
        return self.failure is not None or (self.status is not None and self.step <= step)

    @property
    def step(self) -> int:
        return 0 if self.last is None else self.last.last

    @property
    def may_start(self) -> bool:
        return self.larger is None or self.larger.ended

    @property
    def start(self) -> str | None:
        """Digest of the rotation within which the run starts; None if it starts at random."""
        larger = self.larger
        return (
            None
            if larger is None or larger.status is None or larger.last is None
            else larger.last.fit
        )

    def reset(self) -> None:
        """Forgets all progress, so that the run starts again."""
        self.last = self.status = self.failure = None
        self.failed_attempts, self.seen, self.queued = 0, {}, set()

    def seed_at(self, step: int) -> Seed:
        """Returns the seed with the state from which training continues at `step`."""
        if step == 0:
            return Seed(self.intervention, self.seed, start=self.start)
        before = next((e for e in self.seen.values() if e.last == step), None)
        return Seed(self.intervention, self.seed, None if before is None else before.state)

    @property
    def rank(self) -> tuple[float, float, int]:
        """Sort key, best first: validation IIA (higher is better), validation loss, seed."""
        assert self.last is not None
        iia, loss = self.last.validation_iia, self.last.validation_loss
        return (1.0 if iia is None else -iia, math.inf if loss is None else loss, self.seed)


@dataclass
class SeedGroup:
    """Runs that train together through one stretch of steps."""

    fits: list[SeedRun]
    steps: tuple[int, int]
    attempt: int = 0
    losses: int = 0


def batch_groups(fits: Sequence[SeedRun], size: int) -> list[list[SeedRun]]:
    """Splits runs into groups of `size`, with similar ones together.

    They share forward passes, most of all at one position, where rows have one length.
    """

    def sort_key(fit: SeedRun) -> tuple[object, ...]:
        site = fit.intervention.units[0].site
        return (
            fit.intervention.control or "",
            site.position,
            site.component,
            -1 if site.layer is None else site.layer,
            fit.intervention.id,
            fit.seed,
        )

    ordered = sorted(fits, key=sort_key)
    return [ordered[at : at + size] for at in range(0, len(ordered), size)]
