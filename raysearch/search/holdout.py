"""Holdout estimates: measures each accepted hypothesis, its cheap controls and its seeds on holdout
pairs.

Invariants: an estimate is complete when all of its readings have ended or failed; every estimate
has the same controls, and all seeds.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from raysearch.core.controls import HOLDOUT_CONTROLS, with_control
from raysearch.core.events import Fitted
from raysearch.core.hypothesis import Hypothesis, Intervention
from raysearch.core.records import Estimated, Reading
from raysearch.search.pair_blocks import ExpectedAnswers
from raysearch.search.scheduler import QUARANTINE
from raysearch.search.screening import Screening
from raysearch.search.trial import HypothesisTest, Trial
from raysearch.search.trial_registry import TrialRegistry
from raysearch.stats.evidence import Evidence


@dataclass
class _Open:
    """An estimate in progress, or one that failed: the number of readings to come, and those that
    failed with their trials.
    """

    waiting: int
    main: Evidence = Evidence()
    readings: list[Reading] = field(default_factory=list)
    incomplete: list[tuple[Trial, HypothesisTest]] = field(default_factory=list)


class HoldoutEstimates:
    """Takes accepted hypotheses and returns an `Estimated` record for each."""

    def __init__(
        self,
        registry: TrialRegistry,
        screening: Screening,
        pairs: Mapping[int, ExpectedAnswers],
    ) -> None:
        self._registry = registry
        self._screening = screening
        self._pairs = pairs
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
        self,
        hypothesis: Hypothesis,
        intervention: Intervention,
        seeds: Sequence[Fitted],
        new_test: Callable[[Hypothesis, Reading | None], HypothesisTest],
    ) -> list[Estimated]:
        """Starts the estimate of an accepted hypothesis; returns it if all was measured before."""
        found = []
        for reading, read in self._readings_of(hypothesis, intervention, seeds):
            found += self._open_reading(new_test(hypothesis, reading), read)
        return found

    def _open_reading(self, test: HypothesisTest, intervention: Intervention) -> list[Estimated]:
        trial = self._registry.trial(("holdout", intervention.key, 0))
        if trial is None:
            trial = Trial(intervention, "holdout", self._screening.blocks("holdout"), [test])
            self._registry.open(trial)
            return self.end_reading(test, trial) if trial.exhausted else []
        for seen in trial.observations:
            test.count(seen, [self._pairs[p] for p in seen.pairs])
        if trial.exhausted or trial.failed_attempts >= QUARANTINE:
            trial.tests.append(test)
            return self.end_reading(test, trial)
        self._registry.join(trial, test)
        return []

    def end_reading(self, test: HypothesisTest, trial: Trial) -> list[Estimated]:
        """Ends a reading; returns the estimate if it was the hypothesis's last one."""
        self._registry.drop(trial, test)
        estimated = self._add_reading(test, trial)
        return [] if estimated is None else [estimated]

    def _readings_of(
        self, hypothesis: Hypothesis, intervention: Intervention, seeds: Sequence[Fitted]
    ) -> Iterator[tuple[Reading | None, Intervention]]:
        """Yields (reading, intervention) to measure on the holdout.

        The reading None is the hypothesis itself; the others are its controls and its `seeds` (the
        last event of each seed, if anything was fit).
        """
        readings: list[tuple[Reading | None, Intervention]] = [(None, intervention)]
        if intervention.control is None and not intervention.is_ablation:
            readings += [
                (Reading(name, 0, 0), with_control(intervention, name)) for name in HOLDOUT_CONTROLS
            ]
        readings += [
            (Reading("seed", 0, 0, e.seed, e.fit), replace(intervention, fit=e.fit)) for e in seeds
        ]
        self._open[hypothesis.id] = _Open(len(readings))
        yield from readings

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
        retried = [_reading_key(test.reading) for _, test in incomplete]
        found.readings = [r for r in found.readings if _reading_key(r) not in retried]
        return incomplete

    def _add_reading(self, test: HypothesisTest, trial: Trial) -> Estimated | None:
        """Adds a reading that has ended or failed; returns the estimate if it was the last one."""
        name = test.hypothesis.id
        found = self._open[name]
        found.waiting -= 1
        if not trial.exhausted:
            found.incomplete.append((trial, test))
        if test.reading is None:
            found.main = test.evidence
        else:
            n, matches, score = test.evidence.n, test.evidence.matches, test.evidence.score
            found.readings.append(replace(test.reading, n=n, matches=matches, score=score))
        if found.waiting:
            return None
        del self._open[name]
        if found.incomplete:
            self._incomplete[name] = found
        readings = sorted(found.readings, key=lambda r: (r.name, r.seed or 0))
        main = found.main
        self._done[name] = Estimated(
            test.hypothesis, main.n, main.matches, tuple(readings), main.score
        )
        return self._done[name]


def _reading_key(reading: Reading | None) -> tuple[str, int | None] | None:
    return None if reading is None else (reading.name, reading.seed)
