"""The distributions of the tests, with the names and arguments that they have in scipy.stats.

Written with scipy.special alone, since scipy.stats takes half a second to import.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betainc, betaincc, gammaln, xlog1py, xlogy

Floats = NDArray[np.float64]


class _Beta:
    """Beta(a, b), inside of (0, 1)."""

    @staticmethod
    def logsf(x: float, a: ArrayLike, b: ArrayLike) -> Floats:
        """Returns the log of the chance of more than `x`."""
        return _log(betaincc(a, b, x), betainc(a, b, x))

    @staticmethod
    def logcdf(x: float, a: ArrayLike, b: ArrayLike) -> Floats:
        """Returns the log of the chance of at most `x`."""
        return _log(betainc(a, b, x), betaincc(a, b, x))


class _Binomial:
    """The number of matches among `n` independent pairs of rate `p`."""

    @staticmethod
    def pmf(k: NDArray[Any], n: int, p: float) -> Floats:
        """Returns the chance of exactly `k`, each in 0..n."""
        return np.asarray(np.exp(log_choose(n, k) + xlogy(k, p) + xlog1py(n - k, -p)))


class _Hypergeometric:
    """The number of good ones among `drawn` of `total`, of which `good` are."""

    @staticmethod
    def pmf(k: NDArray[Any], total: int, good: int, drawn: int) -> Floats:
        """Returns the chance of exactly `k`; 0 for what cannot be."""
        possible = (k <= good) & (k <= drawn) & (drawn - k <= total - good) & (k >= 0)
        inside = np.where(possible, k, max(0, drawn - (total - good)))
        chosen = log_choose(good, inside) + log_choose(total - good, drawn - inside)
        return np.asarray(np.where(possible, np.exp(chosen - log_choose(total, drawn)), 0.0))


beta, binom, hypergeom = _Beta(), _Binomial(), _Hypergeometric()


def _log(chance: Floats, other: Floats) -> Floats:
    """Returns the log of a chance, near 1 by the other side's: they sum to 1."""
    with np.errstate(divide="ignore"):
        return np.where(other > 0.5, np.log(chance), np.log1p(-other))


def log_choose(n: NDArray[Any] | int, k: NDArray[Any] | int) -> Floats:
    """Returns the log of the binomial coefficient; -inf where k is negative or above n."""
    n, k = np.asarray(n), np.asarray(k)
    inside = (k >= 0) & (k <= n)
    k = np.where(inside, k, 0)
    return np.where(inside, gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(n - k + 1.0), -np.inf)


def log_sum(logs: Floats, axis: int = -1, weights: Floats | None = None) -> Floats:
    """Returns the log of the sum of exp(`logs`) along an axis, each times its weight.

    For the few numbers of a look, scipy's logsumexp takes ten times as long or more.

    Args:
        logs: at least one number along the axis, each finite or -inf.
        weights: numbers of at least 0, in the shape of `logs` or one that broadcasts to it.
    """
    top = logs.max(axis=axis, keepdims=True)
    top = np.where(np.isneginf(top), 0.0, top)
    terms = np.exp(logs - top)
    if weights is not None:
        terms = terms * weights
    with np.errstate(divide="ignore"):  # the sum of nothing is -inf
        return np.asarray(np.log(terms.sum(axis)) + top.squeeze(axis), dtype=np.float64)
