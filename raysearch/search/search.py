"""The search: a brain without I/O. Tasks out (`ask`), events in and notes out (`tell`); no clock,
no torch, no ray.

Invariants (`validate` checks them): verdicts are a function of the job and the outputs alone,
whatever the order of arrival, the losses and the repeats; evidence is counted in block order; a
decided hypothesis is never asked about again; nothing is cancelled.
"""

from collections.abc import Mapping, Sequence

from raysearch.causal import Split
from raysearch.core.events import (
    Attributed,
    Failed,
    Fitted,
    JournalledEvent,
    Lost,
    Measured,
    Retried,
    Screened,
    Task,
)
from raysearch.core.fit_keys import FitKeys
from raysearch.core.hypothesis import Hypothesis, Intervention
from raysearch.core.records import (
    Conflicted,
    Decided,
    Estimated,
    Proposed,
    Reading,
    Record,
    Snapshot,
    Stage,
    VerdictName,
)
from raysearch.proposers.attribution import AttributionPlan
from raysearch.proposers.base import AlphaSpending, Proposer
from raysearch.proposers.generations import Generation, Generations
from raysearch.search.criteria import Criterion, DecisionRule
from raysearch.search.fit_results import WaitingForFits
from raysearch.search.holdout import HoldoutEstimates
from raysearch.search.measuring import Measuring
from raysearch.search.pair_blocks import ExpectedAnswers
from raysearch.search.preparation import Preparation
from raysearch.search.scheduler import QUARANTINE
from raysearch.search.screening import ScreeningPlan
from raysearch.search.trial import AS_THEY_ARE, HypothesisTest, Trial
from raysearch.search.verdicts import Verdicts
from raysearch.stats.e_process import AnytimeTest

EVIDENCE_VERSION = 7
"""Raised when numerics, test, looks or proposers change: verdicts of two versions do not mix in a
run."""


class Search:
    """A search over the hypotheses that `proposer` proposes.

    - `test`: as for independent draws; with `these_pairs` its population becomes the number of each
      variable's change pairs.
    - `pairs`: index -> what its outputs are held against, in the order of measuring.
    - `rows`: size of a task in pairs x interventions, about what a replica runs in a second or a
      few.
    - `fit`: how subspaces are fit, where the proposer proposes such.
    - `controls`: which are tested beside every accepted hypothesis.
    - `rule`: which pairs decide, and when evidence is looked at.
    - `attribution`: what is estimated before anything is proposed, for a proposer that asks for it.
    """

    def __init__(
        self,
        proposer: Proposer,
        test: AnytimeTest,
        pairs: Mapping[int, ExpectedAnswers],
        plan: ScreeningPlan,
        these_pairs: bool = False,
        rows: int = 64,
        fit: FitKeys | None = None,
        controls: Sequence[str] = (),
        rule: DecisionRule = DecisionRule(),
        attribution: AttributionPlan | None = None,
    ) -> None:
        self._generations = Generations(proposer, controls, fit is not None and fit.warm_start)
        self._spending = AlphaSpending(proposer)
        self._pairs = pairs
        self.these_pairs = these_pairs
        self.ground = Preparation(
            pairs, plan, test, these_pairs, fit is not None, rule, attribution
        )
        self.screening = self.ground.screening
        self._measuring = Measuring(rows)
        self._fit = fit
        self._enough = test.threshold / 2
        self._fitting = WaitingForFits(fit or FitKeys(), self._enough, ())
        self._rule = rule
        self._verdicts = Verdicts()
        self._estimates = HoldoutEstimates()
        self._next_task = 0
        self._pairs_seen = 0
        self._conflicts = 0

    @property
    def done(self) -> bool:
        """Whether every proposed hypothesis has its verdict, every accepted one its estimate, and
        nothing more is proposed."""
        return self._generations.over and not self._verdicts.alive and not self._estimates.open

    @property
    def verdicts(self) -> Mapping[str, Decided]:
        """The verdicts so far, by hypothesis id."""
        return self._verdicts.decided

    @property
    def failed(self) -> Retried:
        """What may be tried again, controls too: the event to journal, and to tell a search that
        was told all before it."""
        verdicts = self._verdicts
        return Retried(tuple(verdicts.failed), tuple(verdicts.unfit), tuple(self._estimates.short))

    @property
    def estimates(self) -> Mapping[str, Estimated]:
        """The holdout estimates of accepted hypotheses, by hypothesis id."""
        return self._estimates.done

    def ask(self, n: int) -> list[Task]:
        """Up to `n` tasks for `n` idle workers; fewer, or none, where all that could be asked is
        out."""
        tasks: list[Task] = []
        while len(tasks) < n:
            task = self._next(n - len(tasks))
            if task is None:
                break
            self._next_task += 1
            tasks.append(task)
        return tasks

    def _next(self, idle: int) -> Task | None:
        if not self.ground.done:
            return self.ground.ask(self._next_task)
        return self._fitting.training.ask(self._next_task) or self._measuring.dispatch.ask(
            self._next_task, idle
        )

    def tell(self, events: Sequence[JournalledEvent]) -> list[Record]:
        """Takes what was seen. Raises: SearchFailedError where screening cannot be done."""
        notes: list[Record] = []
        for event in events:
            if isinstance(event, Retried):
                self._on_retried(event)
                continue
            self._next_task = max(self._next_task, event.task + 1)
            match event:
                case Screened() | Attributed():
                    self._on_ground(event, notes)
                case Fitted():
                    self._on_fitted(event, notes)
                case Measured():
                    self._on_measured(event, notes)
                case Lost():
                    self._on_lost(event, notes)
                case Failed():
                    self._on_failed(event, notes)
        return notes

    def snapshot(self) -> Snapshot:
        """Where the search stands."""
        training, dispatch, verdicts = (
            self._fitting.training,
            self._measuring.dispatch,
            self._verdicts,
        )
        return Snapshot(
            stage=self._stage,
            alive=verdicts.asked_alive,
            accepted=verdicts.count("accept"),
            rejected=verdicts.count("reject"),
            undecided=verdicts.count("undecided"),
            failed=verdicts.count("failed"),
            pairs=self._pairs_seen,
            at_most=self._measuring.at_most + len(self._fitting) * self._test_pairs,
            queued=dispatch.queued + training.queued + self.ground.queued,
            out=dispatch.out + training.out + self.ground.out,
            conflicts=self._conflicts,
            fitting=training.going,
        )

    @property
    def _stage(self) -> Stage:
        if self.done:
            return "done"
        if not self.ground.done:
            return self.ground.stage
        return "searching" if self._verdicts.asked_alive else "estimating"

    def validate(self) -> None:
        """Checks the invariants; for tests."""
        self._measuring.validate(self.verdicts)
        self._verdicts.validate()
        assert self._verdicts.alive == self._measuring.cases + self._fitting.cases
        assert self.done == (
            self._generations.over and self._measuring.closed and not self._fitting
        )
        self._fitting.training.validate()

    # --- groundwork

    def _on_ground(self, event: Screened | Attributed, notes: list[Record]) -> None:
        was_done = self.ground.done
        notes += self.ground.tell(event)
        if was_done or not self.ground.done:
            return
        if self._fit is not None:
            self._fitting = WaitingForFits(self._fit, self._enough, self.screening.blocks("fit"))
        self._propose(notes)

    # --- measuring

    def _propose(self, notes: list[Record]) -> None:
        """Asks for the next generations until one has something new, or there are none."""
        while not self._verdicts.alive:
            generation = self._generations.next(
                self.verdicts, self._fitting.size_of, self.ground.effects
            )
            if generation is None:
                return
            self._enter(generation, notes)

    def _enter(self, generation: Generation, notes: list[Record]) -> None:
        """Each new hypothesis once; what is to be fit first is."""
        by_intervention: dict[str, tuple[Intervention, list[HypothesisTest]]] = {}
        new = {h.id: h for h in generation.hypotheses if h.id not in self.verdicts}.values()
        self._spending.enter(new)
        for hypothesis in new:
            cases = by_intervention.setdefault(
                hypothesis.intervention.id, (hypothesis.intervention, [])
            )[1]
            cases.append(self._case(hypothesis))
            notes.append(Proposed(hypothesis, generation.by, generation.number))
            self._verdicts.enter(hypothesis)
        self._fitting.add([found for found in by_intervention.values() if found[0].is_fitted])
        for intervention, cases in by_intervention.values():
            if (line := self._measuring.line(("test", intervention.key))) is not None:
                self._reopen(line, cases, notes)
            elif not intervention.is_fitted:
                self._open(intervention, "test", cases, notes)

    def _case(self, hypothesis: Hypothesis, reading: Reading | None = None) -> HypothesisTest:
        arbitrary = hypothesis.intervention.control == "arbitrary_labels"
        labels = self.ground.standards.labels[hypothesis.variable] if arbitrary else AS_THEY_ARE
        unfiltered = self._rule.kinds == "unfiltered"
        return HypothesisTest(
            hypothesis,
            labels=labels,
            reading=reading,
            unfiltered=unfiltered,
            scored=self.ground.scored,
        )

    def _standard(self, hypothesis: Hypothesis) -> Criterion:
        standard, among = self.ground.standards.of(hypothesis), self._spending.of(hypothesis)
        return standard if among is None else standard.among(among)

    @property
    def _test_pairs(self) -> int:
        return sum(len(b.pairs) for b in self.screening.blocks("test")) if self.ground.done else 0

    # --- fitting

    def _on_fitted(self, event: Fitted, notes: list[Record]) -> None:
        told, contradicts = self._fitting.training.tell(event)
        notes += told
        if contradicts:
            self._conflicts += 1
            notes.append(Conflicted(event))
        self._open_fitted(notes)

    def _open_fitted(self, notes: list[Record]) -> None:
        """Those whose training has ended are measured with what came of it."""
        for through in self._fitting.through():
            if through.failure is None:
                self._open(through.intervention, "test", through.cases, notes)
                continue
            for case in through.cases:
                self._decide(None, case, "failed", through.failure, notes)

    def _open(
        self,
        intervention: Intervention,
        split: Split,
        cases: list[HypothesisTest],
        notes: list[Record],
    ) -> None:
        line = Trial(intervention, split, self.screening.blocks(split), cases)
        self._measuring.open(line)
        if line.exhausted:
            self._finish(line, notes)

    def _on_measured(self, event: Measured, notes: list[Record]) -> None:
        line = self._measuring.line((event.split, event.intervention))
        assert line is not None, (event.key, "was never asked for")
        taken = line.take(event)
        if taken == "first":
            self._pairs_seen += len(event.pairs)
        elif taken == "conflict":
            self._conflicts += 1
            notes.append(Conflicted(event))
        self._count(line, notes)
        self._measuring.settle(line, event)

    def _count(self, line: Trial, notes: list[Record]) -> None:
        while (counted := line.next_counted()) is not None:
            notes.append(counted)
            self._measuring.counted(counted.observation)
            pairs = [self._pairs[p] for p in counted.observation.pairs]
            for case in line.cases:
                case.count(counted.observation, pairs)
            for case in tuple(line.cases) if line.split == "test" else ():
                self._look(line, case, line.counted, notes)
            if line.exhausted and not line.closed:
                self._finish(line, notes)

    def _reopen(self, line: Trial, cases: list[HypothesisTest], notes: list[Record]) -> None:
        """A control of one variable turns out, in a later generation, to be that of another: each
        goes once through what was counted."""
        for case in cases:
            self._measuring.reopen(line, case)
        for case in cases:
            for blocks, seen in enumerate(line.read, start=1):
                if case in line.cases:
                    case.count(seen, [self._pairs[p] for p in seen.pairs])
                    self._look(line, case, blocks, notes)
            if case in line.cases and line.exhausted:
                self._decide(line, case, "undecided", None, notes)

    def _look(self, line: Trial, case: HypothesisTest, blocks: int, notes: list[Record]) -> None:
        """Judges a case that has seen so many blocks."""
        if self._rule.at_end and blocks < len(line.blocks):
            return
        verdict = self._standard(case.hypothesis).verdict(case.evidence, case.keep)
        if verdict is not None:
            self._decide(line, case, verdict, None, notes)

    def _finish(self, line: Trial, notes: list[Record]) -> None:
        """The line has seen all there is: what is open is undecided, or estimated."""
        for case in tuple(line.cases):
            if line.split == "test":
                self._decide(line, case, "undecided", None, notes)
            else:
                self._read(line, case, notes)

    def _decide(
        self,
        line: Trial | None,
        case: HypothesisTest,
        verdict: VerdictName,
        reason: str | None,
        notes: list[Record],
    ) -> None:
        variable, fit = case.hypothesis.variable, None if line is None else line.intervention.fit
        decided = case.decided(
            verdict,
            self._standard(case.hypothesis),
            self.ground.standards.base_match[variable],
            reason,
            fit,
        )
        notes.append(decided)
        self._verdicts.decide(decided, case, line)
        if line is not None:
            self._measuring.drop(line, case)
        if verdict == "accept" and line is not None:
            self._generations.accepted(case.hypothesis)
            self._open_readings(case.hypothesis, line.intervention, notes)
        if not self._verdicts.alive:
            self._propose(notes)

    # --- estimating

    def _open_readings(
        self, hypothesis: Hypothesis, intervention: Intervention, notes: list[Record]
    ) -> None:
        seeds = self._fitting.seeds(intervention)
        for reading, read in self._estimates.begin(hypothesis, intervention, seeds):
            self._open_reading(self._case(hypothesis, reading), read, notes)

    def _open_reading(
        self, case: HypothesisTest, intervention: Intervention, notes: list[Record]
    ) -> None:
        line = self._measuring.line(("holdout", intervention.key))
        if line is None:
            self._open(intervention, "holdout", [case], notes)
            return
        for seen in line.read:
            case.count(seen, [self._pairs[p] for p in seen.pairs])
        if line.exhausted or line.strikes >= QUARANTINE:
            line.cases.append(case)
            self._read(line, case, notes)
            return
        self._measuring.join(line, case)

    def _read(self, line: Trial, case: HypothesisTest, notes: list[Record]) -> None:
        """A reading is done; the last of a hypothesis makes its estimate."""
        self._measuring.drop(line, case)
        estimated = self._estimates.take(case, line)
        if estimated is not None:
            notes.append(estimated)

    # --- losses and failures

    def _on_lost(self, event: Lost, notes: list[Record]) -> None:
        self.ground.again(event)
        if event.counts and len(event.group) == 1:
            self._strike(
                event, event.group[0], event.blocks, f"{event.message} ({event.cause})", notes
            )
        self._measuring.release(self._measuring.dispatch.lost(event))
        notes += self._fitting.training.lost(event)
        self._open_fitted(notes)

    def _on_failed(self, event: Failed, notes: list[Record]) -> None:
        self.ground.again(event)
        reason = f"{event.error_type}: {event.message}"
        if event.intervention is not None and event.block is not None:
            self._strike(event, event.intervention, (event.block,), reason, notes)
        elif len(event.group) == 1:
            self._strike(event, event.group[0], event.blocks, reason, notes)
        self._measuring.release(self._measuring.dispatch.failed(event))
        notes += self._fitting.training.failed(event)
        self._open_fitted(notes)

    def _strike(
        self,
        event: Lost | Failed,
        intervention: str,
        blocks: tuple[int, ...],
        reason: str,
        notes: list[Record],
    ) -> None:
        """Counts a failed attempt of a single intervention; after three in a row at its next block
        it is quarantined.

        What fails further ahead, or in a run of several blocks, only makes it careful: whether it
        is reached at all is for the blocks before to say, so that no verdict depends on how far
        ahead a task was taken.
        """
        line = self._measuring.line((event.split, intervention))
        if line is None or line.closed:
            return
        line.careful = True
        if blocks != (line.counted,):
            return
        line.strikes += 1
        if line.strikes >= QUARANTINE:
            for case in tuple(line.cases):
                if line.split == "test":
                    self._decide(line, case, "failed", reason, notes)
                else:
                    self._read(line, case, notes)

    def _on_retried(self, event: Retried) -> None:
        """What failed is alive again: measured on after the last block that was counted, or fit
        from the beginning."""
        assert not event.nothing, "nothing is tried again"
        unfit: dict[str, tuple[Intervention, list[HypothesisTest]]] = {}
        for failure in self._verdicts.withdraw(event.hypotheses):
            intervention = failure.case.hypothesis.intervention
            if failure.line is not None:
                self._measuring.again(failure.line, failure.case)
            else:
                unfit.setdefault(intervention.id, (intervention, []))[1].append(failure.case)
        self._fitting.again(list(unfit.values()))
        for name in event.estimates:
            for line, case in self._estimates.again(name):
                self._measuring.again(line, case)
        if event.hypotheses:
            self._generations.again()
