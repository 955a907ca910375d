"""Groundwork: what is known before the first hypothesis is proposed: which pairs are solved, what
hypotheses are judged by, effects.

Invariants: screening comes first, and attribution, where the proposer asks for it, right after;
nothing of it is ever done again.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from raysearch.core.events import Attributed, Failed, Lost, Screened, Task
from raysearch.core.pair_counts import PairCount
from raysearch.core.records import Record
from raysearch.proposers.base import NOT_ASKED, AttributionPlan, Effects
from raysearch.search.attribution_stage import AttributionStage
from raysearch.search.block_queue import BlockQueue
from raysearch.search.criteria import Criteria, DecisionRule
from raysearch.search.pair_blocks import ExpectedAnswers
from raysearch.search.pair_filters import counts_after
from raysearch.search.score_scale import Scored, scored
from raysearch.search.screening import Screening, ScreeningPlan
from raysearch.stats.e_process import AnytimeTest


class Preparation:
    """Tasks out, `Screened` and `Attributed` in. `fitting`: whether subspaces are to be fit;
    `attribution`: where effects are wanted.

    Raises: as `Standards` and `Attributing`, when screening is over.
    """

    def __init__(
        self,
        pairs: Mapping[int, ExpectedAnswers],
        plan: ScreeningPlan,
        test: AnytimeTest,
        these_pairs: bool,
        fitting: bool,
        rule: DecisionRule,
        attribution: AttributionPlan | None,
    ) -> None:
        self._pairs = pairs
        self._test = test
        self._these_pairs = these_pairs
        self._fitting = fitting
        self._rule = rule
        self._plan = attribution
        self._left_out = plan.left_out
        self.screening = Screening(pairs, plan)
        self.scored: Scored | None = None
        self._standards: Criteria | None = None
        self._attributing: AttributionStage | None = None

    @property
    def done(self) -> bool:
        return self._standards is not None and (self._attributing is None or self._attributing.done)

    @property
    def stage(self) -> Literal["screening", "attributing"]:
        """While it is not done."""
        return "screening" if self._standards is None else "attributing"

    @property
    def queued(self) -> int:
        return sum(queue.queued for queue in self._queues)

    @property
    def out(self) -> int:
        """Tasks that are out."""
        return sum(queue.out for queue in self._queues)

    @property
    def standards(self) -> Criteria:
        assert self._standards is not None, "screening comes first"
        return self._standards

    @property
    def effects(self) -> Effects:
        """Those of attribution, once it is done; none where nobody asked."""
        return NOT_ASKED if self._attributing is None else self._attributing.effects

    def ask(self, task: int) -> Task | None:
        """The next task, under the id `task`."""
        return (
            self.screening.ask(task) if self._attributing is None else self._attributing.ask(task)
        )

    def tell(self, event: Screened | Attributed) -> list[Record]:
        """Takes what was seen."""
        if isinstance(event, Attributed):
            assert self._attributing is not None, "screening comes first"
            return (
                [self._attributing.weighed]
                if self._attributing.tell(event) and self._attributing.done
                else []
            )
        if not self.screening.tell(event) or not self.screening.done:
            return []
        self._standards = Criteria(
            self.screening, self._pairs, self._test, self._these_pairs, self._fitting, self._rule
        )
        self.scored = scored(self._rule.score, self.screening, self._pairs)
        if self._plan is not None:
            self._attributing = AttributionStage(
                self._plan, self.screening.usable("fit"), self._pairs
            )
        return [replace(self.screening.blocked(), counts=self.counts)]

    @property
    def counts(self) -> tuple[PairCount, ...]:
        """What became of every pair for every variable, once screening is over."""
        return counts_after(
            self._pairs, self.screening, self._rule.kinds == "change", self._left_out
        )

    def again(self, event: Lost | Failed) -> None:
        """A task was lost or raised: if it was of ours, it goes out once more. Raises:
        SearchFailedError after three attempts."""
        for queue in self._queues:
            queue.again(event)

    @property
    def _queues(self) -> list[BlockQueue]:
        return [
            self.screening.queue,
            *([] if self._attributing is None else [self._attributing.queue]),
        ]
