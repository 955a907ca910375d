"""A fit on its way: one seed of one intervention, how far it has come, and those that train
together.

Invariants: what it begins from follows from what was told of it alone; companies are of those that
are alike.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from raysearch.core.events import Fitted, Seed
from raysearch.core.hypothesis import Intervention
from raysearch.core.records import FitStatus
from raysearch.core.rotations import size_of_rotation


@dataclass(eq=False, slots=True)
class SeedRun:
    """A seed on its way. `larger`: the rotation within which it begins, once that has ended."""

    intervention: Intervention
    seed: int
    last: Fitted | None = None
    status: FitStatus | None = None
    failure: str | None = None
    strikes: int = 0
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
        """Whether it had at `step`: a replay may know already what came after."""
        return self.failure is not None or (self.status is not None and self.step <= step)

    @property
    def step(self) -> int:
        return 0 if self.last is None else self.last.last

    @property
    def may_start(self) -> bool:
        return self.larger is None or self.larger.ended

    @property
    def start(self) -> str | None:
        """The digest of what it begins within; None where it begins at random."""
        larger = self.larger
        return (
            None
            if larger is None or larger.status is None or larger.last is None
            else larger.last.fit
        )

    def begin_anew(self) -> None:
        """As if it had never begun."""
        self.last = self.status = self.failure = None
        self.strikes, self.seen, self.queued = 0, {}, set()

    def seed_at(self, step: int) -> Seed:
        """As it is to be taken on from `step`."""
        if step == 0:
            return Seed(self.intervention, self.seed, start=self.start)
        before = next((e for e in self.seen.values() if e.last == step), None)
        return Seed(self.intervention, self.seed, None if before is None else before.state)

    @property
    def merit(self) -> tuple[float, float, int]:
        """The lower the better: validation IIA first, then its loss, then the seed."""
        assert self.last is not None
        iia, loss = self.last.validation_iia, self.last.validation_loss
        return (1.0 if iia is None else -iia, math.inf if loss is None else loss, self.seed)


@dataclass
class SeedGroup:
    """Fits that train together through one stretch."""

    fits: list[SeedRun]
    steps: tuple[int, int]
    attempt: int = 0
    losses: int = 0


def batch_groups(fits: Sequence[SeedRun], size: int) -> list[list[SeedRun]]:
    """Groups of `size`: alike ones together, for they share what is run (position first: rows of
    one length)."""

    def place(fit: SeedRun) -> tuple[object, ...]:
        site = fit.intervention.units[0].site
        return (
            fit.intervention.control or "",
            site.position,
            site.component,
            -1 if site.layer is None else site.layer,
            fit.intervention.id,
            fit.seed,
        )

    ordered = sorted(fits, key=place)
    return [ordered[at : at + size] for at in range(0, len(ordered), size)]
