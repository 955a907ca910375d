"""Preparation before the first proposal: screening of pairs, acceptance criteria, attribution.

Invariants: screening comes first, then attribution if the proposer asks for it; neither is ever
repeated.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from typing import Literal

from raysearch.core.events import Attributed, Failed, Lost, Screened, Task
from raysearch.core.hypothesis import Hypothesis
from raysearch.core.pair_counts import PairCount
from raysearch.core.population import Population
from raysearch.core.records import Reading, Record
from raysearch.errors import SearchFailedError
from raysearch.proposers.base import NO_EFFECTS, AttributionPlan, Effects
from raysearch.search.attribution_stage import AttributionStage
from raysearch.search.block_queue import BlockQueue
from raysearch.search.criteria import Criteria, DecisionRule
from raysearch.search.pair_blocks import ExpectedAnswers, repeats
from raysearch.search.pair_filters import count_pairs
from raysearch.search.score_scale import ScoreScale, score_scale
from raysearch.search.screening import Screening, ScreeningPlan
from raysearch.search.trial import NO_RELABELLING, HypothesisTest
from raysearch.stats.anytime_test import AnytimeTest


class Preparation:
    """Runs screening and attribution: hands out tasks, takes `Screened` and `Attributed` events.

    Args:
        fitting: whether any subspace is fit.
        attribution: the plan of attribution, or None if no effects are computed.

    Raises:
        PairsError: as `Criteria` and `AttributionStage`, when screening ends.
    """

    def __init__(
        self,
        pairs: Mapping[int, ExpectedAnswers],
        plan: ScreeningPlan,
        test: AnytimeTest,
        population: Population,
        fitting: bool,
        rule: DecisionRule,
        attribution: AttributionPlan | None,
    ) -> None:
        self._pairs = pairs
        self._test = test
        self._population = population
        self._fitting = fitting
        self._rule = rule
        self._plan = attribution
        self._left_out = plan.left_out
        self.screening = Screening(pairs, plan)
        self.score_scale: ScoreScale | None = None
        self._criteria: Criteria | None = None
        self._shares: Mapping[int, float] = {}
        self.repeats: Set[int] = frozenset()
        """Test pairs that are equal to an earlier one of their part."""
        self._attribution: AttributionStage | None = None

    @property
    def done(self) -> bool:
        screened = self._criteria is not None and self.screening.done
        return screened and (self._attribution is None or self._attribution.done)

    @property
    def stage(self) -> Literal["screening", "attributing"]:
        """The current stage, while preparation is not done."""
        screening = self._criteria is None or not self.screening.done
        return "screening" if screening else "attributing"

    @property
    def queued(self) -> int:
        return sum(queue.queued for queue in self._queues)

    @property
    def out(self) -> int:
        """Number of tasks that are running."""
        return sum(queue.out for queue in self._queues)

    @property
    def criteria(self) -> Criteria:
        assert self._criteria is not None, "screening comes first"
        return self._criteria

    @property
    def effects(self) -> Effects:
        """Effects from attribution once it is done; empty if nobody asked for them."""
        return NO_EFFECTS if self._attribution is None else self._attribution.effects

    @property
    def weighs(self) -> bool:
        """Says whether hypotheses have weights by their effects."""
        return self._rule.weighted and self._attribution is not None

    @property
    def test_pairs(self) -> int:
        """Number of pairs that a hypothesis can be tested on; 0 until preparation is done."""
        return sum(len(b.pairs) for b in self.screening.test_blocks(0)) if self.done else 0

    def new_test(
        self, hypothesis: Hypothesis, reading: Reading | None = None, part: int = 0
    ) -> HypothesisTest:
        """Returns the test, or a reading on the holdout, of a hypothesis without evidence."""
        intervention, policy = hypothesis.intervention, None
        if intervention.control is None and not intervention.is_ablation and reading is None:
            policy = self.criteria.policies[hypothesis.variable]
        arbitrary = intervention.control_kind.arbitrary_labels
        return HypothesisTest(
            hypothesis,
            labels=self.criteria.labels[hypothesis.variable] if arbitrary else NO_RELABELLING,
            reading=reading,
            part=part,
            repeats=self.repeats,
            unfiltered=self._rule.kinds == "unfiltered",
            score_scale=self.score_scale,
            policy=policy,
        )

    def ask(self, task: int) -> Task | None:
        """Returns the next task, with the id `task`, or None if no block is ready."""
        if self._attribution is None or not self.screening.done:
            return self.screening.ask(task)
        return self._attribution.ask(task)

    def extend(self, most: int, parts: Sequence[int], miss: float | None) -> list[Record]:
        """Lets hypotheses on these parts of the test pairs use at most `most` further ones; returns
        records if all of them are screened already.

        Args:
            miss: None, or the share of the chance of a miss that the tests on these, which are new
                parts, spend.
        """
        self._shares = {} if miss is None else dict.fromkeys(parts, miss)
        lacking = 0 if self._population.fixed else self.screening.lacking(most, parts)
        self.screening.extend(most, parts, lacking)
        return self._extended() if self.screening.done else []

    def _extended(self) -> list[Record]:
        self.criteria.extend(self.screening, self._pairs, self._shares)
        self._find_repeats()
        return [replace(self.screening.blocked(), counts=self.counts)]

    def _find_repeats(self) -> None:
        self.repeats = frozenset(
            pair
            for part in self.screening.parts
            for pair in repeats((p, self._pairs[p].contents) for p in part.pairs)
        )

    def tell(self, event: Screened | Attributed) -> list[Record]:
        """Takes an event; returns the records that follow when a stage ends."""
        if isinstance(event, Attributed):
            if self._attribution is None:  # given up
                return []
            is_new = self._attribution.tell(event)
            return [self._attribution.record] if is_new and self._attribution.done else []
        if not self.screening.tell(event) or not self.screening.done:
            return []
        if self._criteria is not None:
            return self._extended()
        self._criteria = Criteria(
            self.screening, self._pairs, self._test, self._population, self._fitting, self._rule
        )
        self._find_repeats()
        self.score_scale = score_scale(self._rule.score, self.screening, self._pairs)
        usable = self.screening.usable("fit")
        if self._plan is not None and (usable or self._plan.needed_by is not None):
            self._attribution = AttributionStage(self._plan, usable, self._pairs)
        return [replace(self.screening.blocked(), counts=self.counts)]

    @property
    def counts(self) -> tuple[PairCount, ...]:
        """Number of pairs used or left out for every variable, by reason, once screening is
        over.
        """
        return count_pairs(
            self._pairs, self.screening, self._rule.kinds == "change", self._left_out
        )

    def requeue(self, event: Lost | Failed) -> None:
        """Queues the block of a lost or failed task again; ignores tasks of later stages.

        Attribution for weights alone is given up after the third failed attempt: they are even.

        Raises:
            SearchFailedError: this was the third failed attempt.
        """
        self.screening.queue.requeue(event)
        if self._attribution is None or self._plan is None:
            return
        try:
            self._attribution.queue.requeue(event)
        except SearchFailedError:
            if self._plan.needed_by is not None:
                raise
            self._attribution = None

    @property
    def _queues(self) -> list[BlockQueue]:
        return [
            self.screening.queue,
            *([] if self._attribution is None else [self._attribution.queue]),
        ]
