"""Error rates of the hypotheses that a search selects: e-BH for verdicts, e-BY for intervals.

Each hypothesis has an e-value E, and spends the level a of the error d; the levels sum to at most
d. e-BH (Wang and Ramdas 2022) accepts R hypotheses of which each has E >= 1 / (a R): then the
expected share of false ones among them is at most d, whatever the dependence, for a false one
counts 1/R <= a E. e-BY (Xu, Wang and Ramdas 2022, "Post-selection inference for e-value based
confidence intervals") gives each of R selected ones the interval of error a R: the expected share
that misses is at most d, whatever selects.

Invariants: pure; neither asks how e-values depend on each other; what is accepted alone (E >= 1 /
a) is accepted by e-BH.
"""

import math
from collections.abc import Iterable

from raysearch.stats.anytime_test import LEVEL


def e_bh(excesses: Iterable[float]) -> int:
    """Returns the number R of hypotheses that e-BH accepts: those with an excess of at least -log
    R.

    Args:
        excesses: log(a E) of each hypothesis; -inf for one that is never accepted.
    """
    ranked = sorted(excesses, reverse=True)
    return max((k for k, excess in enumerate(ranked, 1) if excess >= -math.log(k)), default=0)


def e_by_level(share: float, selected: int) -> float:
    """Returns the level of the interval of one of `selected` hypotheses, at least `LEVEL`.

    Args:
        share: the share of the error that it spends; over all hypotheses they sum to at most 1.
    """
    return 1 - (1 - LEVEL) * min(1.0, share * selected)
