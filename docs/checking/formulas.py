"""The formulas of docs/explanation/statistics.md: e-values, p-values, intervals and e-BH.

verdicts.py and estimates.py beside it apply them to a run. It needs numpy alone.
"""

import math
from fractions import Fraction
from functools import cache

import numpy as np

NODES, WEIGHTS = np.polynomial.legendre.leggauss(300)
UP, DOWN = 1 / 4, 2 / 3  # the spikes of the priors for accepting, and for rejecting
FACTORIALS = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, 2**20)))])  # logs of them
log_choose = lambda n, k: FACTORIALS[n] - FACTORIALS[k] - FACTORIALS[n - k]  # noqa: E731


def log_chances(n, s, fixed):  # of one sequence of n, if 0, 1, ... of the fixed pairs match
    logs, m = np.full(fixed + 1, -np.inf), np.arange(s, fixed - (n - s) + 1)
    logs[m] = log_choose(fixed - n, m - s) - log_choose(fixed, m)
    return logs


def log_wealth(x, mean, fixed, of=None, spike=0.0):  # of a bettor on scores, in matchings
    price, total = mean, float(x.sum())
    if fixed is not None:
        allowed = fixed * mean + 1e-9
        if total > allowed or total + fixed - len(x) <= allowed:
            return math.inf if total > allowed else -math.inf
        price = (allowed - (np.cumsum(x) - x)) / (fixed - np.arange(len(x)))
    with np.errstate(divide="ignore"):  # what is bet whole is lost by a score of 0
        gains = np.log1p(np.append(NODES + 1, 2)[:, None] / 2 * (x / np.clip(price, 1e-9, 1) - 1))
        weights = np.log(np.append((1 - spike) * WEIGHTS / 2, spike))
    gains = np.maximum(gains, -1e12)
    if of:  # the mean over the four matchings of each block of values
        gains = gains @ (np.arange(4 * (max(of) // 4 + 1)) == np.array(of)[:, None])
        gains = np.logaddexp.reduce(gains.reshape(len(gains), -1, 4), axis=2) - math.log(4)
    return np.logaddexp.reduce(gains.sum(axis=1) + weights)


def log_p(n, s, fixed, edge):  # minus the log of the chance of at least s matches
    m = np.arange(s, n + 1)
    if fixed is None:
        logs = log_choose(n, m) + m * math.log(edge) + (n - m) * math.log1p(-edge)
    else:
        most = math.floor(edge * fixed)
        m = m[(m <= most) & (n - m <= fixed - most)]
        logs = log_choose(most, m) + log_choose(fixed - most, n - m) - log_choose(fixed, n)
    return -min(np.logaddexp.reduce(logs), 0.0) if len(m) else math.inf


@cache
def log_e(n, s, x, fixed, of, edge, spike):
    """Log e-value of n pairs with s matches, or with scores x, against a mean of at most `edge`; of
    one look by tails (no spike) minus the log of the p-value."""
    if spike is None or n == 0:
        return log_p(n, s, fixed, edge) if n else 0.0
    if x is not None or fixed is None:  # of draws, matches are scores of 0 and 1
        x = np.arange(n) < s if x is None else np.array(x)
        return log_wealth(x, float(edge), fixed, of, spike)
    null, logs = math.floor(edge * fixed), log_chances(n, s, fixed)
    slab = math.log((1 - spike) / (fixed - null)) + np.logaddexp.reduce(logs[null + 1 :])
    more = np.logaddexp(slab, math.log(spike) if s == n else -np.inf)
    return more if more == -math.inf else more - logs[null]


@cache
def chances(n, s, last, fixed, edges, level, miss):
    """Predictive chances that a test with s of n matches accepts at the pair `last`, and rejects."""
    every, of = range(last + 1), (None, fixed, None)
    ups = np.array([log_e(last, m, *of, edges[0], UP) for m in every]) >= -math.log(level)
    downs = np.array([log_e(last, last - m, *of, edges[1], DOWN) for m in every])
    m, alike = np.arange(s, last - n + s + 1), UP / (UP + (1 - UP) / (n + 1)) * (s == n)
    logs = log_choose(m, m - s) + log_choose(last - m, last - n + s - m)
    more = np.exp(logs - log_choose(last + 1, last - n)) * (1 - alike)
    return more[ups[m]].sum() + alike * ups[-1], more[downs[m] >= -math.log(miss)].sum()


def lower(n, s, x, fixed, of, tails, error=0.05):  # the lower end of an interval
    one, two = -math.log(error), math.log(2 / error)
    if x is None and fixed is not None:
        logs = log_chances(n, s, fixed)
        out = np.logaddexp.reduce(logs) - math.log(fixed + 1) - logs < one
        if tails and fixed:
            out = [log_p(n, s, fixed, Fraction(m, fixed)) < two for m in range(fixed + 1)]
        return float(np.argmax(out)) / max(fixed, 1)

    def excluded(p):
        if x is not None or tails:
            log = log_p(n, s, None, p) if x is None else log_wealth(np.array(x), p, fixed, of)
            return log >= two
        likelihood = s * math.log(p) + (n - s) * math.log1p(-p)
        return -math.log(n + 1) - log_choose(n, s) - likelihood >= one

    low, high, halvings = 0.0, s / max(n, 1), 100 * (s > 0)
    if x:
        low, high, halvings = max(math.fsum(x) / fixed - 1e-9, 0.0) if fixed else 0.0, 1.0, 17
    for _ in range(halvings):
        middle = (low + high) / 2
        low, high = (middle, high) if excluded(middle) else (low, middle)
    return low


def ends(up, down, tails, error=0.05):
    return lower(*up, tails, error), 1 - lower(*down, tails, error)


def e_bh(excesses):  # what it asks of each log of e-value times level
    ranked = [(excess, -math.log(k) - 1e-9) for k, excess in enumerate(sorted(excesses)[::-1], 1)]
    return min((asked for excess, asked in ranked if excess >= asked), default=math.inf)
