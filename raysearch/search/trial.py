"""A trial: one intervention on the blocks of one split, with the hypotheses that are tested by it.

Invariants: blocks are counted in order, each once; a block is counted for a hypothesis only until
its verdict; the first observation of a block wins.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, TypeVar

from raysearch.causal import Split
from raysearch.core.control_kinds import HOLDOUT_CONTROLS
from raysearch.core.events import Block, Ids, Measured
from raysearch.core.hypothesis import Hypothesis, Intervention
from raysearch.core.records import (
    Counted,
    Decided,
    PolicyComparison,
    Reading,
    SetCount,
    VerdictName,
)
from raysearch.search.baseline_policies import Policy
from raysearch.search.criteria import Criterion
from raysearch.search.pair_blocks import ExpectedAnswers
from raysearch.search.score_scale import ScoreScale
from raysearch.stats.evidence import Evidence

T = TypeVar("T")
TrialKey = tuple[Split, str, int]
"""(split, key of the intervention, part of the test pairs)."""

ObservationStatus = Literal["first", "repeat", "conflict"]
"""The relation of an observation to its block: the first, an equal repeat, or a repeat with other
outputs, which is counted as a conflict.
"""


NO_RELABELLING: Mapping[Ids, Ids] = MappingProxyType({})
"""Labels of every hypothesis but those of the control `arbitrary_labels`."""


@dataclass(slots=True, eq=False)
class HypothesisTest:
    """A hypothesis in the course of its test, or of its estimate on the holdout, with the evidence
    so far.

    Args:
        evidence: matches and scores on the pairs that count.
        keep: the same on keep pairs.
        copies: outputs on change pairs that equal an answer of the source.
        repeats: pairs that are equal to an earlier pair of the test.
        distinct: number of different pairs among those that count.
        labels: replacement labels for counterfactuals (control `arbitrary_labels`).
        reading: the reading on the holdout that this is; None for the estimate itself.
        part: the part of the test pairs that it is tested on.
        unfiltered: whether keep pairs count as evidence too.
        sets: evidence by kind of pair, if the problem tells kinds apart.
        score_scale: the score that the test is on; None for matches.
        sums: sum of every measured score over the pairs that count.
        policy: the best policy of the variable; None for controls, readings and ablations.
        margins: for each pair that counts, 1 + match - match of the policy.
        most: on the holdout, the number of blocks that it may use; None: all.
        values: on the holdout, its match or score on each pair that counts, in their order.
        left_out: contents of pairs that do not count: on the holdout, those that it was tested on.
        blocks: number of blocks that it has counted.
    """

    hypothesis: Hypothesis
    evidence: Evidence = Evidence()
    keep: Evidence = Evidence()
    copies: int = 0
    repeats: Set[int] = frozenset()
    distinct: int = 0
    labels: Mapping[Ids, Ids] = field(default_factory=lambda: NO_RELABELLING)
    reading: Reading | None = None
    part: int = 0
    unfiltered: bool = False
    sets: dict[str, Evidence] = field(default_factory=dict)
    score_scale: ScoreScale | None = None
    sums: dict[str, float] = field(default_factory=dict)
    policy: Policy | None = None
    margins: bytes = b""
    most: int | None = None
    values: list[float] | None = None
    left_out: Set[tuple[str, ...]] = frozenset()
    blocks: int = 0

    def counts(self, pair: ExpectedAnswers) -> bool:
        """Says whether a pair counts as evidence."""
        if pair.contents in self.left_out:
            return False
        return self.unfiltered or self._wanted(pair) != pair.base

    def count(self, observation: Measured, pairs: Sequence[ExpectedAnswers]) -> None:
        """Adds one block of evidence; `pairs` are the expected answers in the observation's
        order.
        """
        self.blocks += 1
        seen = self._seen(observation, pairs)
        counted: list[int] = []
        keep_pairs: list[int] = []
        of_sets: dict[str, list[int]] = {}
        for at, (answer, pair) in enumerate(zip(observation.outputs, pairs, strict=True)):
            if pair.contents in self.left_out:
                continue
            wanted, match = self._wanted(pair), seen.matches[at]
            changes = wanted != pair.base
            if changes:
                self.copies += pair.read(answer) in pair.sources.values()
            else:
                keep_pairs.append(at)
            if changes or self.unfiltered:
                counted.append(at)
                self.distinct += observation.pairs[at] not in self.repeats
                if self.values is not None:
                    self.values.append(seen.scores[at] if seen.scores else float(match))
                if self.policy is not None:
                    self.margins += bytes([1 + match - (self.policy.gives(pair) == wanted)])
                if pair.set is not None:
                    of_sets.setdefault(pair.set, []).append(at)
        self.evidence = seen.added(self.evidence, counted)
        self.keep = seen.added(self.keep, keep_pairs)
        for name, places in of_sets.items():
            self.sets[name] = seen.added(self.sets.get(name, Evidence()), places)
        variable = self.hypothesis.variable
        for name, values in (observation.scores or {}).items():
            self.sums[name] = self.sums.get(name, 0.0) + math.fsum(
                values[variable][at] for at in counted
            )

    def _seen(self, observation: Measured, pairs: Sequence[ExpectedAnswers]) -> "_BlockEvidence":
        both, scale = zip(observation.outputs, pairs, strict=True), self.score_scale
        matches = [self._is_match(answer, pair) for answer, pair in both]
        scores = () if scale is None else scale.of(observation, self.hypothesis.variable)
        matchings = tuple(pair.matching for pair in pairs if pair.matching is not None)
        if matchings and not scores:  # which pairs share values matters, so each one is kept
            scores = tuple(map(float, matches))
        return _BlockEvidence(matches, scores, matchings)

    def _wanted(self, pair: ExpectedAnswers) -> Ids:
        """Returns the answer that a match gives; of an ablation, what a match would have been."""
        wanted = pair.counterfactual[self.hypothesis.variable]
        return self.labels.get(wanted, wanted)

    def _is_match(self, answer: Ids, pair: ExpectedAnswers) -> bool:
        output = pair.read(answer)
        if self.hypothesis.intervention.is_ablation:
            return output != pair.base
        return output == self._wanted(pair)

    def over_policy(self, criterion: Criterion) -> float:
        """Returns the log e-value that it beats the best policy; inf if none can be beaten."""
        if self.policy is None or self.policy.baseline.same:
            return math.inf
        return criterion.paired.log_evidence(self._differences, self.evidence.matchings)[0]

    @property
    def _differences(self) -> list[float]:
        """Match minus match of the policy, in {-1, 0, 1}, of each pair that counts."""
        return [float(margin - 1) for margin in self.margins]

    def _against_policy(self, accepted: bool, criterion: Criterion) -> PolicyComparison | None:
        """Compares it with the best policy; only accepted ones have an interval."""
        if self.policy is None or not self.margins:
            return None
        differences, baseline = self._differences, self.policy.baseline
        share = (self.evidence.matches - math.fsum(differences)) / self.evidence.n
        if not accepted or baseline.same:
            return PolicyComparison(baseline, share)
        interval = criterion.paired.interval(differences, self.evidence.matchings)
        return PolicyComparison(baseline, share, *interval)

    def _score(self, evidence: Evidence) -> float | None:
        """Returns the mean score; None where the test is on matches."""
        return None if self.score_scale is None else evidence.score

    def decided(
        self,
        verdict: VerdictName,
        criterion: Criterion,
        base_match: float | None,
        reason: str | None,
        fit: str | None,
    ) -> Decided:
        """Returns the record of a verdict."""
        low, high = criterion.change.interval(self.evidence)
        up, down = criterion.log_evidence(self.evidence, self.keep)
        return Decided(
            hypothesis=self.hypothesis,
            verdict=verdict,
            n=self.evidence.n,
            matches=self.evidence.matches,
            low=low,
            high=high,
            keep_n=self.keep.n,
            keep_matches=self.keep.matches,
            copies=self.copies,
            base_match_unfiltered=base_match,
            log_evidence=up
            if verdict == "accept"
            else down
            if verdict == "reject"
            else max(up, down),
            claim=criterion.about.claim,
            population=criterion.about.name,
            population_size=criterion.size,
            distinct=self.distinct,
            reason=reason,
            fit=fit,
            sets=tuple(
                SetCount(name, e.n, e.matches, *criterion.interval_of(name, e), self._score(e))
                for name, e in sorted(self.sets.items())
            ),
            score=self._score(self.evidence),
            keep_score=self._score(self.keep),
            means=tuple(
                (name, total / self.evidence.n)
                for name, total in sorted(self.sums.items())
                if self.evidence.n
            ),
            against=self._against_policy(verdict == "accept", criterion),
            level=criterion.change.level,
            part=self.part,
        )


@dataclass(frozen=True, slots=True)
class _BlockEvidence:
    """The evidence of one block for a hypothesis, pair by pair.

    Args:
        matches: whether each pair matches.
        scores: the score of each; empty unless the test needs scores.
        matchings: the matching that each is of; empty unless the claim is about new values.
    """

    matches: Sequence[bool]
    scores: tuple[float, ...]
    matchings: tuple[int, ...]

    def added(self, evidence: Evidence, places: Sequence[int]) -> Evidence:
        """Returns `evidence` and that of the pairs at `places` of the block."""
        if not places:
            return evidence
        return evidence.add(
            len(places),
            sum(self.matches[at] for at in places),
            _select(self.scores, places),
            _select(self.matchings, places),
        )


def _select(values: tuple[T, ...], places: Sequence[int]) -> tuple[T, ...]:
    return tuple(values[at] for at in places) if values else ()


@dataclass(slots=True, eq=False)
class Trial:
    """An intervention on the blocks of a split; it is closed when no hypothesis on it is open.

    Args:
        tests: the open hypotheses.
        part: the part of the test pairs that `blocks` are of; 0 on the holdout.
        counted: number of blocks counted so far.
        failed_attempts: failed attempts at the next block, in a row.
        one_block: whether it runs one block at a time: a control on the holdout, which may stop
            after each; or because it has failed, so that a failure far ahead takes nothing from the
            blocks before.
        observations: what was counted, if a hypothesis may still join: on the holdout, a control,
            or where `keeps`.
        keeps: whether a hypothesis that ends undecided before others may go on later.
        waits: whether one has ended without a verdict.
    """

    intervention: Intervention
    split: Split
    blocks: tuple[Block, ...]
    tests: list[HypothesisTest]
    part: int = 0
    counted: int = 0
    failed_attempts: int = 0
    one_block: bool = False
    observations: list[Measured] = field(default_factory=list)
    keeps: bool = False
    waits: bool = False
    key: TrialKey = field(init=False)
    _first: list[int | None] = field(init=False, default_factory=list)
    """Hash of the first outputs of each block that was seen: enough to recognise a repeat that
    differs.
    """
    _ahead: dict[int, Measured] = field(init=False, default_factory=dict)
    """Observations that are not counted yet. Outputs are dropped afterwards, since a search may
    have a million trials.
    """
    _conflicts: dict[int, int] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.key = self.split, self.intervention.key, self.part
        self.one_block = self.intervention.control in HOLDOUT_CONTROLS

    @property
    def closed(self) -> bool:
        return not self.tests

    @property
    def exhausted(self) -> bool:
        """Says whether every block is counted."""
        return self.counted == len(self.blocks)

    @property
    def last(self) -> int:
        """Number of blocks that its open hypotheses may use."""
        return max((len(self.blocks) if t.most is None else t.most for t in self.tests), default=0)

    @property
    def at_most(self) -> int:
        """Number of pairs that may still be counted."""
        return sum(len(b.pairs) for b in self.blocks[self.counted : self.last])

    @property
    def next_block(self) -> int:
        """Index of the next block to count; after the last one, one more."""
        return self.blocks[-1].index + 1 if self.exhausted else self.blocks[self.counted].index

    def has_seen(self, block: int) -> bool:
        """Says whether the block with this index has been observed."""
        return self._has_seen(self._place(block))

    def _place(self, block: int) -> int:
        """Returns the place of the block with this index, which rises along the blocks."""
        return bisect_left(self.blocks, block, key=lambda b: b.index)

    def _has_seen(self, at: int) -> bool:
        return at < len(self._first) and self._first[at] is not None

    def unseen(self) -> tuple[Block, ...]:
        """Returns the run of blocks from the next to count up to the first that was seen."""
        start = self.counted
        end = start
        while end < self.last and not self._has_seen(end):
            end += 1
        return self.blocks[start:end]

    def take(self, observation: Measured) -> ObservationStatus:
        """Stores an observation if it is the first of its block; returns how it relates to that
        block.
        """
        at = self._place(observation.block)
        assert self.blocks[at].pairs == observation.pairs, (self.blocks[at], observation.pairs)
        output_hash = hash(observation.outputs)
        if self._has_seen(at):
            if self._first[at] == output_hash:
                return "repeat"
            self._conflicts[at] = self._conflicts.get(at, 0) + 1
            return "conflict"
        self._first += [None] * (at + 1 - len(self._first))
        self._first[at] = output_hash
        if not self.closed:
            self._ahead[at] = observation
            self.failed_attempts = 0
        return "first"

    def next_counted(self) -> Counted | None:
        """Returns the next block's observation, in block order; None if it has not arrived."""
        observation = self._ahead.pop(self.counted, None)
        if observation is None:
            return None
        if self.split == "holdout" or self.intervention.control is not None or self.keeps:
            self.observations.append(observation)
        self.counted += 1
        return Counted(observation, self._conflicts.get(self.counted - 1, 0), self.part)

    def reopen(self) -> None:
        """Forgets all failures; blocks that were not counted are measured again, since closing
        dropped them.
        """
        del self._first[self.counted :]
        self._ahead, self._conflicts = {}, {}
        self.failed_attempts = 0
        self.one_block = self.intervention.control in HOLDOUT_CONTROLS

    def drop(self, test: HypothesisTest) -> None:
        """Removes a decided hypothesis; with the last one, drops the observations that nobody
        needs.
        """
        self.tests.remove(test)
        if self.closed:
            self._ahead = {}
            if self.keeps and not self.waits:
                self.observations = []
