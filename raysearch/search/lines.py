"""Lines: one intervention's way through the blocks of one split, with the hypotheses that live on it.

Invariants: blocks are counted in order, each once; a block is counted for a hypothesis only until its verdict; the first
observation of a block wins.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from raysearch.causal import Split
from raysearch.search.blocks import Expected
from raysearch.search.events import Block, Counted, Decided, Ids, Measured, Reading, SetCount, VerdictName
from raysearch.search.evidence import Evidence
from raysearch.search.hypothesis import Hypothesis, Intervention
from raysearch.search.standards import Standard

LineKey = tuple[Split, str]
"""(split, key of the intervention)."""


@dataclass
class Case:
    """A hypothesis that is being judged, or read on the holdout: its evidence on change pairs, and what is reported beside.

    `labels`: what a counterfactual is called instead, where labels are arbitrary. `reading`: what it is read as beside the estimate.
    `unfiltered`: keep pairs count as evidence too. `sets`: the evidence on each kind of pair, where kinds are told apart.
    """

    hypothesis: Hypothesis
    evidence: Evidence = Evidence()
    keep: Evidence = Evidence()
    copies: int = 0
    labels: Mapping[Ids, Ids] = field(default_factory=dict)
    reading: Reading | None = None
    unfiltered: bool = False
    sets: dict[str, Evidence] = field(default_factory=dict)

    def count(self, observation: Measured, pairs: Sequence[Expected]) -> None:
        """Adds one block. `pairs` are what the outputs are held against, in the observation's order."""
        variable = self.hypothesis.variable
        n = matches = keep_n = keep_matches = 0
        for output, pair in zip(observation.outputs, pairs, strict=True):
            wanted = self.labels.get(pair.counterfactual[variable], pair.counterfactual[variable])
            match, changes = output == wanted, wanted != pair.base
            if changes:
                self.copies += output in pair.sources.values()
            else:
                keep_n += 1
                keep_matches += match
            if changes or self.unfiltered:
                n += 1
                matches += match
                if pair.set is not None:
                    self.sets[pair.set] = self.sets.get(pair.set, Evidence()).plus(1, match)
        self.evidence = self.evidence.plus(n, matches)
        self.keep = self.keep.plus(keep_n, keep_matches)

    def decided(
        self, verdict: VerdictName, standard: Standard, base_match: float | None, reason: str | None, fit: str | None
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
            log_evidence=up if verdict == "accept" else down if verdict == "reject" else max(up, down),
            claim=standard.change.claim,
            reason=reason,
            fit=fit,
            sets=tuple(SetCount(name, e.n, e.matches) for name, e in sorted(self.sets.items())),
        )


@dataclass
class Line:
    """An intervention on the blocks of a split. `cases` are the hypotheses on it that are still open; without any it is closed.

    `strikes`: failed attempts at the next block, in a row. `careful`: it has failed, and goes out one block at a time, so that
    what fails far ahead takes nothing from the blocks before.
    """

    intervention: Intervention
    split: Split
    blocks: tuple[Block, ...]
    cases: list[Case]
    counted: int = 0
    strikes: int = 0
    careful: bool = False
    seen: dict[int, Measured] = field(default_factory=dict)
    conflicts: dict[int, int] = field(default_factory=dict)

    @property
    def key(self) -> LineKey:
        return self.split, self.intervention.key

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

    def unseen(self) -> tuple[Block, ...]:
        """The run of blocks from the first that is not seen to the next that is."""
        start = self.counted
        end = start
        while end < len(self.blocks) and end not in self.seen:
            end += 1
        return self.blocks[start:end]

    def take(self, observation: Measured) -> bool:
        """Keeps an observation; False where its block was seen before, and then a different one is counted as a conflict."""
        block = self.blocks[observation.block]
        assert block.pairs == observation.pairs, (block, observation.pairs)
        first = self.seen.get(observation.block)
        if first is None:
            self.seen[observation.block] = observation
            self.strikes = 0
            return True
        if first.outputs != observation.outputs:
            self.conflicts[observation.block] = self.conflicts.get(observation.block, 0) + 1
        return False

    def next_counted(self) -> Counted | None:
        """The next block's observation, in block order, if it is there and somebody still asks for it."""
        observation = None if self.closed else self.seen.get(self.counted)
        if observation is None:
            return None
        self.counted += 1
        return Counted(observation, self.conflicts.get(observation.block, 0))
