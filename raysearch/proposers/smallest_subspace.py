"""Smallest subspace: of subspaces that come in sizes, the smallest that is accepted, by halving the
sizes that are left.

The largest of each kind at each site comes first; where it is not accepted, no smaller one is asked
about. This takes for granted that what a size carries a larger one of its kind carries too; where
training fails at a larger size only, it can be wrong. What has no size comes with the first.

Invariants: all that is proposed is of the space; each generation is a function of the verdicts of
those before.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from raysearch.core.hypothesis import Hypothesis
from raysearch.core.space import HypothesisSpace
from raysearch.proposers.base import History, WithinSpace

Size = list[Hypothesis]
"""The hypotheses of one size that come together: of all variables, or of one where something is
fit."""


@dataclass(frozen=True)
class SmallestSubspace(WithinSpace):
    """The smallest size of each kind of subspace, at each site."""

    description = "of subspaces that come in sizes the smallest that is accepted"
    space: HypothesisSpace
    name: str = "smallest_subspace"

    def propose(self, known: History) -> Iterable[Hypothesis]:
        for sizes in self._families():
            at = self._next(sizes, known)
            if at is not None:
                yield from sizes[at]

    def _families(self) -> list[list[Size]]:
        """Groups hypotheses that differ in their size alone, smallest first; one without a size is
        a family of its own."""
        families: dict[object, dict[int, Size]] = {}
        for hypothesis in self.space:
            intervention = hypothesis.intervention
            units = tuple(
                replace(u, subspace=replace(u.subspace, features=None)) for u in intervention.units
            )
            sized = (
                len(intervention.units) == 1 and intervention.units[0].subspace.features is not None
            )
            family = (units, intervention.variable, sized)
            size = intervention.units[0].subspace.features or 0
            families.setdefault(family, {}).setdefault(size, []).append(hypothesis)
        return [[by_size[size] for size in sorted(by_size)] for by_size in families.values()]

    def _next(self, sizes: list[Size], known: History) -> int | None:
        """Returns the size to test next; None if the smallest is known."""
        verdicts = [[known.decided.get(h.id) for h in size] for size in sizes]
        if any(d is None for d in verdicts[-1]):
            return len(sizes) - 1
        missing: list[int] = []
        for variable in range(len(sizes[0])):
            accepted = [
                i
                for i, d in enumerate(verdicts)
                if (v := d[variable]) is not None and v.verdict == "accept"
            ]
            refused = [
                i
                for i, d in enumerate(verdicts)
                if (v := d[variable]) is not None and v.verdict != "accept"
            ]
            smallest = min(accepted, default=-1)
            below = max((i for i in refused if i < smallest), default=-1)
            if smallest - below > 1:
                missing.append((below + smallest) // 2)
        return max(missing, default=None)
