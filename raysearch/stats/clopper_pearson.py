"""Exact intervals of a share after a number of pairs that was fixed beforehand, and that number.

Clopper and Pearson (1934): the shares that neither tail of the binomial rules out, each at half of
1 - level. Invariants: the number is chosen from other pairs than those that are then counted, so
the interval holds whatever chose it.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

from raysearch.stats.anytime_test import LEVEL
from raysearch.stats.distributions import Floats

_AT_ONCE = 256
"""Numbers of pairs whose intervals are computed at once."""


def clopper_pearson(n: int, matches: int, level: float = LEVEL) -> tuple[float, float]:
    """Returns the interval in [0, 1] of the share of matches, of `matches` in `n` >= 1 draws."""
    low, high = _ends(np.array([n]), np.array([float(matches)]), level)
    return float(low[0]), float(high[0])


@lru_cache(maxsize=1 << 12)
def pairs_for_width(n: int, total: float, half_width: float, most: int) -> int:
    """Returns the fewest pairs after which the interval is expected to be no wider than twice
    `half_width`, at most `most`.

    Expected is the share (total + 1) / (n + 2): `total` matches, or sum of scores, in `n` other
    pairs.
    """
    for first in range(1, most + 1 if half_width > 0 else 0, _AT_ONCE):
        pairs = np.arange(first, min(first + _AT_ONCE, most + 1))
        low, high = _ends(pairs, np.floor(pairs * (total + 1) / (n + 2)), LEVEL)
        enough = np.flatnonzero((high - low) / 2 <= half_width)
        if len(enough):
            return int(pairs[enough[0]])
    return most


def _ends(n: NDArray[np.int64], s: Floats, level: float) -> tuple[Floats, Floats]:
    tail = (1 - level) / 2
    low = np.where(s == 0, 0.0, betaincinv(np.maximum(s, 1), n - s + 1, tail))
    high = np.where(s == n, 1.0, betaincinv(s + 1, np.maximum(n - s, 1), 1 - tail))
    return low, high
