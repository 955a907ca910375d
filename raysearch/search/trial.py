"""Lines: one intervention's way through the blocks of one split, with the hypotheses that live on
it.

Invariants: blocks are counted in order, each once; a block is counted for a hypothesis only until
its verdict; the first observation of a block wins.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from raysearch.causal import Split
from raysearch.core.events import Block, Ids, Measured
from raysearch.core.hypothesis import Hypothesis, Intervention
from raysearch.core.records import Counted, Decided, Reading, SetCount, VerdictName
from raysearch.search.criteria import Criterion
from raysearch.search.pair_blocks import ExpectedAnswers
from raysearch.search.score_scale import Scored
from raysearch.stats.evidence import Evidence

TrialKey = tuple[Split, str]
"""(split, key of the intervention)."""

Taken = Literal["first", "repeat", "conflict"]
"""What an observation is to its block: the first, the same once more, or one that says otherwise
and is counted as a conflict."""


AS_THEY_ARE: Mapping[Ids, Ids] = MappingProxyType({})
"""Labels where none are arbitrary."""


@dataclass(slots=True, eq=False)
class HypothesisTest:
    """A hypothesis that is being judged, or read on the holdout: its evidence on change pairs, and
    what is reported beside.

    `labels`: what a counterfactual is called instead, where labels are arbitrary. `reading`: what
    it is read as beside the estimate. `unfiltered`: keep pairs count as evidence too. `sets`: the
    evidence on each kind of pair, where kinds are told apart. `scored`: what the test is on (None:
    matches). `sums`: of every score that was measured, over the pairs that count.
    """

    hypothesis: Hypothesis
    evidence: Evidence = Evidence()
    keep: Evidence = Evidence()
    copies: int = 0
    labels: Mapping[Ids, Ids] = field(default_factory=lambda: AS_THEY_ARE)
    reading: Reading | None = None
    unfiltered: bool = False
    sets: dict[str, Evidence] = field(default_factory=dict)
    scored: Scored | None = None
    sums: dict[str, float] = field(default_factory=dict)

    def count(self, observation: Measured, pairs: Sequence[ExpectedAnswers]) -> None:
        """Adds one block. `pairs` are what the outputs are held against, in the observation's
        order."""
        variable = self.hypothesis.variable
        ablates = self.hypothesis.intervention.is_ablation
        scores = () if self.scored is None else self.scored.of(observation, variable)
        counted: list[int] = []
        kept: list[int] = []
        matches = keep_matches = 0
        for at, (said, pair) in enumerate(zip(observation.outputs, pairs, strict=True)):
            output = pair.read(said)
            wanted = self.labels.get(pair.counterfactual[variable], pair.counterfactual[variable])
            changes = wanted != pair.base
            match = output != pair.base if ablates else output == wanted
            if changes:
                self.copies += output in pair.sources.values()
            else:
                kept.append(at)
                keep_matches += match
            if changes or self.unfiltered:
                counted.append(at)
                matches += match
                if pair.set is not None:
                    before = self.sets.get(pair.set, Evidence())
                    self.sets[pair.set] = before.plus(1, match, scores[at : at + 1])
        self.evidence = self.evidence.plus(len(counted), matches, _at(scores, counted))
        self.keep = self.keep.plus(len(kept), keep_matches, _at(scores, kept))
        for name, of in (observation.scores or {}).items():
            self.sums[name] = self.sums.get(name, 0.0) + math.fsum(
                of[variable][at] for at in counted
            )

    def decided(
        self,
        verdict: VerdictName,
        standard: Criterion,
        base_match: float | None,
        reason: str | None,
        fit: str | None,
    ) -> Decided:
        """The verdict, with all that is told beside it."""
        low, high = standard.change.interval(self.evidence)
        up, down = standard.log_evidence(self.evidence, self.keep)
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
            claim=standard.change.claim,
            reason=reason,
            fit=fit,
            sets=tuple(
                SetCount(name, e.n, e.matches, *standard.interval_of(name, e), e.score)
                for name, e in sorted(self.sets.items())
            ),
            score=self.evidence.score,
            keep_score=self.keep.score,
            means=tuple(
                (name, total / self.evidence.n)
                for name, total in sorted(self.sums.items())
                if self.evidence.n
            ),
        )


def _at(scores: tuple[float, ...], places: Sequence[int]) -> tuple[float, ...]:
    return tuple(scores[at] for at in places) if scores else ()


@dataclass(slots=True, eq=False)
class Trial:
    """An intervention on the blocks of a split. `cases` are the hypotheses on it that are still
    open; without any it is closed.

    `strikes`: failed attempts at the next block, in a row. `careful`: it has failed, and goes out
    one block at a time, so that what fails far ahead takes nothing from the blocks before.
    `counted`: so many blocks are. `read`: what was counted, where somebody may still join: a
    reading on the holdout, another variable whose control this is.
    """

    intervention: Intervention
    split: Split
    blocks: tuple[Block, ...]
    cases: list[HypothesisTest]
    counted: int = 0
    strikes: int = 0
    careful: bool = False
    read: list[Measured] = field(default_factory=list)
    key: TrialKey = field(init=False)
    _first: list[int | None] = field(init=False, default_factory=list)
    """Of each block that was seen, the hash of its first outputs: what is needed to know a repeat
    that says otherwise."""
    _ahead: dict[int, Measured] = field(init=False, default_factory=dict)
    """What was seen and is not counted yet. Nothing else is kept of the outputs: a million lines
    live as long as the search."""
    _conflicts: dict[int, int] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.key = self.split, self.intervention.key

    @property
    def closed(self) -> bool:
        return not self.cases

    @property
    def exhausted(self) -> bool:
        """Whether every block is counted."""
        return self.counted == len(self.blocks)

    @property
    def at_most(self) -> int:
        """Pairs that may still be counted on it."""
        return 0 if self.closed else sum(len(b.pairs) for b in self.blocks[self.counted :])

    def has_seen(self, block: int) -> bool:
        return block < len(self._first) and self._first[block] is not None

    def unseen(self) -> tuple[Block, ...]:
        """The run of blocks from the first that is not seen to the next that is."""
        start = self.counted
        end = start
        while end < len(self.blocks) and not self.has_seen(end):
            end += 1
        return self.blocks[start:end]

    def take(self, observation: Measured) -> Taken:
        """Takes note of an observation; keeps it where it is the first of its block."""
        at = observation.block
        assert self.blocks[at].pairs == observation.pairs, (self.blocks[at], observation.pairs)
        said = hash(observation.outputs)
        if self.has_seen(at):
            if self._first[at] == said:
                return "repeat"
            self._conflicts[at] = self._conflicts.get(at, 0) + 1
            return "conflict"
        self._first += [None] * (at + 1 - len(self._first))
        self._first[at] = said
        if not self.closed:
            self._ahead[at] = observation
            self.strikes = 0
        return "first"

    def next_counted(self) -> Counted | None:
        """The next block's observation, in block order, if it is there and somebody still asks for
        it."""
        observation = self._ahead.pop(self.counted, None)
        if observation is None:
            return None
        if self.split == "holdout" or self.intervention.control is not None:
            self.read.append(observation)
        self.counted += 1
        return Counted(observation, self._conflicts.get(observation.block, 0))

    def again(self) -> None:
        """As if it had never failed: what is not counted is to be seen anew, for nothing of it was
        kept when the line was closed."""
        del self._first[self.counted :]
        self._ahead, self._conflicts = {}, {}
        self.strikes, self.careful = 0, False

    def drop(self, case: HypothesisTest) -> None:
        """A hypothesis on it is decided. With the last one it is closed, and lets go of what it
        need not know any more."""
        self.cases.remove(case)
        if self.closed:
            self._ahead = {}
