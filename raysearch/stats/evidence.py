"""Evidence of one hypothesis: pairs seen, matches, scores; and the looks at which it is judged.

Invariants: 0 <= matches <= n; a score for every pair, in the order of the pairs, or none at all;
looks rise strictly and end at the last pair.
"""

import math
from dataclasses import dataclass

FIRST_LOOKS = (4, 8, 12)
MATCHINGS = 4
"""Matchings of the values of a block, for a claim about new values: their e-values are averaged."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """`matches` out of `n` pairs; `scores` in [0, 1] of each pair, if the test is on a score.

    `matchings`: for a claim about new values, the matching that each pair is of; successive
    MATCHINGS of them are of one block of values.
    """

    n: int = 0
    matches: int = 0
    scores: tuple[float, ...] = ()
    matchings: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        assert 0 <= self.matches <= self.n, self
        assert len(self.scores) in (0, self.n), self
        assert len(self.matchings) in (0, self.n), self

    @property
    def iia(self) -> float | None:
        """matches / n in [0, 1]; None before the first pair."""
        return self.matches / self.n if self.n else None

    @property
    def score(self) -> float | None:
        """Mean score in [0, 1]; None without scores."""
        return math.fsum(self.scores) / self.n if self.scores else None

    def add(
        self,
        n: int,
        matches: int,
        scores: tuple[float, ...] = (),
        matchings: tuple[int, ...] = (),
    ) -> "Evidence":
        """Returns this evidence together with `matches` out of `n` further pairs."""
        return Evidence(
            self.n + n,
            self.matches + matches,
            self.scores + scores,
            self.matchings + matchings,
        )


def looks(last: int) -> tuple[int, ...]:
    """Returns the numbers of pairs after which the test looks: 4, 8, 12, then half as many again,
    up to `last`.
    """
    out = [n for n in FIRST_LOOKS if n < last]
    following = FIRST_LOOKS[-1] * 3 // 2
    while following < last:
        out.append(following)
        following = following * 3 // 2
    return (*out, last) if last > 0 else ()
