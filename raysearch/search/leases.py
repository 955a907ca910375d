"""Makes leases: for each hypothesis of a task, where it stands and when its test ends.

Only tests that are a function of the number of pairs and of matches are leased
(`Judge.may_be_leased`); readings on the holdout whose number of pairs is settled run all their
blocks. Invariants: a lease is derived from the rule that decides, so that a replica goes on exactly
where the search would ask for more.
"""

from collections.abc import Sequence

from raysearch.core.lease import Lease, LeasedTest
from raysearch.search.judge import Judge
from raysearch.search.trial import HypothesisTest, Trial

STEPS = 8
"""Rows of a lease, in tasks without one. More would save few messages, and leave other workers
without work at the end of a generation (figures: decision 51)."""
SECONDS = 1.0
"""Time of a lease: far more than a message takes, little to lose with a worker, and short enough
for Ctrl-C and the progress line of `--pool local`, which come between two tasks (decision 51)."""
AHEAD = 4
"""How far the blocks of a leased task reach, in times the rows of its lease. Interventions that
stop early leave rows to the others, which then go on to later blocks within the same lease."""


class Leases:
    """Makes the leases of one search: says which trials a replica may take further by itself, and
    by which rules.

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
        return trial.split == "holdout" or all(map(self._judge.may_be_leased, trial.tests))

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
