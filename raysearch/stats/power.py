"""Power of the match test: exact chances of each verdict and expected pairs, by dynamic
programming.

Invariants: no simulation; the state (pairs seen, matches) is followed through every look, so that
the figures are exact for a variable whose every pair is a change pair.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import count

import numpy as np
from numpy.typing import NDArray

from raysearch.stats.distributions import binom, hypergeom
from raysearch.stats.e_process import AnytimeTest
from raysearch.stats.evidence import Evidence, looks
from raysearch.stats.match_test import MatchTest

Floats = NDArray[np.float64]
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


def power(test: MatchTest, iia: float, last: int, at_end: bool = False) -> Power:
    """Returns the chances of each verdict for a hypothesis of true IIA `iia` in [0, 1].

    The test looks up to `last` pairs, or only then (`at_end`). With a population, `iia` is rounded
    to the nearest share that the population can have.
    """
    alive = np.ones(1)
    seen = 0
    accept = reject = pairs = 0.0
    for look in (last,) if at_end else looks(last):
        alive = _advance(alive, seen, look, iia, test.population)
        seen = look
        accepts, rejects = _verdicts(test, look)
        accept += float(alive[accepts].sum())
        reject += float(alive[rejects].sum())
        ended = float(alive[accepts | rejects].sum())
        pairs += look * ended
        alive = np.where(accepts | rejects, 0.0, alive)
    undecided = float(alive.sum())
    return Power(iia, accept, reject, undecided, pairs + last * undecided)


def fewest_pairs(test: AnytimeTest) -> int:
    """Returns the fewest pairs after which a test accepts, which it does if all match."""
    return next(
        n for n in count(1) if test.log_evidence(Evidence(n, n, (1.0,) * n))[0] >= test.accept_at
    )


@lru_cache(maxsize=256)
def _verdicts(test: MatchTest, look: int) -> tuple[Truths, Truths]:
    """Returns masks over the number of matches after `look` pairs: where the test accepts, where it
    rejects.

    They are the same at every true IIA.
    """
    matches = np.arange(look + 1)
    accepts = test.log_evidence_to_accept(look, matches) >= test.accept_at
    rejects = (test.log_evidence_to_reject(look, matches) >= test.reject_at) & ~accepts
    return accepts, rejects


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
