"""Says when a test of matches ends, by the numbers of pairs and of matches alone: for a replica
that goes on by itself.

A table of bounds would say the same; but a replica comes to few of its entries, and one with the
futility stop takes a tenth of a second for each level of each variable.
"""

from dataclasses import dataclass

from raysearch.stats.evidence import Evidence
from raysearch.stats.match_test import MatchTest


@dataclass(frozen=True, slots=True)
class MatchStopRule:
    """Ends where the test decides, or where no verdict is likely any more.

    Args:
        test: the test that decides.
        likely: the test by which a verdict is likely or not, which is another one under e-BH.
        last: number of pairs that the test may see.
    """

    test: MatchTest
    likely: MatchTest
    last: int

    def ends(self, n: int, matches: int) -> bool:
        """Returns whether the test ends with so many `matches` out of `n` pairs."""
        seen = Evidence(n, matches)
        if self.test.verdict(seen) is not None:
            return True
        return sum(self.likely.chances(seen, self.last)) < self.likely.futility
