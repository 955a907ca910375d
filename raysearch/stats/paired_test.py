"""The paired test: which of two hypotheses, policies, models or runs scores higher on the same
pairs, valid at every look.

For scores x and y in [0, 1] of one pair, d = x - y is in [-1, 1], and (1 + d) / 2 is a score in
[0, 1] whose mean is above 1/2 exactly if the first is higher on average. So the test is the betting
test (`betting_test.py`) of that score at 1/2, and the wealth of a bettor on the first is

    E_n = integral over b of  prod_t (1 + b d_t)

for independent draws. Pairs on which both score alike (d = 0) change nothing.

Invariants: pure; exchanging the two exchanges the answers; it decides where its interval leaves out
0 (exactly for independent draws, to 2e-5 for fixed pairs).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from raysearch.stats.betting_test import BettingTest
from raysearch.stats.evidence import Evidence

Higher = Literal["first", "second"]


@dataclass(frozen=True)
class PairedTest:
    """A two-sided test of the mean difference between two scores on the same pairs.

    Args:
        error: in (0, 1), chance of ever naming a higher one where the means are equal, at most; the
            interval has the level 1 - error. Divide it by the number of comparisons.
        population: number of fixed pairs, for the claim "these_pairs"; None for the claim
            "sampler".
    """

    error: float = 0.05
    population: int | None = None

    def log_evidence(
        self, differences: Sequence[float], matchings: tuple[int, ...] = ()
    ) -> tuple[float, float]:
        """Returns log e-values (that the first is higher, that the second is), of `differences` in
        [-1, 1] in the order of the pairs; `matchings` as in `Evidence`.
        """
        return self._test.log_evidence(_evidence(differences, matchings))

    def higher(self, differences: Sequence[float]) -> Higher | None:
        """Returns which is higher, or None if more pairs are needed."""
        verdict = self._test.verdict(_evidence(differences))
        return None if verdict is None else "first" if verdict == "accept" else "second"

    def interval(
        self, differences: Sequence[float], matchings: tuple[int, ...] = ()
    ) -> tuple[float, float]:
        """Returns a confidence interval in [-1, 1] for the mean difference, valid at any stopping
        time; `matchings` as in `Evidence`.
        """
        low, high = self._test.interval(_evidence(differences, matchings), 1 - self.error)
        return 2 * low - 1, 2 * high - 1

    @cached_property
    def _test(self) -> BettingTest:
        """Each side has half of the error."""
        half = self.error / 2
        return BettingTest(0.5, half, half, population=self.population)


def _evidence(differences: Sequence[float], matchings: tuple[int, ...] = ()) -> Evidence:
    assert all(-1 <= d <= 1 for d in differences), differences
    scores = tuple((1 + d) / 2 for d in differences)
    return Evidence(len(scores), 0, scores, matchings)
