"""Screening: which pairs the model solves without intervention, decided once and for all.

A split wants a number of solved pairs. Pairs are screened in their fixed order, in rounds: as many
as are still missing, until there are enough or none is left. Invariants: which pairs are used is a
function of the pairs' order and the model's outputs alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from raysearch.causal import SPLITS, LeftOutCount, Split
from raysearch.core.events import Block, Ids, Screened, Task
from raysearch.core.records import Blocked, PairScreened
from raysearch.search.block_queue import BlockQueue
from raysearch.search.pair_blocks import EVEN_BLOCK, ExpectedAnswers, cut_at_looks, even_blocks


@dataclass(frozen=True, slots=True)
class ScreeningPlan:
    """How many solved pairs each split wants, how many of the test pairs the test may use; only
    solved pairs or all.

    `left_out`: pairs that never got here. `at_looks`: test pairs are cut where the sequential test
    looks; else evenly.
    """

    wanted: Mapping[Split, int]
    max_pairs: int
    solved_only: bool
    at_looks: bool = True
    left_out: tuple[LeftOutCount, ...] = ()


@dataclass
class _Part:
    """One split under way: pairs in order, how far they have been asked for, how many are usable so
    far."""

    split: Split
    order: tuple[int, ...]
    wanted: int
    asked: int = 0
    blocks: int = 0
    usable: list[int] = field(default_factory=list)


class Screening:
    """A small brain: tasks out, Screened in, Blocked at the end. `queue`: of the blocks that are to
    be screened."""

    def __init__(self, pairs: Mapping[int, ExpectedAnswers], plan: ScreeningPlan) -> None:
        self._pairs = pairs
        self._plan = plan
        self._parts = [
            _Part(
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
        self._next_round()

    @property
    def done(self) -> bool:
        return self.queue.empty

    def ask(self, task: int) -> Task | None:
        """The next task, under the id `task`, if a block is ready to go out."""
        block = self.queue.ask(task)
        return None if block is None else Task(task, "screen", (), (block,))

    def tell(self, event: Screened) -> bool:
        """Takes the outputs of a block; False where they were known already."""
        if not self.queue.told(event.task, event.split, event.block, event.pairs):
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
        """Which pairs are solved and which block each came to."""
        assert self.done
        place = {
            pair: block.index
            for split in SPLITS
            for block in self.blocks(split)
            for pair in block.pairs
        }
        return Blocked(tuple(self._screened(pair, place.get(pair)) for pair in self._pairs))

    def blocks(self, split: Split) -> tuple[Block, ...]:
        """The blocks of evidence of a split, once screening is done."""
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
        """The pairs of a split that evidence may come from, in order."""
        part = next(p for p in self._parts if p.split == split)
        return tuple(part.usable[: part.wanted])

    def output(self, pair: int) -> Ids | None:
        """The model's own output on a pair's base; None where it was not screened."""
        return self._seen[pair][0] if pair in self._seen else None

    def differences(self, pair: int) -> Mapping[str, float]:
        """The logit differences of a fit pair's base without intervention, by variable, where the
        job declares them."""
        return self._differences.get(pair, {})

    def solved(self, pair: int) -> bool:
        """Whether base and sources are right without intervention."""
        base, sources = self._seen[pair]
        e = self._pairs[pair]
        return e.read(base) == e.base and all(
            e.read(sources[name]) == ids for name, ids in e.sources.items()
        )

    def base_solved(self, pair: int) -> bool:
        """Whether the base of a screened pair is right without intervention."""
        e = self._pairs[pair]
        return e.read(self._seen[pair][0]) == e.base

    def is_usable(self, pair: int) -> bool:
        """Whether evidence may come from a screened pair, as far as the model's own outputs go."""
        return not self._plan.solved_only or self.solved(pair)

    def counts(self, split: Split) -> tuple[int, int, int]:
        """(screened, solved, wanted) of a split."""
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

    def _collect(self, part: _Part) -> None:
        screened = part.order[: part.asked]
        part.usable = [p for p in screened if self.is_usable(p)]

    def _screened(self, pair: int, block: int | None) -> PairScreened:
        split = self._pairs[pair].split
        if pair not in self._seen:
            return PairScreened(pair, None, None, None, split, None)
        base, sources = self._seen[pair]
        return PairScreened(pair, base, sources, self.solved(pair), split, block)
