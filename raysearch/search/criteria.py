"""Acceptance criteria: the test that each hypothesis must pass, fixed once screening is over.

Invariants: fixed before the first intervention is measured; a function of the pairs and of the
model's outputs without intervention alone.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from raysearch.core.controls import labels_of
from raysearch.core.events import Ids
from raysearch.core.hypothesis import Hypothesis
from raysearch.core.option_names import PairKinds, TestedScore
from raysearch.core.population import SAMPLER, Population
from raysearch.errors import PairsError
from raysearch.search.baseline_policies import best_policies
from raysearch.search.pair_blocks import ExpectedAnswers, check_variables
from raysearch.search.screening import Screening
from raysearch.stats.anytime_test import AnytimeTest
from raysearch.stats.evidence import Evidence
from raysearch.stats.match_test import MatchTest
from raysearch.stats.paired_test import PairedTest
from raysearch.stats.stop_rule import MatchStopRule

THRESHOLDS = tuple(k / 100 for k in (*range(5, 90, 5), *range(90, 100)))
"""Thresholds at which each verdict is looked at again: by 0.05, from 0.9 on by 0.01."""


@dataclass(frozen=True, slots=True)
class DecisionRule:
    """The rule for verdicts: which pairs count, on which score, and when evidence is looked at.

    Args:
        keep_threshold: threshold for keep pairs if `kinds` is "both"; None means that of change
            pairs.
        at_end: look at the evidence once, after the last pair, so that every hypothesis sees all
            pairs.
        score: the quantity that is tested.
        above_baselines: whether a hypothesis must beat the best policy too, to be accepted.
        holdout_width: half the width of the interval that an estimate on the holdout is to have; 0:
            as narrow as all pairs allow.
        weighted: whether hypotheses with larger effects spend more of the chance of a false accept.
        fixed_horizon: whether a continuation tests anew, on further pairs alone; otherwise evidence
            goes on.
        reserve: share in [0, 1) of both error chances that continuations of a fixed horizon have.
        fdr: whether the expected share of false accepts among all accepts is bounded, by e-BH; else
            the chance of any.
    """

    kinds: PairKinds = "change"
    keep_threshold: float | None = None
    at_end: bool = False
    score: TestedScore = "matches"
    above_baselines: bool = False
    holdout_width: float = 0.05
    weighted: bool = False
    fixed_horizon: bool = False
    reserve: float = 0.0
    fdr: bool = False

    def reserved(self, continuation: int) -> float:
        """Returns what the n-th continuation may spend of a chance of error, n from 1, relative to
        what the tests before all continuations spend.
        """
        return self.reserve / (1 - self.reserve) / (continuation * (continuation + 1))


@dataclass(frozen=True)
class Criterion:
    """The acceptance criterion of one hypothesis: a test on the pairs that count, and one on keep
    pairs if both kinds decide.

    With two tests, a hypothesis is accepted when both accept and rejected when either rejects. Each
    has half the miss rate, so that one that meets both thresholds is still rejected with a chance
    of at most `miss`.
    """

    change: AnytimeTest
    keep: AnytimeTest | None = None
    about: Population = SAMPLER
    sets: Mapping[str | None, int] = field(default_factory=dict)
    """Number of pairs that count, by kind of pair."""
    last: tuple[int, int] = (0, 0)
    """Number of pairs that each of the two tests has seen once every block is counted."""

    def interval_of(self, name: str, evidence: Evidence) -> tuple[float, float]:
        """Returns the confidence interval on one kind of pair.

        Pairs of a kind are drawn in the order of all pairs, so they are draws from their own kind.
        """
        population = None if self.change.population is None else self.sets[name]
        return replace(self.change, population=population).interval(evidence)

    @property
    def size(self) -> int | None:
        """Size of the population: its pairs that count, or its values; None if it is not finite."""
        if self.about.name == "new_values":
            return None
        return self.about.values if self.change.population is None else self.change.population

    @property
    def paired(self) -> PairedTest:
        """The test of the difference to another score on the same pairs."""
        return PairedTest(population=self.change.population)

    def with_share(self, share: float) -> "Criterion":
        """Returns the same criterion for a hypothesis that spends `share`, in (0, 1], of the chance
        of a false accept.
        """
        level = self.change.false_accept * share
        keep = None if self.keep is None else self.keep.at_level(level)
        return replace(self, change=self.change.at_level(level), keep=keep)

    def verdict(self, change: Evidence, keep: Evidence) -> Literal["accept", "reject"] | None:
        """Returns "accept", "reject", or None if more evidence is needed."""
        first = self.change.verdict(change)
        if self.keep is None or first == "reject":
            return first
        second = self.keep.verdict(keep)
        return second if second == "reject" or first == "accept" else None

    def is_futile(self, change: Evidence, keep: Evidence) -> bool:
        """Says whether no verdict is likely any more: that any test rejects, or that all accept."""
        tests = [self.change.chances(change, self.last[0])]
        if self.keep is not None:
            tests.append(self.keep.chances(keep, self.last[1]))
        likely = min(accept for accept, _ in tests) + sum(reject for _, reject in tests)
        return likely < self.change.futility

    @property
    def is_of_matches(self) -> bool:
        """Says whether it is one test, of matches."""
        return self.keep is None and isinstance(self.change, MatchTest)

    def stop_rule(self, likely: "Criterion") -> MatchStopRule:
        """Returns when a test of matches ends; `likely`: the criterion by which a verdict is likely
        or not.
        """
        own, other = self.change, likely.change
        assert isinstance(own, MatchTest), own
        assert isinstance(other, MatchTest), other
        return MatchStopRule(own, other, self.last[0])

    def at(self, threshold: float) -> "Criterion | None":
        """Returns the same criterion at another threshold, which keep pairs share unless they have
        their own; None if its band of indifference leaves (0, 1).
        """
        width = self.change.indifference
        if not width < threshold < 1 - width:
            return None
        shared = self.keep is not None and self.keep.threshold == self.change.threshold
        keep = replace(self.keep, threshold=threshold) if self.keep and shared else self.keep
        return replace(self, change=replace(self.change, threshold=threshold), keep=keep)

    def span(self, change: Evidence, keep: Evidence) -> tuple[float | None, float | None]:
        """Returns up to which of `THRESHOLDS` the evidence accepts at each, and from which on it
        rejects at each; None for none.
        """

        def up_to(name: str, moved: Iterable[Criterion]) -> float | None:
            last = None
            for criterion in moved:
                if criterion.verdict(change, keep) != name:
                    break
                last = criterion.change.threshold
            return last

        return up_to("accept", self._moved), up_to("reject", reversed(self._moved))

    @cached_property
    def _moved(self) -> "tuple[Criterion, ...]":
        """The same criterion at each of `THRESHOLDS`."""
        return tuple(moved for t in THRESHOLDS if (moved := self.at(t)) is not None)

    @cached_property
    def by_e_values(self) -> "Criterion":
        """The same criterion by tests of e-values."""
        keep = None if self.keep is None else self.keep.by_e_values
        return replace(self, change=self.change.by_e_values, keep=keep)

    def log_evidence(self, change: Evidence, keep: Evidence) -> tuple[float, float]:
        """Returns log e-values (to accept, to reject): of the weaker test to accept, of the
        stronger to reject.
        """
        up, down = self.change.log_evidence(change)
        if self.keep is None:
            return up, down
        keep_up, keep_down = self.keep.log_evidence(keep)
        return min(up, keep_up), max(down, keep_down)


class Criteria:
    """The criterion of every variable, with what screening showed about it.

    - `base_match`: share in [0, 1] of the screened test pairs whose counterfactual the model gives
      without intervention; None if no test pair was screened.
    - `policies`: the best policy of each variable, which looks into no network.
    - `labels`: for the control `arbitrary_labels`, the label that replaces each counterfactual.

    Args:
        fitting: whether any subspace is fit, so that fit pairs are needed.

    Raises:
        PairsError: no pair is left, a variable never changes the answer, or no pair tells two
            variables apart.
    """

    def __init__(
        self,
        screening: Screening,
        pairs: Mapping[int, ExpectedAnswers],
        test: AnytimeTest,
        population: Population,
        fitting: bool,
        rule: DecisionRule = DecisionRule(),
    ) -> None:
        _check_solved(screening, fitting)
        self._test, self._rule, self._population = test, rule, population
        self._miss: dict[int, float] = {}
        self._no_intervention: dict[tuple[str, int], float | None] = {}
        self._made: dict[tuple[str, bool, int, float | None], Criterion] = {}
        self._read(screening, pairs)
        pairs = {p: e for p, e in pairs.items() if not e.added}
        used = self._parts[0]
        check_variables(used, f"{len(used)} test pairs that the model solves")
        screened = [
            (e, e.read(out))
            for p, e in pairs.items()
            if e.split == "test" and (out := screening.output(p))
        ]
        self.kinds = rule.kinds
        self.policies = best_policies(pairs, rule.kinds)
        self.base_match: dict[str, float | None] = {}
        self.labels: dict[str, Mapping[Ids, Ids]] = {}
        for v in used[0].counterfactual:
            if rule.kinds == "both" and all(e.changes(v) for e in used):
                raise PairsError(
                    f"pairs.kinds: both needs pairs that {v!r} leaves alone, and on all "
                    f"{len(used)} test pairs that the model solves its "
                    "counterfactual differs from the base's answer; give such pairs, or use change"
                )
            matches = sum(out == e.counterfactual[v] for e, out in screened)
            self.base_match[v] = matches / len(screened) if screened else None
            self.labels[v] = labels_of(pairs.values(), v)

    def extend(
        self,
        screening: Screening,
        pairs: Mapping[int, ExpectedAnswers],
        miss: Mapping[int, float],
    ) -> None:
        """Takes further test pairs into account; `miss`: by new part, the share of the chance of a
        miss that a test on it spends.
        """
        self._miss |= miss
        self._made.clear()
        self._read(screening, pairs)

    def _read(self, screening: Screening, pairs: Mapping[int, ExpectedAnswers]) -> None:
        self._parts = [[pairs[p] for p in part.pairs] for part in screening.parts]
        self._asked = [part.used for part in screening.parts]
        self._no_intervention = {
            (v, at): _matching(
                [
                    (e.read(screening.output(p) or ()), e.counterfactual[v])
                    for p, e in zip(part.pairs, used, strict=True)
                    if e.changes(v) or self._rule.kinds == "unfiltered"
                ]
            )
            for at, (part, used) in enumerate(zip(screening.parts, self._parts, strict=True))
            for v in (used[0].counterfactual if used else ())
        }

    def no_intervention(self, variable: str, part: int) -> float | None:
        """Returns the share of the pairs of a part that count whose output without intervention is
        the counterfactual; None without any.
        """
        return self._no_intervention.get((variable, part))

    def of(self, hypothesis: Hypothesis, part: int = 0, share: float | None = None) -> Criterion:
        """Returns the criterion of the hypothesis's variable on a part of the test pairs; `share`
        as in `with_share`, None for an even one.

        The control `arbitrary_labels` has its own, since relabelling changes which pairs are change
        pairs.
        """
        relabelled = hypothesis.intervention.control_kind.arbitrary_labels
        key = hypothesis.variable, relabelled, part, share
        if key not in self._made:
            self._made[key] = (
                self._make(hypothesis.variable, relabelled, part)
                if share is None
                else self.of(hypothesis, part).with_share(share)
            )
        return self._made[key]

    def _make(self, variable: str, relabelled: bool, part: int) -> Criterion:
        used = self._parts[part] if part < len(self._parts) else []
        labels = self.labels[variable]
        changes = [
            labels.get(e.counterfactual[variable], e.counterfactual[variable]) != e.base
            if relabelled
            else e.changes(variable)
            for e in used
        ]
        asked = self._asked[part] if part < len(self._parts) else 0
        test = replace(self._test, miss=self._test.miss * self._miss.get(part, 1.0))
        return _criterion(test, self._rule, used, changes, asked, self._population)


def _criterion(
    test: AnytimeTest,
    rule: DecisionRule,
    used: Sequence[ExpectedAnswers],
    changes: Sequence[bool],
    asked: int,
    population: Population,
) -> Criterion:
    """Returns the criterion of a variable; `changes` says which of the `used` pairs are change
    pairs, and the test may ask for the first `asked`.
    """
    changing, pairs = sum(changes), len(used)
    last = sum(changes[:asked]), asked - sum(changes[:asked])
    counting = (
        e.set
        for e, change in zip(used, changes, strict=True)
        if change or rule.kinds == "unfiltered"
    )

    def of(test: AnytimeTest, size: int) -> AnytimeTest:
        return replace(test, population=size) if population.fixed else test

    sets = Counter(counting)
    if rule.kinds != "both" or (pairs and changing == pairs):
        counted = changing if rule.kinds == "change" else pairs
        last = last if rule.kinds == "change" else (asked, 0)
        return Criterion(of(test, counted), None, population, sets, last)
    half = replace(test, miss=test.miss / 2)
    keep = half if rule.keep_threshold is None else replace(half, threshold=rule.keep_threshold)
    return Criterion(of(half, changing), of(keep, pairs - changing), population, sets, last)


def _matching(answers: Sequence[tuple[Ids, Ids]]) -> float | None:
    return sum(a == b for a, b in answers) / len(answers) if answers else None


def _check_solved(screening: Screening, fitting: bool) -> None:
    screened, solved, _ = screening.counts("test")
    if solved and not screening.blocks("test"):
        raise PairsError(
            f"all {solved} test pairs that the model solves are pairs that subspaces are trained "
            "on: lower pairs.fit, or give a problem with more pairs"
        )
    if not screening.blocks("test"):
        raise PairsError(
            f"the model solves {solved} of the {screened} test pairs that it was given, without "
            f"any intervention; "
            "a search needs pairs whose base and source it answers as the causal model does: "
            "change the problem or the model (is the leading blank of the answers there?), or set "
            "pairs.solved_only: false"
        )
    if fitting and not screening.blocks("fit"):
        screened, solved, _ = screening.counts("fit")
        raise PairsError(
            f"the model solves {solved} of the {screened} fit pairs that it was given; subspaces "
            f"are fit to pairs that it solves: "
            "raise pairs.fit, or set pairs.solved_only: false"
        )
