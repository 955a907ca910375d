"""The betting test: whether the mean of a bounded score over pairs is above the threshold, valid at
every look.

Before each pair, a share of the wealth is bet on its score x exceeding what the null allows on
average. The wealth is an e-process (Waudby-Smith and Ramdas 2024, "Estimating means of bounded
random variables by betting", JRSS B 86(1)). Against a mean of at most m, at the fair price m_t and
for shares b in (0, 1), it is

    E_n = integral over b of  prod_t (1 + b (x_t / m_t - 1))

spread over all shares ("diversified" in their paper; a universal portfolio: Orabona and Jun 2024);
a part of the wealth, the spike, is bet whole (b = 1).
With `population=None` (claim "sampler"), m_t = m. With `population=N` (claim "these_pairs"), m_t =
(N m - x_1 - ... - x_{t-1}) / (N - t + 1), the mean of what is left. Against a mean of at least m it
is the same with 1 - x and 1 - m. For a claim about new values, pairs come in blocks of values, each
matched several times into pairs that share no value: then the factor of a block is, for each b, the
mean over its matchings of their products. For scores of 0 and 1 and independent draws it equals the
mixture in `match_test.py`, since a likelihood ratio is a bet.

Invariants: pure; the fair price is known before the pair; a state that is impossible under a null
decides against it; E falls with m and rises with every x.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from raysearch.stats.anytime_test import LEVEL, AnytimeTest
from raysearch.stats.distributions import Floats, log_sum
from raysearch.stats.evidence import MATCHINGS, Evidence

BETS = 64
"""Number of shares among which the wealth is spread, by Gauss-Legendre quadrature: up to 2 x 64 - 1
pairs, the sum equals the integral.
"""
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(BETS)
_SHARES = np.append((_NODES + 1) / 2, 1.0)[:, None]
_LOST = -1e12
"""Log of nothing, which can be added up."""
_SLACK = 1e-9
"""Tolerance, in pairs: totals of floating-point numbers that are closer count as equal, in favour
of the null."""
_HALVINGS = 17
"""Halvings of the unit interval for the ends of an interval: exact to 1e-5, rounded outward."""


@dataclass(frozen=True)
class BettingTest(AnytimeTest):
    """A test of the mean of a score in [0, 1], over all that the sampler draws or over the fixed
    pairs.
    """

    def log_evidence(self, evidence: Evidence) -> tuple[float, float]:
        """Returns log e-values (to accept, to reject).

        +inf means that the null is impossible, -inf that the alternative is.
        """
        return _log_evidence(
            float(self.low),
            float(self.high),
            self.population,
            self.spikes,
            evidence.scores,
            evidence.matchings,
        )

    def interval(self, evidence: Evidence, level: float = LEVEL) -> tuple[float, float]:
        """Returns a two-sided confidence interval for the mean in [0, 1], valid at any stopping
        time.

        It contains the means that neither bet rules out, each side at half of 1 - level.
        """
        bound = math.log(2 / (1 - level))
        return _interval(evidence.scores, evidence.matchings, self.population, bound)


def log_wealth(
    scores: Floats, mean: float, population: int | None = None, spike: float = 0.0
) -> Floats:
    """Returns the log e-value against a mean of at most `mean` in (0, 1] after each score.

    Args:
        scores: numbers in [0, 1]; the last axis is the pairs, in their order.
        population: number of fixed pairs, drawn without replacement; None for independent draws.
        spike: part of the wealth in [0, 1) that is bet whole.
    """
    wealth = _mix_over_bets(np.cumsum(_log_gains(scores, mean, population), axis=-1), spike)
    return _apply_set_logic(
        wealth, np.cumsum(scores, axis=-1), np.arange(1, scores.shape[-1] + 1), mean, population
    )


def _last_log_wealth(
    scores: Floats,
    matchings: tuple[int, ...],
    mean: float,
    population: int | None,
    spike: float = 0.0,
) -> float:
    """Returns the log e-value after the last of `scores`, of one hypothesis."""
    gains = _log_gains(scores, mean, population)
    if matchings:
        gains = _mean_over_matchings(gains, np.array(matchings))
    wealth = _mix_over_bets(gains.sum(axis=-1, keepdims=True), spike)
    total, seen = scores.sum(keepdims=True), np.array([len(scores)])
    return float(_apply_set_logic(wealth, total, seen, mean, population)[0])


def _log_gains(scores: Floats, mean: float, population: int | None) -> Floats:
    """Returns the log of each share's growth in wealth with each pair: (..., share, pair)."""
    gains = scores / _fair_prices(scores, mean, population) - 1
    with np.errstate(divide="ignore"):  # a whole bet on a score of 0 loses all
        logs = np.log1p(_SHARES * gains[..., None, :])
    return np.asarray(np.maximum(logs, _LOST), dtype=np.float64)


def _mean_over_matchings(gains: Floats, matchings: NDArray[np.int64]) -> Floats:
    """Returns the log of each share's growth with each block of values: (share, block).

    Pairs of one matching share no value, so their growths multiply; matchings of one block share
    values, so they are averaged; blocks share none. One without a pair grows by a factor of 1.
    """
    blocks = matchings.max() // MATCHINGS + 1
    of_pair = np.arange(blocks * MATCHINGS) == matchings[:, None]
    products = (gains @ of_pair).reshape(len(gains), blocks, MATCHINGS)
    return log_sum(products) - math.log(MATCHINGS)


def _fair_prices(scores: Floats, mean: float, population: int | None) -> Floats | float:
    """Returns the price of each pair: the mean score that the null still allows, given the pairs
    before it.
    """
    if population is None:
        return mean
    count = scores.shape[-1]
    assert count <= population, (count, population)
    before = np.cumsum(scores, axis=-1) - scores
    fair = (population * mean + _SLACK - before) / (population - np.arange(count))
    # If no score is allowed any more, set logic decides (`_apply_set_logic`); a bet needs a price
    # above 0.
    return np.asarray(np.clip(fair, _SLACK, 1), dtype=np.float64)


def _mix_over_bets(logs: Floats, spike: float) -> Floats:
    """Returns the log of the total wealth over all shares: (..., share, time) to (..., time)."""
    weights = np.append((1 - spike) * _WEIGHTS / 2, spike)[:, None]
    return log_sum(logs, axis=-2, weights=weights)


def _apply_set_logic(
    wealth: Floats, total: Floats, seen: NDArray[np.int64], mean: float, population: int | None
) -> Floats:
    """Replaces `wealth` by +-inf where the fixed pairs leave only one answer."""
    if population is None:
        return wealth
    allowed = population * mean + _SLACK
    holds, broken = total + (population - seen) <= allowed, total > allowed
    return np.where(broken, np.inf, np.where(holds, -np.inf, wealth))


@lru_cache(maxsize=1 << 12)
def _log_evidence(
    low: float,
    high: float,
    population: int | None,
    spikes: tuple[float, float],
    scores: tuple[float, ...],
    matchings: tuple[int, ...],
) -> tuple[float, float]:
    if not scores:
        return 0.0, 0.0
    x = np.array(scores)
    return (
        _last_log_wealth(x, matchings, low, population, spikes[0]),
        _last_log_wealth(1 - x, matchings, 1 - high, population, spikes[1]),
    )


def _interval(
    scores: tuple[float, ...], matchings: tuple[int, ...], population: int | None, bound: float
) -> tuple[float, float]:
    if not scores:
        return 0.0, 1.0
    x = np.array(scores)
    return (
        _lower(x, matchings, population, bound),
        1 - _lower(1 - x, matchings, population, bound),
    )


def _lower(
    scores: Floats, matchings: tuple[int, ...], population: int | None, bound: float
) -> float:
    """Returns the largest mean, on the grid, below which all are ruled out; the e-value falls with
    the mean.
    """
    sure = (
        0.0 if population is None else max(float(scores.sum()) / population - _SLACK, 0.0)
    )  # the remaining pairs score at least 0
    ruled_out, possible_mean = sure, 1.0
    for _ in range(_HALVINGS):
        middle = (ruled_out + possible_mean) / 2
        if _last_log_wealth(scores, matchings, middle, population) >= bound:
            ruled_out = middle
        else:
            possible_mean = middle
    return ruled_out
