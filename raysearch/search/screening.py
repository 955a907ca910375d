"""Screening: finds out which pairs the model solves without intervention.

Each split needs a number of solved pairs. Pairs are screened in their fixed order, in rounds: as
many as are still missing, until there are enough or none is left. Invariants: which pairs are used
is a function of the pairs' order and the model's outputs alone; no pair that was trained on is
tested, and no pair that is tested stands in the holdout, however often it was drawn.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from raysearch.causal import SPLITS, LeftOutCount, Split
from raysearch.core.events import Block, Ids, Screened, Task
from raysearch.core.records import Blocked, PairScreened
from raysearch.search.block_queue import BlockQueue
from raysearch.search.pair_blocks import EVEN_BLOCK, ExpectedAnswers, cut_at_looks, even_blocks


@dataclass(frozen=True, slots=True)
class ScreeningPlan:
    """The number of solved pairs that each split needs, and the use of test pairs.

    Args:
        max_pairs: the most test pairs that the test may use.
        solved_only: whether pairs that the model does not solve are left out.
        at_looks: cut test pairs where the sequential test looks; otherwise evenly.
        trained: whether fit pairs are trained on, so that they are left out of the other splits.
        left_out: counts of pairs that were dropped before screening.
    """

    wanted: Mapping[Split, int]
    max_pairs: int
    solved_only: bool
    at_looks: bool = True
    trained: bool = False
    left_out: tuple[LeftOutCount, ...] = ()


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


class Screening:
    """Hands out screening tasks, takes `Screened` events, and returns `Blocked` at the end."""

    def __init__(self, pairs: Mapping[int, ExpectedAnswers], plan: ScreeningPlan) -> None:
        self._pairs = pairs
        self._plan = plan
        self._parts = [
            _SplitProgress(
                split,
                tuple(i for i, e in pairs.items() if e.split == split),
                plan.wanted.get(split, 0),
            )
            for split in SPLITS
        ]
        self.queue = BlockQueue("screening")
        self._blocks: dict[Split, tuple[Block, ...]] = {}
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
        """Returns the blocks of evidence of a split, once screening is done."""
        if split not in self._blocks:
            assert self.done
            pairs = self.usable(split)
            if split == "test":
                pairs = pairs[: self._plan.max_pairs]
            at_looks = split == "test" and self._plan.at_looks
            self._blocks[split] = (
                cut_at_looks(pairs) if at_looks else even_blocks(split, pairs, EVEN_BLOCK)
            )
        return self._blocks[split]

    def usable(self, split: Split) -> tuple[int, ...]:
        """Returns the pairs of a split that evidence may come from, in order."""
        part = next(p for p in self._parts if p.split == split)
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
        """Whether the model answers base and sources correctly without intervention."""
        base, sources = self._seen[pair]
        e = self._pairs[pair]
        return e.read(base) == e.base and all(
            e.read(sources[name]) == ids for name, ids in e.sources.items()
        )

    def base_solved(self, pair: int) -> bool:
        """Whether the model answers the base of a screened pair correctly without intervention."""
        e = self._pairs[pair]
        return e.read(self._seen[pair][0]) == e.base

    def is_usable(self, pair: int) -> bool:
        """Whether evidence may come from a screened pair, judged by the model's outputs alone."""
        return not self._plan.solved_only or self.solved(pair)

    def counts(self, split: Split) -> tuple[int, int, int]:
        """Returns (screened, solved, wanted) of a split."""
        part = next(p for p in self._parts if p.split == split)
        done = [p for p in part.order[: part.asked] if p in self._seen]
        return len(done), sum(self.solved(p) for p in done), part.wanted

    def _next_round(self) -> None:
        for part in self._parts:
            self._collect(part)
            missing = part.wanted - len(part.usable)
            chunk = part.order[part.asked : part.asked + max(missing, 0)]
            part.asked += len(chunk)
            new = even_blocks(part.split, chunk, EVEN_BLOCK, part.blocks)
            part.blocks += len(new)
            self.queue.add(new)

    def _collect(self, part: _SplitProgress) -> None:
        """Takes the screened pairs of a split that may be used, once those of the splits before are
        taken.
        """
        screened = part.order[: part.asked]
        part.usable = [p for p in screened if self.is_usable(p) and self.used_elsewhere(p) is None]
        used = part.usable[: part.wanted]
        if part.split == "fit" and self._plan.trained:
            self._fitted = {self._pairs[p].contents for p in used}
        elif part.split == "test":
            self._tested = {self._pairs[p].contents for p in used[: self._plan.max_pairs]}

    def _screened(self, pair: int, block: int | None) -> PairScreened:
        split = self._pairs[pair].split
        if pair not in self._seen:
            return PairScreened(pair, None, None, None, split, None)
        base, sources = self._seen[pair]
        return PairScreened(pair, base, sources, self.solved(pair), split, block)
