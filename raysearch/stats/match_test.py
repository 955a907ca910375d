"""The match test: accept, reject or continue, by the number of matches, valid at every look.

For s matches in the first n pairs, f = n - s, and a prior Beta(a, b) with a = b = 1, there are two
e-processes:

- to accept, against theta <= threshold - indifference: the mixture over the thetas above, relative
  to the likelihood there;
- to reject, against theta >= threshold + indifference: the mixture over the thetas below.

With `population=None` (claim "sampler"), pairs are independent draws and theta is the sampler's
rate. With `population=N` (claim "these_pairs"), theta is the share of matches among N fixed pairs,
drawn without replacement in a random order (Waudby-Smith and Ramdas 2020, "Confidence sequences for
sampling without replacement": the prior-posterior-ratio martingale).

Invariants: pure; a state that is impossible under a null decides against it by set logic, before
any logarithm.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaln, gammaln, logsumexp

from raysearch.stats.distributions import beta
from raysearch.stats.e_process import LEVEL, AnytimeTest
from raysearch.stats.evidence import Evidence

Verdict = Literal["accept", "reject", "undecided"]
Floats = NDArray[np.float64]

_A = _B = 1.0


@dataclass(frozen=True)
class MatchTest(AnytimeTest):
    """A test of the IIA by matches: theta is the sampler's rate, or the share of matches among
    fixed pairs.
    """

    def log_evidence(self, evidence: Evidence) -> tuple[float, float]:
        """Returns log e-values (to accept, to reject).

        +inf means that the null is impossible, -inf that the alternative is.
        """
        return _log_evidence(self, evidence.n, evidence.matches)

    def log_evidence_to_accept(self, n: int, matches: NDArray[np.int64]) -> Floats:
        """Returns log e-values against theta <= threshold - indifference, for each of `matches` out
        of `n`.
        """
        if self.population is not None:
            null = math.floor(self.low * self.population)
            return _fixed_log_evidence(self.population, null, n, matches, upward=True)
        edge = float(self.low)
        tail = beta.logsf(edge, _A + matches, _B + n - matches) - beta.logsf(edge, _A, _B)
        return np.asarray(
            _mixture(n, matches) + tail - _log_likelihood(edge, n, matches), dtype=np.float64
        )

    def log_evidence_to_reject(self, n: int, matches: NDArray[np.int64]) -> Floats:
        """Returns log e-values against theta >= threshold + indifference, for each of `matches` out
        of `n`.
        """
        if self.population is not None:
            null = math.ceil(self.high * self.population)
            return _fixed_log_evidence(self.population, null, n, matches, upward=False)
        edge = float(self.high)
        tail = beta.logcdf(edge, _A + matches, _B + n - matches) - beta.logcdf(edge, _A, _B)
        return np.asarray(
            _mixture(n, matches) + tail - _log_likelihood(edge, n, matches), dtype=np.float64
        )

    def interval(self, evidence: Evidence, level: float = LEVEL) -> tuple[float, float]:
        """Returns a two-sided confidence interval for theta in [0, 1], valid at any stopping time.

        It contains the thetas with a prior-posterior ratio below 1/(1 - level).
        """
        return _interval(self.population, evidence, -math.log1p(-level))


@lru_cache(maxsize=1 << 16)
def _log_evidence(test: MatchTest, n: int, matches: int) -> tuple[float, float]:
    s = np.array([matches], dtype=np.int64)
    return float(test.log_evidence_to_accept(n, s)[0]), float(test.log_evidence_to_reject(n, s)[0])


@lru_cache(maxsize=1 << 16)
def _interval(population: int | None, evidence: Evidence, bound: float) -> tuple[float, float]:
    return (
        _sampler_interval(evidence, bound)
        if population is None
        else _fixed_interval(population, evidence, bound)
    )


def _mixture(n: int, s: NDArray[np.int64]) -> Floats:
    return np.asarray(betaln(_A + s, _B + n - s) - betaln(_A, _B), dtype=np.float64)


def _log_likelihood(theta: float, n: int, s: NDArray[np.int64]) -> Floats:
    return np.asarray(s * math.log(theta) + (n - s) * math.log1p(-theta), dtype=np.float64)


def _log_choose(n: NDArray[np.int64] | int, k: NDArray[np.int64]) -> Floats:
    n = np.asarray(n)
    inside = (k >= 0) & (k <= n)
    k = np.where(inside, k, 0)
    return np.where(inside, gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(n - k + 1.0), -np.inf)


def _log_prior(population: int, m: NDArray[np.int64]) -> Floats:
    """Returns the log of the beta-binomial prior of the number of matches in the whole
    population.
    """
    return np.asarray(
        _log_choose(population, m) + betaln(_A + m, _B + population - m) - betaln(_A, _B),
        dtype=np.float64,
    )


def _log_sequence(population: int, m: NDArray[np.int64], n: int, s: NDArray[np.int64]) -> Floats:
    """Returns the log chance of one given sequence with s matches in n draws, if m of the
    population match.
    """
    return np.asarray(
        _log_choose(population - n, m - s) - _log_choose(population, m), dtype=np.float64
    )


def _fixed_log_evidence(
    population: int, null: int, n: int, matches: NDArray[np.int64], upward: bool
) -> Floats:
    assert n <= population, (n, population)
    if population == 0:
        return np.zeros(len(matches))  # no pairs, no evidence
    alternative = np.arange(null + 1, population + 1) if upward else np.arange(null)
    prior = _log_prior(population, alternative)
    total = logsumexp(prior)
    out = np.empty(len(matches))
    for i, s in enumerate(matches):
        fewest, most = int(s), population - (n - int(s))
        if (fewest > null) if upward else (most < null):
            out[i] = np.inf  # the null is impossible
        elif not fewest <= null <= most:
            out[i] = -np.inf  # every population that is still possible is within the null
        else:
            here = np.array([s])
            mixture = logsumexp(prior + _log_sequence(population, alternative, n, here)) - total
            out[i] = mixture - _log_sequence(population, np.array([null]), n, here)[0]
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
    ratio = logsumexp(_log_prior(population, possible) + likelihood) - likelihood
    inside = possible[ratio < bound]
    return float(inside[0]) / population, float(inside[-1]) / population
