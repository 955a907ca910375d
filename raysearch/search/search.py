"""The search: a brain without I/O. Tasks out (`ask`), events in and notes out (`tell`); no clock, no torch, no ray.

Invariants (`validate` checks them): verdicts are a function of the job and the outputs alone, whatever the order of arrival, the
losses and the repeats; evidence is counted in block order; a decided hypothesis is never asked about again; nothing is cancelled.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from raysearch.causal import Split
from raysearch.errors import PairsError
from raysearch.search.blocks import Expected, check_variables
from raysearch.search.dispatch import QUARANTINE, Dispatch
from raysearch.search.events import (
    Block,
    Conflicted,
    Decided,
    Estimated,
    Event,
    Failed,
    Lost,
    Measured,
    Note,
    Proposed,
    Screened,
    Snapshot,
    Stage,
    Task,
    VerdictName,
)
from raysearch.search.hypothesis import Hypothesis, Intervention
from raysearch.search.lines import Case, Line, LineKey
from raysearch.search.proposers import Known, Proposer
from raysearch.search.screening import Plan, Screening
from raysearch.search.sequential import SequentialTest

EVIDENCE_VERSION = 3
"""Raised when numerics, test, looks or proposers change: verdicts of two versions do not mix in a run."""


class Search:
    """A search over the hypotheses that `proposer` proposes.

    - `test`: as for independent draws; with `these_pairs` its population becomes the number of each variable's change pairs.
    - `pairs`: index -> what its outputs are held against, in the order of measuring.
    - `rows`: size of a task in pairs x interventions, about what a replica runs in a second or a few.
    """

    def __init__(
        self,
        proposer: Proposer,
        test: SequentialTest,
        pairs: Mapping[int, Expected],
        plan: Plan,
        these_pairs: bool = False,
        rows: int = 64,
    ) -> None:
        self._proposer = proposer
        self._test = test
        self._pairs = pairs
        self.these_pairs = these_pairs
        self.screening = Screening(pairs, plan)
        self._screening_out: dict[int, Block] = {}
        self._dispatch = Dispatch(rows)
        self._tests: dict[str, SequentialTest] = {}
        self._base_match: dict[str, float | None] = {}
        self._lines: dict[LineKey, Line] = {}
        self._decided: dict[str, Decided] = {}
        self._estimated: dict[str, Estimated] = {}
        self._tally: Counter[VerdictName] = Counter()
        self._generations = 0
        self._silent = False
        self._next_task = 0
        self._alive = 0
        self._pairs_seen = 0
        self._conflicts = 0
        self._at_most = 0

    @property
    def done(self) -> bool:
        """Whether every proposed hypothesis has its verdict, every accepted one its estimate, and nothing more is proposed."""
        return self._silent and not self._alive and self._tally["accept"] == len(self._estimated)

    @property
    def verdicts(self) -> Mapping[str, Decided]:
        """The verdicts so far, by hypothesis id."""
        return self._decided

    @property
    def estimates(self) -> Mapping[str, Estimated]:
        """The holdout estimates of accepted hypotheses, by hypothesis id."""
        return self._estimated

    def ask(self, n: int) -> list[Task]:
        """Up to `n` tasks for `n` idle workers; fewer, or none, where all that could be asked is out."""
        tasks: list[Task] = []
        while len(tasks) < n:
            task = self._dispatch.ask(self._next_task, n - len(tasks)) if self._tests else self._ask_screening()
            if task is None:
                break
            self._next_task += 1
            tasks.append(task)
        return tasks

    def tell(self, events: Sequence[Event]) -> list[Note]:
        """Takes what was seen. Raises: SearchFailedError where screening cannot be done."""
        notes: list[Note] = []
        for event in events:
            self._next_task = max(self._next_task, event.task + 1)
            match event:
                case Screened():
                    self._on_screened(event, notes)
                case Measured():
                    self._on_measured(event, notes)
                case Lost():
                    self._on_lost(event, notes)
                case Failed():
                    self._on_failed(event, notes)
        return notes

    def snapshot(self) -> Snapshot:
        """Where the search stands."""
        return Snapshot(
            stage=self._stage,
            alive=self._alive,
            accepted=self._tally["accept"],
            rejected=self._tally["reject"],
            undecided=self._tally["undecided"],
            failed=self._tally["failed"],
            pairs=self._pairs_seen,
            at_most=self._at_most,
            queued=self._dispatch.queued + self.screening.queued,
            out=self._dispatch.out + len(self._screening_out),
            conflicts=self._conflicts,
        )

    @property
    def _stage(self) -> Stage:
        if self.done:
            return "done"
        if not self._tests:
            return "screening"
        return "searching" if self._alive else "estimating"

    def validate(self) -> None:
        """Checks the invariants; for tests."""
        places = Counter(line.key for line in self._dispatch.places() if not line.closed)
        for key, line in self._lines.items():
            assert places[key] == (not line.closed), (key, "stands in", places[key], "places")
            assert line.closed or not line.exhausted, (key, "has seen everything and is not decided")
            assert all(c.hypothesis.id not in self._decided or line.split == "holdout" for c in line.cases), key
            assert not line.blocks or line.counted <= len(line.blocks), key
        measuring = [line for line in self._lines.values() if line.split == "test"]
        assert self._alive == sum(len(line.cases) for line in measuring)
        assert sum(self._tally.values()) == len(self._decided)
        assert self._at_most == sum(line.at_most for line in self._lines.values())
        assert self.done == (self._silent and all(line.closed for line in self._lines.values()))

    # --- screening

    def _ask_screening(self) -> Task | None:
        block = self.screening.ask()
        if block is None:
            return None
        self._screening_out[self._next_task] = block
        return Task(self._next_task, "screen", (), (block,))

    def _on_screened(self, event: Screened, notes: list[Note]) -> None:
        self._screening_out.pop(event.task, None)
        if self._tests or not self.screening.tell(event) or not self.screening.done:
            return
        notes.append(self.screening.blocked())
        self._check_solved()
        self._set_tests()
        self._propose(notes)

    def _check_solved(self) -> None:
        screened, solved, _ = self.screening.counts("test")
        if not self.screening.blocks("test"):
            raise PairsError(
                f"the model solves {solved} of the {screened} test pairs that it was given, without any intervention; "
                "a search needs pairs whose base and source it answers as the causal model does: "
                "change the problem or the model (is the leading blank of the answers there?), or set pairs.solved_only: false"
            )
        used = [self._pairs[p] for p in self.screening.usable("test")]
        check_variables(used, f"{len(used)} test pairs that the model solves")

    def _set_tests(self) -> None:
        """Fixes the test of each variable, and its match rate without intervention over all screened test pairs."""
        used = [self._pairs[p] for p in self.screening.usable("test")]
        screened = [(e, out) for p, e in self._pairs.items() if e.split == "test" and (out := self.screening.output(p))]
        for v in used[0].counterfactual:
            population = sum(e.changes(v) for e in used)
            self._tests[v] = replace(self._test, population=population) if self.these_pairs else self._test
            matches = sum(out == e.counterfactual[v] for e, out in screened)
            self._base_match[v] = matches / len(screened) if screened else None

    # --- measuring

    def _propose(self, notes: list[Note]) -> None:
        """Asks the proposer for the next generations until one has something new, or it is silent."""
        while not self._alive and not self._silent:
            known = Known(self._generations, self._decided)
            proposals = tuple({h.id: h for h in self._proposer.propose(known) if h.id not in self._decided}.values())
            self._silent = not proposals
            by_intervention: dict[str, tuple[Intervention, list[Case]]] = {}
            for hypothesis in proposals:
                cases = by_intervention.setdefault(hypothesis.intervention.id, (hypothesis.intervention, []))[1]
                cases.append(Case(hypothesis))
                notes.append(Proposed(hypothesis, self._proposer.name, self._generations))
            self._generations += 1
            for intervention, cases in by_intervention.values():
                self._open(intervention, "test", cases, notes)

    def _open(self, intervention: Intervention, split: Split, cases: list[Case], notes: list[Note]) -> None:
        line = Line(intervention, split, self.screening.blocks(split), cases)
        assert line.key not in self._lines, "an intervention is proposed once, with all its variables"
        self._lines[line.key] = line
        self._alive += len(cases) if split == "test" else 0
        self._at_most += line.at_most
        if line.exhausted:
            self._finish(line, notes)
        else:
            self._dispatch.add(line)

    def _on_measured(self, event: Measured, notes: list[Note]) -> None:
        line = self._lines[event.split, event.intervention]
        if line.take(event):
            self._pairs_seen += len(event.pairs)
        elif line.seen[event.block].outputs != event.outputs:
            self._conflicts += 1
            notes.append(Conflicted(event))
        self._count(line, notes)
        if self._dispatch.is_ready(line):  # told of a block that nobody here had asked for: a replay, or a late repeat
            self._dispatch.remove(line)
            self._release([line])
        self._release(self._dispatch.measured(event))

    def _count(self, line: Line, notes: list[Note]) -> None:
        while (counted := line.next_counted()) is not None:
            notes.append(counted)
            self._at_most -= len(counted.observation.pairs)
            pairs = [self._pairs[p] for p in counted.observation.pairs]
            for case in line.cases:
                case.count(counted.observation, pairs)
            if line.split == "test":
                self._look(line, notes)
            if line.exhausted and not line.closed:
                self._finish(line, notes)

    def _look(self, line: Line, notes: list[Note]) -> None:
        for case in tuple(line.cases):
            verdict = self._tests[case.hypothesis.variable].verdict(case.evidence)
            if verdict is not None:
                self._decide(line, case, verdict, None, notes)

    def _finish(self, line: Line, notes: list[Note]) -> None:
        """The line has seen all there is: what is open is undecided, or estimated."""
        for case in tuple(line.cases):
            if line.split == "test":
                self._decide(line, case, "undecided", None, notes)
            else:
                self._estimate(line, case, notes)

    def _decide(self, line: Line, case: Case, verdict: VerdictName, reason: str | None, notes: list[Note]) -> None:
        test = self._tests[case.hypothesis.variable]
        low, high = test.interval(case.evidence)
        up, down = test.log_evidence(case.evidence)
        decided = Decided(
            hypothesis=case.hypothesis,
            verdict=verdict,
            n=case.evidence.n,
            matches=case.evidence.matches,
            low=low,
            high=high,
            keep_n=case.keep.n,
            keep_matches=case.keep.matches,
            copies=case.copies,
            base_match_unfiltered=self._base_match[case.hypothesis.variable],
            log_evidence=up if verdict == "accept" else down if verdict == "reject" else max(up, down),
            claim=test.claim,
            reason=reason,
        )
        notes.append(decided)
        self._decided[case.hypothesis.id] = decided
        self._tally[verdict] += 1
        self._alive -= 1
        self._drop(line, case)
        if verdict == "accept":
            self._open_estimate(case.hypothesis, notes)
        if not self._alive:
            self._propose(notes)

    def _open_estimate(self, hypothesis: Hypothesis, notes: list[Note]) -> None:
        key: LineKey = ("holdout", hypothesis.intervention.id)
        line = self._lines.get(key)
        case = Case(hypothesis)
        if line is None:
            self._open(hypothesis.intervention, "holdout", [case], notes)
            return
        for block in range(line.counted):
            seen = line.seen[block]
            case.count(seen, [self._pairs[p] for p in seen.pairs])
        if line.exhausted or line.strikes >= QUARANTINE:
            line.cases.append(case)
            self._estimate(line, case, notes)
            return
        self._at_most -= line.at_most
        line.cases.append(case)
        self._at_most += line.at_most

    def _estimate(self, line: Line, case: Case, notes: list[Note]) -> None:
        estimated = Estimated(case.hypothesis, case.evidence.n, case.evidence.matches)
        notes.append(estimated)
        self._estimated[case.hypothesis.id] = estimated
        self._drop(line, case)

    def _drop(self, line: Line, case: Case) -> None:
        before = line.at_most
        line.cases.remove(case)
        self._at_most += line.at_most - before
        if line.closed:
            self._dispatch.remove(line)

    def _release(self, lines: Sequence[Line]) -> None:
        for line in lines:
            if not line.closed:
                self._dispatch.add(line)

    # --- losses and failures

    def _on_lost(self, event: Lost, notes: list[Note]) -> None:
        block = self._screening_out.pop(event.task, None)
        if block is not None:
            self.screening.again(block, event)
        if event.cause != "node" and len(event.group) == 1:
            self._strike(event, event.group[0], event.blocks, f"{event.message} ({event.cause})", notes)
        self._release(self._dispatch.lost(event))

    def _on_failed(self, event: Failed, notes: list[Note]) -> None:
        block = self._screening_out.pop(event.task, None)
        if block is not None:
            self.screening.again(block, event)
        reason = f"{event.error_type}: {event.message}"
        if event.intervention is not None and event.block is not None:
            self._strike(event, event.intervention, (event.block,), reason, notes)
        elif len(event.group) == 1:
            self._strike(event, event.group[0], event.blocks, reason, notes)
        self._release(self._dispatch.failed(event))

    def _strike(
        self, event: Lost | Failed, intervention: str, blocks: tuple[int, ...], reason: str, notes: list[Note]
    ) -> None:
        """Counts a failed attempt of a single intervention; after three in a row at its next block it is quarantined.

        What fails further ahead, or in a run of several blocks, only makes it careful: whether it is reached at all is for the
        blocks before to say, so that no verdict depends on how far ahead a task was taken.
        """
        line = self._lines.get((event.split, intervention))
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
                    self._estimate(line, case, notes)
