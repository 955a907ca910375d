"""The exact test of a fixed number of pairs: one look, at the end, by the tails of the binomial or
the hypergeometric distribution.

A test that looks once needs no e-value: the p-value of matches s in n pairs, P(S >= s) at the upper
edge of the null (P(S <= s) to reject), is compared with the same level. Its interval is that of
Clopper and Pearson (1934), and for fixed pairs the same inversion of the hypergeometric tails.

Invariants: pure; n is fixed before the first pair; it decides where its interval, at the level of
the test, leaves out the null.
"""

import math
from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from raysearch.stats.anytime_test import LEVEL
from raysearch.stats.distributions import Floats
from raysearch.stats.evidence import Evidence
from raysearch.stats.match_test import MatchTest


@dataclass(frozen=True)
class ExactTest(MatchTest):
    """A test of the IIA by matches in a number of pairs that no verdict depends on."""

    @property
    def by_e_values(self) -> MatchTest:
        """The test of matches that may be looked at at any time, so also once."""
        return MatchTest(**{f.name: getattr(self, f.name) for f in fields(self)})

    def log_evidence(self, evidence: Evidence) -> tuple[float, float]:
        """Returns minus the logs of the p-values (to accept, to reject)."""
        up, down = self._tails(evidence.n, np.array([evidence.matches]))
        return float(up[0]), float(down[0])

    def bounds(self, n: int) -> tuple[int, int]:
        """Returns the fewest of n matches that are accepted and the most that are rejected."""
        up, down = self._tails(n, np.arange(n + 1))
        return int((up < self.accept_at).sum()), int((down >= self.reject_at).sum()) - 1

    def interval(self, evidence: Evidence, level: float = LEVEL) -> tuple[float, float]:
        """Returns a two-sided confidence interval for theta in [0, 1], each side at half of
        1 - level.
        """
        return _interval(self.population, evidence.n, evidence.matches, (1 - level) / 2)

    def _tails(self, n: int, s: NDArray[np.int64]) -> tuple[Floats, Floats]:
        from scipy.stats import binom, hypergeom  # half a second; only `use: fixed` needs it

        if not n:
            return np.zeros(len(s)), np.zeros(len(s))
        if self.population is None:
            up = -binom.logsf(s - 1, n, float(self.low))
            return up, -binom.logcdf(s, n, float(self.high))
        low = math.floor(self.low * self.population)
        high = math.ceil(self.high * self.population)
        with np.errstate(divide="ignore"):
            up = -np.log(hypergeom.sf(s - 1, self.population, low, n))
            return up, -np.log(hypergeom.cdf(s, self.population, high, n))


@lru_cache(maxsize=1 << 16)
def _interval(population: int | None, n: int, s: int, side: float) -> tuple[float, float]:
    from scipy.stats import beta, hypergeom

    if not n:
        return 0.0, 1.0
    if population is None:
        low = float(beta.ppf(side, s, n - s + 1)) if s else 0.0
        return low, float(beta.ppf(1 - side, s + 1, n - s)) if s < n else 1.0
    possible = np.arange(s, population - (n - s) + 1)
    above = hypergeom.sf(s - 1, population, possible, n) > side
    below = hypergeom.cdf(s, population, possible, n) > side
    inside = possible[above & below]
    return float(inside[0]) / population, float(inside[-1]) / population
