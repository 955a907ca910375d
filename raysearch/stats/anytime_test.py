"""The contract of both tests: two e-processes against one threshold, which may be looked at at any
time.

Accept at E >= K / false_accept: by Ville's inequality and a union bound over K hypotheses, the
chance of any false accept is at most `false_accept`. Reject at E >= 1 / miss. Invariants: pure;
accepting is checked first.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import Literal

from raysearch.stats.evidence import Evidence

LEVEL = 0.95
"""Confidence level of the reported intervals."""
SPIKES = 1 / 4, 2 / 3
"""Prior weight of the best alternative (a mean of 1) for accepting, and of the worst (a mean of 0)
for rejecting. Most interventions change nothing and some change all, so both are common.
"""
FUTILITY = 0.1
"""Predictive chance of any verdict below which none is waited for."""


@dataclass(frozen=True)
class AnytimeTest(ABC):
    """A test of an IIA, or of the mean of a score, against `threshold`.

    Args:
        threshold: in (0, 1).
        false_accept: in (0, 1), chance of *any* false accept among `hypotheses` (K).
        miss: in (0, 1), chance that one hypothesis at or above the threshold is rejected.
        indifference: half the width of the band around the threshold in which neither error counts.
        population: number of fixed pairs, for the claim "these_pairs"; None for the claim
            "sampler".
        spikes: as in `SPIKES`, each in [0, 1); the rest of the prior is uniform.
        futility: as in `FUTILITY`, in [0, 1); 0: a verdict is always waited for.
    """

    threshold: float
    false_accept: float
    miss: float
    hypotheses: int = 1
    indifference: float = 0.0
    population: int | None = None
    spikes: tuple[float, float] = SPIKES
    futility: float = FUTILITY

    def __post_init__(self) -> None:
        assert 0 < self.low <= self.high < 1, (self.threshold, self.indifference)
        assert 0 < self.false_accept < 1, self.false_accept
        assert 0 < self.miss < 1, self.miss
        assert self.hypotheses >= 1, self.hypotheses
        assert all(0 <= spike < 1 for spike in self.spikes), self.spikes

    @property
    def claim(self) -> str:
        """The population that the claim is about: "sampler" or "these_pairs"."""
        return "sampler" if self.population is None else "these_pairs"

    @property
    def level(self) -> float:
        """Chance of a false accept that one hypothesis spends."""
        return self.false_accept / self.hypotheses

    def at_level(self, level: float) -> "AnytimeTest":
        """Returns the same test for one hypothesis that spends `level`, in (0, 1)."""
        return replace(self, false_accept=level, hypotheses=1)

    @property
    def accept_at(self) -> float:
        """Log e-value at which a hypothesis is accepted."""
        return math.log(self.hypotheses / self.false_accept)

    @property
    def reject_at(self) -> float:
        """Log e-value at which a hypothesis is rejected."""
        return -math.log(self.miss)

    def verdict(self, evidence: Evidence) -> Literal["accept", "reject"] | None:
        """Returns "accept", "reject", or None if more evidence is needed."""
        up, down = self.log_evidence(evidence)
        if up >= self.accept_at:
            return "accept"
        return "reject" if down >= self.reject_at else None

    def chances(self, evidence: Evidence, last: int) -> tuple[float, float]:
        """Returns the predictive chances in [0, 1] that the test accepts, and that it rejects, at
        the pair `last`; 1 if they are not known.
        """
        return 1.0, 1.0

    @property
    def by_e_values(self) -> "AnytimeTest":
        """The same test by e-values; itself, unless it is by tails."""
        return self

    @abstractmethod
    def log_evidence(self, evidence: Evidence) -> tuple[float, float]:
        """Returns log e-values (to accept, to reject).

        +inf means that the null is impossible, -inf that the alternative is.
        """

    @abstractmethod
    def interval(self, evidence: Evidence, level: float = LEVEL) -> tuple[float, float]:
        """Returns a two-sided confidence interval in [0, 1], valid at any stopping time."""

    @cached_property
    def low(self) -> Fraction:
        """threshold - indifference: the upper edge of the null that accepting rejects."""
        return _exact_decimal(self.threshold) - _exact_decimal(self.indifference)

    @cached_property
    def high(self) -> Fraction:
        """threshold + indifference: the lower edge of the null that rejecting rejects."""
        return _exact_decimal(self.threshold) + _exact_decimal(self.indifference)


def _exact_decimal(x: float) -> Fraction:
    """Returns the decimal that the user wrote: 0.8 is 4/5, so that 0.8 of 10 pairs are exactly
    8.
    """
    return Fraction(repr(x))
