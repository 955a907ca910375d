"""The judge of a search: at which level each hypothesis is tested, on which pairs, and its verdict.

Invariants: a verdict depends on the evidence of its hypothesis and on what was fixed before the
first pair of it was measured.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import replace

from raysearch.core.hypothesis import Hypothesis
from raysearch.core.lease import StopRule
from raysearch.core.records import Decided, VerdictName
from raysearch.proposers.base import AlphaSpending
from raysearch.search.criteria import Criterion, DecisionRule
from raysearch.search.preparation import Preparation
from raysearch.search.trial import HypothesisTest
from raysearch.search.verdicts import Ending
from raysearch.stats.false_discovery import e_by_level

NO_PAIRS_LEFT = (
    "no test pairs are left that no earlier generation was tested on; raise pairs.test, or propose "
    "in fewer generations"
)
FUTILE = "no verdict is likely within the pairs that the test may use"
ReasonedVerdict = tuple[VerdictName, str | None]
"""A verdict, and its reason if it needs one."""


class Judge:
    """Makes the tests of hypotheses and decides them.

    Args:
        preparation: what screening fixes: criteria, and pairs in blocks.
        spending: how the chance of a false accept is shared.
    """

    def __init__(
        self, preparation: Preparation, spending: AlphaSpending, rule: DecisionRule
    ) -> None:
        self._preparation = preparation
        self._spending = spending
        self._rule = rule

    def weigh(self, weights: Mapping[str, float]) -> None:
        """Fixes the share of the chance of a false accept that each hypothesis spends, by id."""
        self._spending.weigh(weights)

    def enter(self, hypotheses: Collection[Hypothesis]) -> list[HypothesisTest]:
        """Returns a test for each new hypothesis of a generation.

        Raises:
            SearchFailedError: more are proposed than the proposer said there could be.
        """
        self._spending.enter(hypotheses)
        return [self._preparation.new_test(h, part=self._spending.part_of(h)) for h in hypotheses]

    def renew(
        self, hypotheses: Collection[Hypothesis], share: float, part: int
    ) -> list[HypothesisTest]:
        """Returns a test on a new part of the test pairs for each of these hypotheses, which spend
        `share` of the chance of a false accept together.
        """
        self._spending.move(hypotheses, share, part)
        return [self._preparation.new_test(h, part=part) for h in hypotheses]

    def verdict(self, test: HypothesisTest, at_last: bool) -> ReasonedVerdict | None:
        """Returns the verdict on the evidence so far, or None if more is needed.

        Args:
            at_last: whether every block is counted.
        """
        if self._rule.at_end and not at_last:
            return None
        criterion = self._criterion(test)
        verdict = criterion.verdict(test.evidence, test.keep)
        if verdict == "accept" and self._over_policy(test, criterion) < criterion.change.accept_at:
            return None
        if verdict is not None:
            return verdict, None
        # In company (e-BH) less is enough, at best as much as for one hypothesis alone.
        likely = self._criterion(test, 1.0) if self._rule.fdr else criterion
        futile = not at_last and likely.is_futile(test.evidence, test.keep)
        return ("undecided", FUTILE) if futile else None

    def may_be_leased(self, test: HypothesisTest) -> bool:
        """Says whether a replica can tell when a test ends: whether its verdict depends on the
        numbers of pairs and of matches alone."""
        if self._rule.at_end or self._rule.above_baselines:
            return False
        relabelled = test.hypothesis.intervention.control_kind.arbitrary_labels
        return not relabelled and self._criterion(test).is_of_matches

    def stop_rule(self, test: HypothesisTest) -> StopRule:
        """Returns when a test ends that may be leased."""
        criterion = self._criterion(test)
        return criterion.stop_rule(self._criterion(test, 1.0) if self._rule.fdr else criterion)

    def excess(self, test: HypothesisTest) -> float:
        """Returns the log of the e-value to accept times the level that the hypothesis spends: 0 or
        more where it is accepted alone. -inf where it would not be if it were the only one.
        """
        criterion = self._criterion(test).by_e_values
        up, _ = criterion.log_evidence(test.evidence, test.keep)
        up = min(up, self._over_policy(test, criterion))
        alone = self._criterion(test, 1.0).change.accept_at
        return up - criterion.change.accept_at if up >= alone else -math.inf

    def selected(self, test: HypothesisTest, of: int) -> tuple[float, float, float]:
        """Returns level and ends of the interval of one of `of` accepted hypotheses, corrected for
        their selection.
        """
        change = self._criterion(test).by_e_values.change
        whole = self._criterion(test, 1.0).change.level / (1 - self._rule.reserve)
        level = e_by_level(change.level / whole, of)
        return level, *change.interval(test.evidence, level)

    def decided(self, ending: Ending) -> Decided:
        """Returns the record of a verdict."""
        test, criteria = ending.test, self._preparation.criteria
        variable = test.hypothesis.variable
        fit = None if ending.trial is None else ending.trial.intervention.fit
        decided = test.decided(
            ending.verdict, self._criterion(test), criteria.base_match[variable], ending.reason, fit
        )
        accept_to, reject_from = self._span(test)
        return replace(
            decided,
            no_intervention=criteria.no_intervention(variable, test.part),
            accept_to=accept_to,
            reject_from=reject_from,
        )

    def _span(self, test: HypothesisTest) -> tuple[float | None, float | None]:
        """Returns the thresholds up to which the evidence accepts, and from which on it rejects."""
        criterion = self._criterion(test)
        accept_to, reject_from = criterion.span(test.evidence, test.keep)
        held = self._over_policy(test, criterion) < criterion.change.accept_at
        return None if held else accept_to, reject_from

    def _over_policy(self, test: HypothesisTest, criterion: Criterion) -> float:
        """Returns the log e-value that the hypothesis beats its policy, if it must."""
        return test.over_policy(criterion) if self._rule.above_baselines else math.inf

    def _criterion(self, test: HypothesisTest, share: float | None = None) -> Criterion:
        """Returns the criterion of a test; `share`: instead of the one that it spends."""
        share = self._spending.share(test.hypothesis) if share is None else share
        return self._preparation.criteria.of(test.hypothesis, test.part, share)
