"""Attributing: what interchanges would do to first order, on fit pairs, told before the first
hypothesis is proposed.

For a proposer that wants to choose by it (`attribution.py`; how an effect is computed:
`engine/attribution/attributor.py`). Invariants: effects are a function of the fit pairs that the
model solves alone, so that what is chosen by them is independent of the test pairs; they are those
of the journal, whoever computed them in whatever order.
"""

import math
from collections.abc import Mapping, Sequence

from raysearch.core.events import Attributed, Task
from raysearch.core.records import Effect, Weighed
from raysearch.errors import PairsError
from raysearch.proposers.base import AttributionPlan, Effects
from raysearch.search.block_queue import BlockQueue
from raysearch.search.pair_blocks import EVEN_BLOCK, ExpectedAnswers, even_blocks


class AttributionStage:
    """A small brain: tasks out, `Attributed` in, `effects` at the end. `usable`: the fit pairs that
    the model solves, in order.

    Raises: PairsError where there are none, or none whose answer a variable changes.
    """

    def __init__(
        self,
        plan: AttributionPlan,
        usable: Sequence[int],
        pairs: Mapping[int, ExpectedAnswers],
    ) -> None:
        self._units = plan.units
        used = usable[: plan.pairs]
        self._changing = _changing([pairs[p] for p in used], plan.proposer)
        self._told: dict[int, Attributed] = {}
        self.queue = BlockQueue("attribution")
        self.queue.add(even_blocks("fit", used, EVEN_BLOCK))

    @property
    def done(self) -> bool:
        return self.queue.empty

    def ask(self, task: int) -> Task | None:
        """The next task, under the id `task`, if a block is ready to go out."""
        block = self.queue.ask(task)
        return None if block is None else Task(task, "attribute", (), (block,), units=self._units)

    def tell(self, event: Attributed) -> bool:
        """Takes the effects of a block; whether they were news."""
        news = self.queue.told(event.task, event.split, event.block, event.pairs)
        if news:
            assert all(len(of) == len(self._units) for of in event.effects.values()), (
                "of another space"
            )
            self._told[event.block] = event
        return news

    @property
    def effects(self) -> Effects:
        """Means over the change pairs of each variable, once all blocks are told."""
        assert self.done
        return {v: dict(zip(self._units, self._means(v), strict=True)) for v in self._changing}

    @property
    def weighed(self) -> Weighed:
        """`effects`, to be written down."""
        found = self.effects
        return Weighed(
            tuple(Effect(v, u, e, self._changing[v]) for v in found for u, e in found[v].items())
        )

    def _means(self, variable: str) -> list[float | None]:
        blocks = [self._told[at].effects[variable] for at in sorted(self._told)]
        return [
            _mean(of_blocks, self._changing[variable]) for of_blocks in zip(*blocks, strict=True)
        ]


def _changing(used: Sequence[ExpectedAnswers], proposer: str) -> dict[str, int]:
    """Returns how many of the pairs are change pairs, for each variable."""
    if not used:
        raise PairsError(
            f"propose.use: {proposer} computes effects on fit pairs that the model solves, and "
            f"there are none; raise pairs.fit, or set pairs.solved_only: false"
        )
    changing = {v: sum(pair.changes(v) for pair in used) for v in used[0].counterfactual}
    for variable, count in changing.items():
        if not count:
            raise PairsError(
                f"propose.use: {proposer} has nothing to tell {variable!r} by: on none of the "
                f"{len(used)} fit pairs that it uses does its counterfactual differ from the base's "
                f"answer; raise pairs.fit, and how many of them it uses (propose.options)"
            )
    return changing


def _mean(of_blocks: Sequence[float | None], pairs: int) -> float | None:
    known = [effect for effect in of_blocks if effect is not None]
    return math.fsum(known) / pairs if len(known) == len(of_blocks) else None
