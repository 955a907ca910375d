"""Holdout estimates: measures each accepted hypothesis, its cheap controls and its seeds on holdout
pairs.

An estimate and its seeds use as many pairs as the width of its interval needs, which is settled by
the test pairs alone. A control starts when the estimate is there, and stops after any block at
which the paired test tells the two apart, or has shown that they differ by little.

Invariants: an estimate is complete when all of its readings have ended or failed; every complete
one has the same controls, and all seeds; how many pairs a reading uses is a function of the job and
of outputs, whatever the order of arrival.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from raysearch.core.control_kinds import HOLDOUT_CONTROLS
from raysearch.core.controls import swaps_nothing, with_control
from raysearch.core.events import Fitted
from raysearch.core.hypothesis import Intervention
from raysearch.core.records import Estimated, Reading, Record
from raysearch.search.pair_blocks import ExpectedAnswers
from raysearch.search.preparation import Preparation
from raysearch.search.scheduler import QUARANTINE
from raysearch.search.trial import HypothesisTest, Trial
from raysearch.search.trial_registry import TrialRegistry
from raysearch.stats.anytime_test import AnytimeTest
from raysearch.stats.clopper_pearson import clopper_pearson, pairs_for_width
from raysearch.stats.evidence import Evidence
from raysearch.stats.paired_test import PairedTest

ALIKE = 2
"""A control does as well once the hypothesis is shown to be ahead by no more than this many half
widths of its own interval: the two intervals could not be told apart."""


@dataclass
class _Open:
    """An estimate in progress, or one that failed: the hypothesis's own reading, the number of
    readings to come, and those that failed with their trials.
    """

    main: HypothesisTest
    intervention: Intervention
    waiting: int
    readings: list[Reading] = field(default_factory=list)
    incomplete: list[tuple[Trial, HypothesisTest]] = field(default_factory=list)


class HoldoutEstimates:
    """Takes accepted hypotheses and returns an `Estimated` record for each.

    Args:
        test: the test of the search, for intervals of scores.
        half_width: half the width that the interval of an estimate is to have; 0 uses all pairs.
    """

    def __init__(
        self,
        registry: TrialRegistry,
        preparation: Preparation,
        pairs: Mapping[int, ExpectedAnswers],
        test: AnytimeTest,
        half_width: float,
    ) -> None:
        self._registry = registry
        self._preparation = preparation
        self._pairs = pairs
        self._test = test
        self._half_width = half_width
        self._open: dict[str, _Open] = {}
        self._done: dict[str, Estimated] = {}
        self._incomplete: dict[str, _Open] = {}

    @property
    def incomplete(self) -> list[str]:
        """Ids of the hypotheses with a reading that failed."""
        return sorted(
            [*self._incomplete, *(name for name, found in self._open.items() if found.incomplete)]
        )

    @property
    def open(self) -> int:
        """Number of estimates in progress."""
        return len(self._open)

    @property
    def done(self) -> Mapping[str, Estimated]:
        """Complete estimates by hypothesis id."""
        return self._done

    def start(
        self, accepted: HypothesisTest, intervention: Intervention, seeds: Sequence[Fitted]
    ) -> list[Record]:
        """Starts the estimate of an accepted hypothesis, with the last event of each of its
        `seeds`, if anything was fit; returns it if all was measured before.
        """
        found: list[Record] = []
        main = self._new_reading(accepted, None, None)
        main.most = self._blocks_needed(accepted, main)
        self._open[accepted.hypothesis.id] = _Open(main, intervention, 1 + len(seeds))
        for e in seeds:
            seed = self._new_reading(main, Reading("seed", 0, 0, e.seed, e.fit), main.most)
            found += self._open_reading(seed, replace(intervention, fit=e.fit))
        return [*found, *self._open_reading(main, intervention)]

    def count(self, trial: Trial) -> list[Record]:
        """Counts what a trial has measured, and ends the readings that need no more."""
        found: list[Record] = []
        while not trial.closed and (counted := trial.next_counted()) is not None:
            found.append(counted)
            self._registry.counted(counted.observation)
            pairs = [self._pairs[p] for p in counted.observation.pairs]
            for test in trial.tests:
                test.count(counted.observation, pairs)
            for test in [t for t in trial.tests if self._is_over(t, trial.counted)]:
                self._registry.drop(trial, test)
                found += self._end_reading(test)
        return found

    def fail(self, test: HypothesisTest, trial: Trial) -> list[Record]:
        """Ends a reading that failed; returns the estimate if it was the last one."""
        self._registry.drop(trial, test)
        return self._fail(test, trial)

    def retry(self, name: str) -> list[tuple[Trial, HypothesisTest]]:
        """Returns the failed readings of a hypothesis, each with its trial, which are to be
        measured again.
        """
        if name in self._incomplete:
            self._open[name] = self._incomplete.pop(name)
            del self._done[name]
        found = self._open[name]
        incomplete, found.incomplete = found.incomplete, []
        found.waiting += len(incomplete)
        return incomplete

    def _new_reading(
        self, of: HypothesisTest, reading: Reading | None, most: int | None
    ) -> HypothesisTest:
        later = self._preparation.screening.tested_later
        return replace(
            self._preparation.new_test(of.hypothesis, reading),
            policy=None,
            most=most,
            values=[],
            left_out=later if of.values is None else of.left_out,
        )

    def _blocks_needed(self, accepted: HypothesisTest, main: HypothesisTest) -> int:
        """Returns the number of holdout blocks that have the pairs which the width needs."""
        blocks = self._preparation.screening.blocks("holdout")
        counts = [sum(main.counts(self._pairs[p]) for p in block.pairs) for block in blocks]
        seen = accepted.evidence
        total = seen.matches if accepted.score_scale is None else math.fsum(seen.scores)
        needed = pairs_for_width(seen.n, total, self._half_width, sum(counts))
        for used in range(len(blocks) + 1):
            if sum(counts[:used]) >= needed:
                return used
        raise AssertionError(needed)

    def _open_reading(self, test: HypothesisTest, intervention: Intervention) -> list[Record]:
        """Counts what was measured before for other hypotheses; what is missing is scheduled."""
        trial = self._registry.trial(("holdout", intervention.key, 0))
        if trial is None:
            blocks = self._preparation.screening.blocks("holdout")
            trial = Trial(intervention, "holdout", blocks, [])
            self._registry.open(trial)
        for at, seen in enumerate(trial.observations):
            if not self._is_over(test, at):
                test.count(seen, [self._pairs[p] for p in seen.pairs])
        if self._is_over(test, trial.counted):
            return self._end_reading(test)
        if trial.failed_attempts >= QUARANTINE:
            return self._fail(test, trial)
        self._registry.join(trial, test)
        return []

    def _is_over(self, test: HypothesisTest, blocks: int) -> bool:
        """Says whether a reading needs no more than the first `blocks` blocks: it has all that the
        width needs, or is a control that is decided."""
        assert test.most is not None, test
        if blocks >= test.most or test.reading is None:
            return blocks >= test.most
        if test.reading.name not in HOLDOUT_CONTROLS or not test.values:
            return False
        own = self._open[test.hypothesis.id].main.values or ()
        low, high = PairedTest().interval([x - y for x, y in zip(own, test.values, strict=False)])
        return low > 0 or high <= ALIKE * self._half_width

    def _start_controls(self, found: _Open) -> list[Record]:
        """Starts the controls of an estimate that has ended."""
        swaps = found.intervention.control is None and not found.intervention.is_ablation
        records: list[Record] = []
        for name, kind in HOLDOUT_CONTROLS.items() if swaps else ():
            found.waiting += 1
            test = self._new_reading(found.main, Reading(name, 0, 0), found.main.most)
            exact = swaps_nothing(found.intervention) and found.main.score_scale is None
            if kind.base_is_source and exact:
                test.evidence = self._without_intervention(test)
                records += self._end_reading(test)
            else:
                records += self._open_reading(test, with_control(found.intervention, name))
        return records

    def _without_intervention(self, test: HypothesisTest) -> Evidence:
        """Returns the matches of the model's own outputs, which screening has seen, on the pairs of
        a reading.
        """
        screening, variable = self._preparation.screening, test.hypothesis.variable
        counted = [(self._pairs[p], screening.output(p)) for p in self._used(test, test.most)]
        own = [(e, out) for e, out in counted if out is not None]
        return Evidence(len(own), sum(e.read(out) == e.counterfactual[variable] for e, out in own))

    def _used(self, test: HypothesisTest, first: int | None) -> list[int]:
        """Returns the holdout pairs that count for a reading, of the first blocks."""
        blocks = self._preparation.screening.blocks("holdout")[:first]
        return [p for block in blocks for p in block.pairs if test.counts(self._pairs[p])]

    def _end_reading(self, test: HypothesisTest) -> list[Record]:
        found, records = self._open[test.hypothesis.id], []
        if test.reading is None:
            records = self._start_controls(found)
        else:
            seen = test.evidence
            found.readings.append(
                replace(test.reading, n=seen.n, matches=seen.matches, score=seen.score)
            )
        return [*records, *self._end_one(found)]

    def _fail(self, test: HypothesisTest, trial: Trial) -> list[Record]:
        found = self._open[test.hypothesis.id]
        found.incomplete.append((trial, test))
        return self._end_one(found)

    def _end_one(self, found: _Open) -> list[Record]:
        """Counts a reading as ended; returns the estimate if it was the last one."""
        found.waiting -= 1
        if found.waiting:
            return []
        hypothesis, seen = found.main.hypothesis, found.main.evidence
        del self._open[hypothesis.id]
        if found.incomplete:
            self._incomplete[hypothesis.id] = found
        readings = sorted(found.readings, key=lambda r: (r.name, r.seed or 0))
        low, high = self._interval(seen) if seen.n else (None, None)
        own = {self._pairs[p].contents or p for p in self._used(found.main, found.main.blocks)}
        estimated = Estimated(
            hypothesis, seen.n, seen.matches, tuple(readings), seen.score, low, high, len(own)
        )
        self._done[hypothesis.id] = estimated
        return [estimated]

    def _interval(self, seen: Evidence) -> tuple[float, float]:
        """Returns the 95 % interval of an estimate: how many pairs it has was settled by others."""
        if seen.scores:
            return self._test.interval(seen)
        return clopper_pearson(seen.n, seen.matches)
