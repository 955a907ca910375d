"""Attribution: proposes, for each variable, the share of the space where an interchange has the
largest effect to first order.

Attribution patching (Nanda, 2023; Syed, Rager and Conmy, 2023): one backward pass through the
base's run tells of all sites at once about how much of the lead of the base's answer over the
counterfactual (in logits) an interchange there would move. It errs where the model is far from
linear between base and source: at embeddings, below a saturated softmax, where effects cancel
(Kramár, Lieberum, Shah and Nanda, 2024). What it ranks low is not asked about, and so missed for
certain; what is asked about is tested like all else.

Effects come from fit pairs alone, so the choice is independent of the test pairs: K is the number
that is *proposed*, not that of the space. Invariants: all that is proposed is of the space; how
many of each variable are follows from the job alone; variables are not compared with each other.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from raysearch.core.hypothesis import Hypothesis, Intervention, Unit
from raysearch.core.space import HypothesisSpace
from raysearch.proposers.base import Effects, History, Proposer, whole_vectors

PAIRS = 64
"""Fit pairs that effects are computed on, at most, where the job does not say how many."""


@dataclass(frozen=True)
class Attribution(Proposer):
    """`share`: of the hypotheses on each variable that are proposed, in (0, 1]; `pairs`: fit pairs
    that effects are computed on, at most.

    All subspaces at a site share its effect, that of the whole vector; a set of units has the sum
    of those of its places. Ties go by the order of the space; what cannot be interchanged on some
    pair comes last.
    """

    description = "of each variable the best share of the space, by gradients on fit pairs"
    tests_all = True
    estimates_interchanges = True
    space: HypothesisSpace
    share: float = 0.25
    pairs: int = PAIRS
    name: str = "attribution"

    def __post_init__(self) -> None:
        if (
            isinstance(self.share, bool)
            or not isinstance(self.share, int | float)
            or not 0 < self.share <= 1
        ):
            raise ValueError(
                f"share is {self.share!r}; it must be a share of the space above 0, to 1, such as "
                f"0.25"
            )
        if isinstance(self.pairs, bool) or not isinstance(self.pairs, int) or self.pairs < 1:
            raise ValueError(
                f"pairs is {self.pairs!r}; it must be a whole number of pairs from 1, such as "
                f"{PAIRS}"
            )

    @property
    def max_hypotheses(self) -> int:
        """The number of hypotheses proposed, whatever the effects are."""
        return sum(map(self._count, self.space.variables))

    @property
    def fit_pairs(self) -> int:
        return self.pairs

    @staticmethod
    def family_words(tested: int) -> str:
        return (
            f"over all K = {tested} hypotheses together that attribution chose on fit pairs; what "
            f"it left out was not tested"
        )

    def propose(self, known: History) -> Iterable[Hypothesis]:
        """Proposes in the order of the space, in which neighbours share the runs of a replica."""
        if known.generations:
            return
        space = list(self.space)
        chosen = (
            at
            for variable in self.space.variables
            for at in self._best(space, variable, known.effects[variable])
        )
        yield from (space[at] for at in sorted(chosen))

    def family(self, effects: Effects) -> Iterable[Hypothesis]:
        return self.propose(History(0, {}, effects))

    def _best(
        self, space: Sequence[Hypothesis], variable: str, effects: Mapping[Unit, float | None]
    ) -> list[int]:
        """Returns the best of the space's hypotheses on the variable."""
        scores = {
            at: _score(h.intervention, effects)
            for at, h in enumerate(space)
            if h.variable == variable
        }
        return sorted(scores, key=lambda at: (-scores[at], at))[: self._count(variable)]

    def _count(self, variable: str) -> int:
        return math.ceil(round(self.share * self.space.count(variable), 9))


def _score(intervention: Intervention, effects: Mapping[Unit, float | None]) -> float:
    known = [effects[unit] for unit in whole_vectors(intervention)]
    return (
        -math.inf if None in known else math.fsum(effect for effect in known if effect is not None)
    )
