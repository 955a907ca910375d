"""Makes leases: for each hypothesis of a task, where it stands and when its test ends.

Only tests that are a function of the number of pairs and of matches are leased (`Judge.leases`);
readings on the holdout whose number of pairs is settled run all their blocks. Invariants: a lease
is derived from the rule that decides, so that a replica goes on exactly where the search would ask
for more.
"""

from collections.abc import Sequence

from raysearch.core.lease import Lease, LeasedTest
from raysearch.search.judge import Judge
from raysearch.search.trial import HypothesisTest, Trial

STEPS = 8
"""Rows of a lease, in tasks without one. More would save few messages, and leave other workers
without work at the end of a generation (figures: decision 51)."""
SECONDS = 5.0
"""Time of a lease: far more than a message takes, and little to lose with a worker."""
AHEAD = 4
"""A lease names the blocks that so many times its rows take if no intervention stops early."""


class Leases:
    """Leases of one search.

    Args:
        rows: size of a task without a lease, in pairs x interventions.
        steps: as in `STEPS`; 1: nothing is leased.
    """

    def __init__(
        self,
        judge: Judge,
        rows: int,
        unfiltered: bool,
        steps: int = STEPS,
    ) -> None:
        self._judge = judge
        self._rows = rows
        self._unfiltered = unfiltered
        self._steps = steps

    @property
    def most(self) -> int:
        """Most rows that the blocks of a leased task would take if nothing stopped."""
        return AHEAD * self._steps * self._rows

    def takes(self, trial: Trial) -> bool:
        """Says whether a trial may be leased."""
        if trial.one_block or self._steps == 1:
            return False
        return trial.split == "holdout" or all(map(self._judge.leases, trial.tests))

    def of(self, trials: Sequence[Trial]) -> Lease:
        """Returns the lease of trials, from the next block that they count."""
        tests = tuple(
            tuple(map(self._leased, trial.tests)) if trial.split == "test" else ()
            for trial in trials
        )
        most = self._steps * self._rows
        return Lease(tests, self._unfiltered, self._rows, most, SECONDS)

    def _leased(self, test: HypothesisTest) -> LeasedTest:
        seen = test.evidence
        rule = self._judge.stop_rule(test)
        return LeasedTest(test.hypothesis.variable, seen.n, seen.matches, rule)
