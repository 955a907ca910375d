"""Screening: finds out which pairs the model solves without intervention.

Each split needs a number of solved pairs. Pairs are screened in their fixed order, in rounds: as
many as are still missing, until there are enough or none is left. Invariants: which pairs are used
is a function of the pairs' order and the model's outputs alone; no pair that was trained on is
tested, and no pair that is tested stands in the holdout, however often it was drawn.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from raysearch.causal import SPLITS, LeftOutCount, Split
from raysearch.core.events import Block, Ids, Screened, Task
from raysearch.core.records import Blocked, PairScreened
from raysearch.search.block_queue import BlockQueue
from raysearch.search.pair_blocks import (
    EVEN_BLOCK,
    HOLDOUT_BLOCK,
    NO_PAIRS,
    ExpectedAnswers,
    TestPart,
    cut_at_looks,
    deal,
    deal_out,
    even_blocks,
)

GENERATIONS = 6
"""Generations for which as many test pairs are screened as each of them may use."""


@dataclass(frozen=True, slots=True)
class ScreeningPlan:
    """The number of solved pairs that each split needs, and the use of test pairs.

    Args:
        max_pairs: the most test pairs that the test may use.
        solved_only: whether pairs that the model does not solve are left out.
        at_looks: cut test pairs where the sequential test looks; otherwise evenly.
        trained: whether fit pairs are trained on, so that they are left out of the other splits.
        dealt: whether test pairs are dealt out to several generations of hypotheses.
        left_out: counts of pairs that were dropped before screening.
    """

    wanted: Mapping[Split, int]
    max_pairs: int
    solved_only: bool
    at_looks: bool = True
    trained: bool = False
    dealt: bool = False
    left_out: tuple[LeftOutCount, ...] = ()

    @property
    def part(self) -> int:
        """The most test pairs that are dealt out to one generation."""
        return -(-self.wanted.get("test", 0) // GENERATIONS)


@dataclass
class _SplitProgress:
    """Screening of one split: its pairs in order, how many have been asked for, and those usable so
    far.
    """

    split: Split
    order: tuple[int, ...]
    wanted: int
    asked: int = 0
    blocks: int = 0
    usable: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Extension:
    """Further test pairs: at most `most` for each of `parts`; `dealt`: usable ones before."""

    most: int
    parts: tuple[int, ...]
    dealt: int


class Screening:
    """Hands out screening tasks, takes `Screened` events, and returns `Blocked` at the end."""

    def __init__(self, pairs: Mapping[int, ExpectedAnswers], plan: ScreeningPlan) -> None:
        self._pairs = pairs
        self._plan = plan
        self._parts = [
            _SplitProgress(
                split,
                tuple(i for i, e in pairs.items() if e.split == split and not e.added),
                plan.wanted.get(split, 0),
            )
            for split in SPLITS
        ]
        self._extensions = 0
        self._more: _Extension | None = None
        self._part_of: dict[int, int] = {}
        self.tested_later: frozenset[tuple[str, ...]] = frozenset()
        """Contents of the pairs that continuations test on: they may be in the holdout."""
        self.queue = BlockQueue("screening")
        self._blocks: dict[Split, tuple[Block, ...]] = {}
        self._parts_of_test: tuple[TestPart, ...] | None = None
        self._seen: dict[int, tuple[Ids, dict[str, Ids]]] = {}
        self._differences: dict[int, dict[str, float]] = {}
        self._fitted: set[tuple[str, ...]] = set()
        self._tested: set[tuple[str, ...]] = set()
        self._next_round()

    @property
    def done(self) -> bool:
        return self.queue.empty

    def ask(self, task: int) -> Task | None:
        """Returns the next task, with the id `task`, or None if no block is ready."""
        block = self.queue.ask(task)
        return None if block is None else Task(task, "screen", (), (block,))

    def tell(self, event: Screened) -> bool:
        """Stores the outputs of a block; returns False if they were known already."""
        if not self.queue.receive(event.task, event.split, event.block, event.pairs):
            return False
        for i, pair in enumerate(event.pairs):
            self._seen[pair] = event.base[i], {name: ids[i] for name, ids in event.sources.items()}
        if event.split == "fit" and event.scores is not None:
            differences = event.scores.get("logit_difference", {})
            for i, pair in enumerate(event.pairs):
                self._differences[pair] = {
                    variable: values[i] for variable, values in differences.items()
                }
        if self.done:
            self._next_round()
        return True

    def blocked(self) -> Blocked:
        """Returns which pairs are solved and the block of each."""
        assert self.done
        place = {
            pair: block.index
            for split in SPLITS
            for block in self.blocks(split)
            for pair in block.pairs
        }
        return Blocked(tuple(self._screened(pair, place.get(pair)) for pair in self._pairs))

    def blocks(self, split: Split) -> tuple[Block, ...]:
        """Returns the blocks of evidence of a split, once screening is done; of the test split,
        those of all parts.
        """
        if split == "test":
            return tuple(block for part in self.parts for block in part.blocks)
        if split not in self._blocks:
            assert self.done
            size = HOLDOUT_BLOCK if split == "holdout" else EVEN_BLOCK
            self._blocks[split] = even_blocks(split, self.usable(split), size)
        return self._blocks[split]

    @property
    def parts(self) -> tuple[TestPart, ...]:
        """The parts into which test pairs are dealt out; one if they are not."""
        if self._parts_of_test is None:
            assert self.done
            self._parts_of_test = deal_out(
                self._deal(self.usable("test")),
                self._plan.max_pairs,
                self._plan.at_looks,
                self._pairs,
            )
        return self._parts_of_test

    def test_blocks(self, part: int) -> tuple[Block, ...]:
        """Returns the blocks of a part of the test pairs; none if there are not as many parts."""
        return self.parts[part].blocks if part < len(self.parts) else ()

    def part_of(self, split: Split, block: int = 0) -> int:
        """Returns the part of the test pairs that a block is of; 0 for other splits."""
        if split != "test":
            return 0
        if not self._part_of:
            self._part_of = {b.index: i for i, part in enumerate(self.parts) for b in part.blocks}
        return self._part_of[block]

    def left_over(self, part: int) -> int:
        """Returns how many screened pairs of a part are in none of its blocks."""
        known = self.parts[part] if part < len(self.parts) else NO_PAIRS
        return len(known.pairs) - known.used

    @property
    def unasked(self) -> int:
        """Number of test pairs that are not screened yet."""
        return len(self._of("test").order) - self._of("test").asked

    def lacking(self, most: int, parts: Sequence[int]) -> int:
        """Returns how many pairs are to be screened so that each part may use `most` more."""
        return sum(max(0, most - self.left_over(part)) for part in parts)

    def extend(self, most: int, parts: Sequence[int], lacking: int) -> None:
        """Lets each of `parts` use at most `most` further test pairs: first those that it has left
        over, then `lacking` pairs that are screened, in the order of the pairs.
        """
        assert self.done
        self._extensions += 1
        test = self._of("test")
        self._more = _Extension(most, tuple(parts), len(self.usable("test")))
        test.order += tuple(i for i, e in self._pairs.items() if e.added == self._extensions)
        test.wanted = self._more.dealt + lacking
        self._next_round()

    def _of(self, split: Split) -> _SplitProgress:
        return next(p for p in self._parts if p.split == split)

    def _extend_parts(self, more: _Extension) -> None:
        """Adds the pairs of an extension to its parts, in blocks numbered after all others."""
        new = self.usable("test")[more.dealt :]
        later: tuple[int, ...] = ()
        found = list(self.parts)
        found += [NO_PAIRS] * (max(more.parts) + 1 - len(found))
        first = 1 + max((b.index for part in found for b in part.blocks), default=-1)
        for at in more.parts:
            part = found[at]
            taken = max(0, more.most - len(part.pairs) + part.used)
            pairs, new = (*part.pairs, *new[:taken]), new[taken:]
            used = pairs[part.used : part.used + more.most]
            blocks = (
                cut_at_looks(used, first, part.used)
                if self._plan.at_looks
                else even_blocks("test", used, EVEN_BLOCK, first)
            )
            found[at] = TestPart(pairs, part.blocks + blocks)
            first += len(blocks)
            later += used
        self._parts_of_test, self._part_of, self._more = tuple(found), {}, None
        self.tested_later |= {c for p in later if (c := self._pairs[p].contents)}

    def _deal(self, pairs: tuple[int, ...]) -> list[tuple[int, ...]]:
        return deal(pairs, self._plan.part) if self._plan.dealt else [pairs]

    def usable(self, split: Split) -> tuple[int, ...]:
        """Returns the pairs of a split that evidence may come from, in order."""
        part = self._of(split)
        return tuple(part.usable[: part.wanted])

    def used_elsewhere(self, pair: int) -> Literal["trained_on", "tested"] | None:
        """Returns whether a pair is left out because an equal one is used in an earlier split."""
        contents, split = self._pairs[pair].contents, self._pairs[pair].split
        if not contents or split == "fit":
            return None
        if contents in self._fitted:
            return "trained_on"
        return "tested" if split == "holdout" and contents in self._tested else None

    def output(self, pair: int) -> Ids | None:
        """Returns the model's output on a pair's base without intervention; None if it was not
        screened.
        """
        return self._seen[pair][0] if pair in self._seen else None

    def differences(self, pair: int) -> Mapping[str, float]:
        """Returns the logit differences of a fit pair without intervention, by variable; empty if
        the job declares none.
        """
        return self._differences.get(pair, {})

    def solved(self, pair: int) -> bool:
        """Says whether the model answers base and sources correctly without intervention."""
        base, sources = self._seen[pair]
        e = self._pairs[pair]
        return e.read(base) == e.base and all(
            e.read(sources[name]) == ids for name, ids in e.sources.items()
        )

    def base_solved(self, pair: int) -> bool:
        """Says whether the model answers the base of a screened pair correctly without
        intervention."""
        e = self._pairs[pair]
        return e.read(self._seen[pair][0]) == e.base

    def is_usable(self, pair: int) -> bool:
        """Says whether evidence may come from a screened pair, judged by the model's outputs
        alone."""
        return not self._plan.solved_only or self.solved(pair)

    def counts(self, split: Split) -> tuple[int, int, int]:
        """Returns (screened, solved, wanted) of a split."""
        part = self._of(split)
        done = [p for p in part.order[: part.asked] if p in self._seen]
        return len(done), sum(self.solved(p) for p in done), part.wanted

    def _next_round(self) -> None:
        for part in self._parts if self._more is None else [self._of("test")]:
            self._collect(part)
            missing = part.wanted - len(part.usable)
            chunk = part.order[part.asked : part.asked + max(missing, 0)]
            part.asked += len(chunk)
            new = even_blocks(part.split, chunk, EVEN_BLOCK, part.blocks)
            part.blocks += len(new)
            self.queue.add(new)
        if self._more is not None and self.done:
            self._extend_parts(self._more)

    def _collect(self, part: _SplitProgress) -> None:
        """Takes the screened pairs of a split that may be used, once those of the splits before are
        taken.
        """
        screened = part.order[: part.asked]
        part.usable = [p for p in screened if self.is_usable(p) and self.used_elsewhere(p) is None]
        used = tuple(part.usable[: part.wanted])
        if part.split == "fit" and self._plan.trained:
            self._fitted = {self._pairs[p].contents for p in used}
        elif part.split == "test" and self._more is None:
            tested = (p for dealt in self._deal(used) for p in dealt[: self._plan.max_pairs])
            self._tested = {self._pairs[p].contents for p in tested}

    def _screened(self, pair: int, block: int | None) -> PairScreened:
        split = self._pairs[pair].split
        if pair not in self._seen:
            return PairScreened(pair, None, None, None, split, None)
        base, sources = self._seen[pair]
        return PairScreened(pair, base, sources, self.solved(pair), split, block)
