"""All trials of a search, with the number of pairs that they may still need.

Invariants: an open trial stands in exactly one place of the scheduler; `at_most` is the sum of the
pairs that the open trials have yet to count.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

from raysearch.causal import Split
from raysearch.core.events import Block, Failed, Lost, Measured
from raysearch.core.hypothesis import Intervention
from raysearch.core.records import Decided
from raysearch.search.failed_attempts import FailedAttempt
from raysearch.search.leases import Leases
from raysearch.search.scheduler import QUARANTINE, Scheduler
from raysearch.search.trial import HypothesisTest, Trial, TrialKey


class TrialRegistry:
    """Holds trials by key and passes those that can run to the scheduler.

    Args:
        rows: size of a task without a lease, in pairs x interventions.
    """

    def __init__(self, rows: int, leases: Leases) -> None:
        self.scheduler = Scheduler(rows, leases)
        self.at_most = 0
        self._trials: dict[TrialKey, Trial] = {}

    def trial(self, key: TrialKey) -> Trial | None:
        """Returns the trial of a key, or None."""
        return self._trials.get(key)

    def test_of(self, intervention: Intervention, part: int) -> Trial | None:
        """Returns the trial of an intervention on a part of the test pairs, or None."""
        return self.trial(("test", intervention.key, part))

    @property
    def tests(self) -> int:
        """Number of hypotheses that wait for a verdict on a trial; for the invariants."""
        return sum(len(trial.tests) for trial in self._trials.values() if trial.split == "test")

    @property
    def closed(self) -> bool:
        """Says whether all trials are closed; for the invariants."""
        return all(trial.closed for trial in self._trials.values())

    def open(self, trial: Trial) -> None:
        """Adds a new trial, and schedules it if it has hypotheses and any block to measure."""
        assert trial.key not in self._trials, (
            "an intervention is proposed once, with all its variables"
        )
        self._trials[trial.key] = trial
        self.at_most += trial.at_most
        if not trial.closed and not trial.exhausted:
            self.scheduler.add(trial)

    def join(self, trial: Trial, test: HypothesisTest) -> None:
        """Adds a hypothesis to a trial that has blocks left to count."""
        before, was_closed = trial.at_most, trial.closed
        trial.tests.append(test)
        self.at_most += trial.at_most - before
        if was_closed and not self.scheduler.has_out(trial):
            self.scheduler.add(trial)

    def drop(self, trial: Trial, test: HypothesisTest) -> None:
        """Removes a hypothesis that is decided or estimated; closes its trial with the last one."""
        before = trial.at_most
        trial.drop(test)
        self.at_most += trial.at_most - before
        if trial.closed:
            self.scheduler.remove(trial)

    def counted(self, observation: Measured) -> None:
        """Subtracts an observation that was counted from `at_most`."""
        self.at_most -= len(observation.pairs)

    def settle(self, trial: Trial, event: Measured) -> None:
        """Tells the scheduler that an item of a task is done, and schedules the trials that this
        frees.
        """
        if self.scheduler.is_ready(
            trial
        ):  # a block that this scheduler has not sent out: a replay, or a late repeat
            self.scheduler.remove(trial)
            self.release([trial])
        self.release(self.scheduler.on_measured(event))

    def release(self, trials: Sequence[Trial]) -> None:
        """Schedules trials whose task is over, unless they are closed."""
        for trial in trials:
            if not trial.closed:
                self.scheduler.add(trial)

    def requeue(self, event: Lost | Failed) -> None:
        """Queues what a lost or failed task did not finish again."""
        if isinstance(event, Lost):
            self.release(self.scheduler.on_lost(event))
        else:
            self.release(self.scheduler.on_failed(event))

    def retry(self, trial: Trial, test: HypothesisTest) -> None:
        """Measures a failed hypothesis or reading again, from the first block that was not
        counted.
        """
        assert self.scheduler.idle, "failures are tried again before anything is asked"
        self.reopen(trial, test)

    def reopen(self, trial: Trial, test: HypothesisTest) -> None:
        """Adds a hypothesis to a trial that may be closed; it is measured on from the first block
        that was not counted.
        """
        if trial.closed:
            trial.reopen()
        self.join(trial, test)

    def extend(self, blocks: Callable[[int], tuple[Block, ...]], parts: Collection[int]) -> None:
        """Gives all trials on some parts of the test pairs the blocks that these have now."""
        for trial in self._trials.values():
            if trial.split == "test" and trial.part in parts:
                before = trial.at_most
                trial.blocks = blocks(trial.part)
                self.at_most += trial.at_most - before

    def count_failure(self, split: Split, attempt: FailedAttempt, part: int) -> Trial | None:
        """Counts a failed attempt of a single intervention; returns its trial after three in a row
        at its next block.

        A failure further ahead, or in a run of several blocks, only makes the trial go block by
        block. The blocks before decide whether that block is reached at all, so no verdict may
        depend on how far ahead a task was cut.
        """
        trial = self.trial((split, attempt.intervention, part))
        if trial is None or trial.closed:
            return None
        trial.one_block = True
        if attempt.blocks != (trial.next_block,):
            return None
        trial.failed_attempts += 1
        return trial if trial.failed_attempts >= QUARANTINE else None

    def validate(self, decided: Mapping[str, Decided]) -> None:
        """Checks the invariants; for tests."""
        places = Counter(trial.key for trial in self.scheduler.places() if not trial.closed)
        for key, trial in self._trials.items():
            assert places[key] == (not trial.closed), (key, "stands in", places[key], "places")
            assert trial.closed or not trial.exhausted, (
                key,
                "has seen everything and is not decided",
            )
            assert all(
                c.hypothesis.id not in decided or trial.split == "holdout" for c in trial.tests
            ), key
            assert not trial.blocks or trial.counted <= len(trial.blocks), key
        assert self.at_most == sum(trial.at_most for trial in self._trials.values())
