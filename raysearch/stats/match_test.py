"""The match test: accept, reject or continue, by the number of matches, valid at every look.

For s matches in the first n pairs and f = n - s there are two e-processes:

- to accept, against theta <= threshold - indifference: the mixture over the thetas above, relative
  to the likelihood there; its prior is a spike at 1 and for the rest uniform;
- to reject, against theta >= threshold + indifference: the mixture over the thetas below; its prior
  is a spike at 0 and for the rest uniform.

With `population=None` (claim "sampler"), pairs are independent draws and theta is the sampler's
rate. With `population=N` (claim "these_pairs"), theta is the share of matches among N fixed pairs,
drawn without replacement in a random order (Waudby-Smith and Ramdas 2020, "Confidence sequences for
sampling without replacement": the prior-posterior-ratio martingale).

Invariants: pure; a state that is impossible under a null decides against it by set logic, before
any logarithm.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaln

from raysearch.stats.anytime_test import LEVEL, AnytimeTest
from raysearch.stats.distributions import Floats, beta, log_choose, log_sum
from raysearch.stats.evidence import Evidence

Verdict = Literal["accept", "reject", "undecided"]


@dataclass(frozen=True)
class MatchTest(AnytimeTest):
    """A test of the IIA by matches: theta is the sampler's rate, or the share of matches among
    fixed pairs.
    """

    def log_evidence(self, evidence: Evidence) -> tuple[float, float]:
        """Returns log e-values (to accept, to reject).

        +inf means that the null is impossible, -inf that the alternative is.
        """
        return _log_evidence(
            self.low, self.high, self.population, self.spikes, evidence.n, evidence.matches
        )

    def chances(self, evidence: Evidence, last: int) -> tuple[float, float]:
        """Returns the predictive chances that the test accepts, and that it rejects, at the pair
        `last`; theta has the prior of accepting, over all of [0, 1].
        """
        bounds = self.bounds(last)
        return _chances(evidence.n, evidence.matches, last, bounds, self.spikes[0])

    def bounds(self, n: int) -> tuple[int, int]:
        """Returns the fewest of n matches that are accepted and the most that are rejected."""
        up, down = _all_log_evidence(self.low, self.high, self.population, self.spikes, n)
        return int((up < self.accept_at).sum()), int((down >= self.reject_at).sum()) - 1

    def interval(self, evidence: Evidence, level: float = LEVEL) -> tuple[float, float]:
        """Returns a two-sided confidence interval for theta in [0, 1], valid at any stopping time.

        It contains the thetas with a prior-posterior ratio below 1/(1 - level).
        """
        return _interval(self.population, evidence, -math.log1p(-level))


@lru_cache(maxsize=1 << 16)
def _log_evidence(
    low: Fraction,
    high: Fraction,
    population: int | None,
    spikes: tuple[float, float],
    n: int,
    matches: int,
) -> tuple[float, float]:
    up, down = _log_evidences(low, high, population, spikes, n, np.array([matches]))
    return float(up[0]), float(down[0])


@lru_cache(maxsize=1 << 10)
def _all_log_evidence(
    low: Fraction, high: Fraction, population: int | None, spikes: tuple[float, float], n: int
) -> tuple[Floats, Floats]:
    return _log_evidences(low, high, population, spikes, n, np.arange(n + 1))


def _log_evidences(
    low: Fraction,
    high: Fraction,
    population: int | None,
    spikes: tuple[float, float],
    n: int,
    s: NDArray[np.int64],
) -> tuple[Floats, Floats]:
    """Returns log e-values (to accept, to reject), for each of `s` matches out of `n`."""
    if population is not None:
        return (
            _fixed_log_evidence(population, math.floor(low * population), n, s, spikes[0], True),
            _fixed_log_evidence(population, math.ceil(high * population), n, s, spikes[1], False),
        )
    up, down = float(low), float(high)
    above = beta.logsf(up, 1 + s, 1 + n - s) - math.log1p(-up)
    below = beta.logcdf(down, 1 + s, 1 + n - s) - math.log(down)
    return (
        _spiked(_mixture(n, s) + above, spikes[0], s == n) - _log_likelihood(up, n, s),
        _spiked(_mixture(n, s) + below, spikes[1], s == 0) - _log_likelihood(down, n, s),
    )


def _spiked(slab: Floats, weight: float, at: NDArray[np.bool_]) -> Floats:
    """Returns the log of the mixture of both parts of a prior. The spike gives the pairs a chance
    of 1 where they are all alike (`at`), else 0.
    """
    if not weight:
        return slab
    spike = np.where(at, math.log(weight), -np.inf)
    return np.asarray(np.logaddexp(slab + math.log1p(-weight), spike), dtype=np.float64)


@lru_cache(maxsize=1 << 16)
def _chances(
    n: int, s: int, last: int, bounds: tuple[int, int], spike: float
) -> tuple[float, float]:
    """Returns the predictive chances that at `last` there are at least `bounds[0]` matches, and at
    most `bounds[1]`, given `s` of `n`: those of Pólya's urn, and of the spike at 1.
    """
    more = np.arange(last - n + 1)
    chance = np.exp(
        log_choose(s + more, more)
        + log_choose(last - s - more, last - n - more)
        - log_choose(last + 1, np.array([last - n]))
    )
    accept, reject = chance[s + more >= bounds[0]].sum(), chance[s + more <= bounds[1]].sum()
    all_match = spike / (spike + (1 - spike) / (n + 1)) if s == n else 0.0
    return (
        float(all_match * (last >= bounds[0]) + (1 - all_match) * accept),
        float((1 - all_match) * reject),
    )


@lru_cache(maxsize=1 << 16)
def _interval(population: int | None, evidence: Evidence, bound: float) -> tuple[float, float]:
    return (
        _sampler_interval(evidence, bound)
        if population is None
        else _fixed_interval(population, evidence, bound)
    )


def _mixture(n: int, s: NDArray[np.int64]) -> Floats:
    return np.asarray(betaln(1.0 + s, 1.0 + n - s), dtype=np.float64)


def _log_likelihood(theta: float, n: int, s: NDArray[np.int64]) -> Floats:
    return np.asarray(s * math.log(theta) + (n - s) * math.log1p(-theta), dtype=np.float64)


def _log_prior(population: int, m: NDArray[np.int64]) -> Floats:
    """Returns the log of the beta-binomial prior of the number of matches in the whole
    population.
    """
    return np.asarray(
        log_choose(population, m) + betaln(1.0 + m, 1.0 + population - m),
        dtype=np.float64,
    )


def _log_sequence(population: int, m: NDArray[np.int64], n: int, s: NDArray[np.int64]) -> Floats:
    """Returns the log chance of one given sequence with s matches in n draws, if m of the
    population match.
    """
    return np.asarray(
        log_choose(population - n, m - s) - log_choose(population, m), dtype=np.float64
    )


def _fixed_log_evidence(
    population: int, null: int, n: int, matches: NDArray[np.int64], spike: float, upward: bool
) -> Floats:
    """Returns log e-values; the spike of the prior is where all of the population match, or none
    (not `upward`).
    """
    assert n <= population, (n, population)
    if population == 0:
        return np.zeros(len(matches))  # no pairs, no evidence
    alternative = np.arange(null + 1, population + 1) if upward else np.arange(null)
    prior = _log_prior(population, alternative)
    total = log_sum(prior)
    out = np.empty(len(matches))
    for i, s in enumerate(matches):
        fewest, most = int(s), population - (n - int(s))
        if (fewest > null) if upward else (most < null):
            out[i] = np.inf  # the null is impossible
        elif not fewest <= null <= most:
            out[i] = -np.inf  # every population that is still possible is within the null
        else:
            here = np.array([s])
            mixture = log_sum(prior + _log_sequence(population, alternative, n, here)) - total
            mixed = np.atleast_1d(_spiked(mixture, spike, here == (n if upward else 0)))
            out[i] = mixed[0] - _log_sequence(population, np.array([null]), n, here)[0]
    return out


def _sampler_interval(evidence: Evidence, bound: float) -> tuple[float, float]:
    n, s = evidence.n, evidence.matches
    if n == 0:
        return 0.0, 1.0
    from scipy.optimize import brentq  # a quarter of a second, for intervals alone

    mixture = float(_mixture(n, np.array([s]))[0])

    def excess(theta: float) -> float:
        return mixture - float(_log_likelihood(theta, n, np.array([s]))[0]) - bound

    tiny, best = 1e-12, s / n
    low = 0.0 if s == 0 or excess(tiny) <= 0 else float(brentq(excess, tiny, min(best, 1 - tiny)))
    high = (
        1.0 if s == n or excess(1 - tiny) <= 0 else float(brentq(excess, max(best, tiny), 1 - tiny))
    )
    return low, high


def _fixed_interval(population: int, evidence: Evidence, bound: float) -> tuple[float, float]:
    n, s = evidence.n, np.array([evidence.matches])
    if population == 0:
        return 0.0, 1.0
    possible = np.arange(evidence.matches, population - (n - evidence.matches) + 1)
    likelihood = _log_sequence(population, possible, n, s)
    ratio = log_sum(_log_prior(population, possible) + likelihood) - likelihood
    inside = possible[ratio < bound]
    return float(inside[0]) / population, float(inside[-1]) / population
