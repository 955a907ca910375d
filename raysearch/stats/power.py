"""Power of the match test: exact chances of each verdict and expected pairs, by dynamic
programming.

Invariants: no simulation; the state (pairs seen, matches) is followed through every look, so that
the figures are exact for a variable whose every pair is a change pair.
"""

from bisect import bisect_left
from dataclasses import dataclass
from functools import lru_cache
from itertools import count

import numpy as np
from numpy.typing import NDArray

from raysearch.stats.anytime_test import AnytimeTest
from raysearch.stats.distributions import Floats, binom, hypergeom
from raysearch.stats.evidence import Evidence, looks
from raysearch.stats.match_test import MatchTest

Truths = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Power:
    """Chances in [0, 1] that sum to one, and the expected pairs until the verdict, at a true
    IIA.
    """

    iia: float
    accept: float
    reject: float
    undecided: float
    pairs: float


def power(
    test: MatchTest, iia: float, last: int, at_end: bool = False, ends: tuple[int, ...] = ()
) -> Power:
    """Returns the chances of each verdict for a hypothesis of true IIA `iia` in [0, 1].

    The test looks up to `last` pairs (at `ends` if they are given), or only then (`at_end`), and
    stops undecided once no verdict is likely. With a population, the IIA is the nearest share that
    the population can have, and returned as that.
    """
    if test.population is not None:
        iia = round(iia * test.population) / test.population
    alive = np.ones(1)
    seen = 0
    accept = reject = undecided = pairs = 0.0
    for look in (last,) if at_end else ends or looks(last):
        alive = _advance(alive, seen, look, iia, test.population)
        seen = look
        accepts, rejects, futile = verdicts(test, look, last)
        accept += float(alive[accepts].sum())
        reject += float(alive[rejects].sum())
        undecided += float(alive[futile].sum())
        stops = accepts | rejects | futile
        pairs += look * float(alive[stops].sum())
        alive = np.where(stops, 0.0, alive)
    return Power(iia, accept, reject, undecided, pairs)


def fewest_pairs(test: AnytimeTest) -> int:
    """Returns the fewest pairs after which a test accepts, which it does if all match."""
    return next(
        n for n in count(1) if test.log_evidence(Evidence(n, n, (1.0,) * n))[0] >= test.accept_at
    )


@lru_cache(maxsize=1 << 13)
def verdicts(test: MatchTest, look: int, last: int) -> tuple[Truths, Truths, Truths]:
    """Returns masks over the number of matches after `look` pairs: where the test accepts, where it
    rejects, where it stops undecided.

    They are the same at every true IIA.
    """
    matches = np.arange(look + 1)
    fewest, most = test.bounds(look)
    accepts = matches >= fewest
    rejects = (matches <= most) & ~accepts
    if look == last:
        return accepts, rejects, ~(accepts | rejects)
    return accepts, rejects, _futile(test, look, last) & ~accepts & ~rejects


def _futile(test: MatchTest, look: int, last: int) -> Truths:
    """Returns a mask over the number of matches after `look` pairs: where no verdict is likely.

    The chance of a verdict falls with the matches as long as rejecting is likelier than accepting,
    then rises, so that the mask is one run, found by bisection.
    """
    matches = np.arange(look + 1)
    if not test.futility:
        return matches < 0

    def chances(s: int) -> tuple[float, float]:
        return test.chances(Evidence(look, int(s)), last)

    def is_likely(s: int) -> bool:
        return sum(chances(s)) >= test.futility

    middle = bisect_left(matches, True, key=lambda s: np.greater_equal(*chances(s)))
    first = bisect_left(matches[:middle], True, key=lambda s: not is_likely(s))
    end = middle + bisect_left(matches[middle:], True, key=is_likely)
    return (matches >= first) & (matches < end)


def _advance(alive: Floats, seen: int, look: int, iia: float, population: int | None) -> Floats:
    """Returns the chances of each number of matches after `look` pairs, given those after
    `seen`.
    """
    step = look - seen
    if population is None:
        return np.convolve(alive, binom.pmf(np.arange(step + 1), step, iia))
    total = round(iia * population)
    after = np.zeros(look + 1)
    for s in np.flatnonzero(alive):
        left, good = population - seen, total - int(s)
        if 0 <= good <= left:
            after[s : s + step + 1] += alive[s] * hypergeom.pmf(
                np.arange(step + 1), left, good, step
            )
    return after
