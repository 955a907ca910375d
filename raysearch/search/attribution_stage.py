"""The attribution stage: estimates first-order effects of interchanges on fit pairs before the
first proposal.

A proposer may ask for it (`proposers/attribution.py`), and the weights of hypotheses are made from
it (`proposers/weights.py`); effects are computed by
`engine/attribution/attributor.py`. Invariants: effects depend on the fit pairs that the model
solves and on nothing else, so that a choice made by them is independent of the test pairs; they are
read from the journal, whichever worker computed them and in whatever order.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from raysearch.core.events import Attributed, Task
from raysearch.core.records import Effect, Weighed
from raysearch.errors import PairsError
from raysearch.proposers.base import AttributionPlan, Effects
from raysearch.search.block_queue import BlockQueue
from raysearch.search.pair_blocks import EVEN_BLOCK, ExpectedAnswers, even_blocks


class AttributionStage:
    """Runs attribution over the fit pairs: hands out tasks, takes `Attributed` events, ends with
    `effects`.

    Args:
        usable: indices of the fit pairs that the model solves, in order.

    Raises:
        PairsError: a proposer needs the effects, and there is no such pair, or a variable changes
            the answer on none of them.
    """

    def __init__(
        self,
        plan: AttributionPlan,
        usable: Sequence[int],
        pairs: Mapping[int, ExpectedAnswers],
    ) -> None:
        self._units = plan.units
        used = usable[: plan.pairs]
        self._changing = _changing([pairs[p] for p in used], plan.needed_by)
        self._received: dict[int, Attributed] = {}
        self.queue = BlockQueue("attribution")
        self.queue.add(even_blocks("fit", used, EVEN_BLOCK))

    @property
    def done(self) -> bool:
        return self.queue.empty

    def ask(self, task: int) -> Task | None:
        """Returns the next task, with the id `task`, or None if no block is ready."""
        block = self.queue.ask(task)
        return None if block is None else Task(task, "attribute", (), (block,), units=self._units)

    def tell(self, event: Attributed) -> bool:
        """Stores the effects of a block; returns False if they were known already."""
        is_new = self.queue.receive(event.task, event.split, event.block, event.pairs)
        if is_new:
            assert all(len(of) == len(self._units) for of in event.effects.values()), (
                "of another space"
            )
            self._received[event.block] = event
        return is_new

    @property
    def effects(self) -> Effects:
        """Mean effect over the change pairs of each variable; available once every block is
        reported.
        """
        assert self.done
        return {
            v: dict(zip(self._units, self._means(v), strict=True))
            for v, count in self._changing.items()
            if count
        }

    @property
    def record(self) -> Weighed:
        """The same effects as a record for the tables."""
        found = self.effects
        return Weighed(
            tuple(Effect(v, u, e, self._changing[v]) for v in found for u, e in found[v].items())
        )

    def _means(self, variable: str) -> list[float | None]:
        blocks = [self._received[at].effects[variable] for at in sorted(self._received)]
        return [_mean(by_block, self._changing[variable]) for by_block in zip(*blocks, strict=True)]


def _changing(used: Sequence[ExpectedAnswers], needed_by: str | None) -> dict[str, int]:
    """Counts the change pairs of each variable."""
    if needed_by is None:
        return Counter(v for pair in used for v in pair.counterfactual if pair.changes(v))
    if not used:
        raise PairsError(
            f"{needed_by} computes effects on fit pairs that the model solves, and "
            f"there are none; raise pairs.fit, or set pairs.solved_only: false"
        )
    changing = {v: sum(pair.changes(v) for pair in used) for v in used[0].counterfactual}
    for variable, count in changing.items():
        if not count:
            raise PairsError(
                f"{needed_by} has nothing to tell {variable!r} by: on none of the "
                f"{len(used)} fit pairs that it uses does its counterfactual differ from the base's"
                f" answer; raise pairs.fit, and how many of them it uses (propose.options)"
            )
    return changing


def _mean(by_block: Sequence[float | None], pairs: int) -> float | None:
    known = [effect for effect in by_block if effect is not None]
    return math.fsum(known) / pairs if len(known) == len(by_block) else None
