"""Standards: what hypotheses are judged by, once screening has told which pairs the model solves.

Invariants: fixed before the first intervention is measured; a function of the pairs and of the
model's own outputs alone.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from raysearch.core.choices import Kinds, TestedScore
from raysearch.core.controls import arbitrary_labels
from raysearch.core.events import Ids
from raysearch.core.hypothesis import Hypothesis
from raysearch.errors import PairsError
from raysearch.search.pair_blocks import ExpectedAnswers, check_variables
from raysearch.search.screening import Screening
from raysearch.stats.e_process import AnytimeTest
from raysearch.stats.evidence import Evidence


@dataclass(frozen=True, slots=True)
class DecisionRule:
    """How verdicts are come to. `keep_threshold`: of keep pairs, where both `kinds` decide (None:
    as of change pairs).

    `at_end`: evidence is looked at once, after the last pair, and every hypothesis sees them all.
    `score`: what the test is on.
    """

    kinds: Kinds = "change"
    keep_threshold: float | None = None
    at_end: bool = False
    score: TestedScore = "matches"


@dataclass(frozen=True)
class Criterion:
    """What one hypothesis is judged by: a test of the pairs that count, and one of keep pairs where
    both kinds decide.

    With both, a hypothesis is accepted when both tests accept, and rejected when either does, each
    at half the chance of a miss: one that meets both thresholds is still rejected with a chance of
    at most `miss`.
    """

    change: AnytimeTest
    keep: AnytimeTest | None = None
    sets: Mapping[str | None, int] = field(default_factory=dict)
    """Of each kind of pair how many count, in all."""

    def interval_of(self, name: str, evidence: Evidence) -> tuple[float, float]:
        """The interval of one kind of pair alone: its pairs come in the order of all, so they are
        draws of their own kind."""
        population = None if self.change.population is None else self.sets[name]
        return replace(self.change, population=population).interval(evidence)

    def among(self, hypotheses: int) -> "Criterion":
        """The same at another K."""
        keep = None if self.keep is None else replace(self.keep, hypotheses=hypotheses)
        return replace(self, change=replace(self.change, hypotheses=hypotheses), keep=keep)

    def verdict(self, change: Evidence, keep: Evidence) -> Literal["accept", "reject"] | None:
        """Accept, reject, or None: go on."""
        first = self.change.verdict(change)
        if self.keep is None or first == "reject":
            return first
        second = self.keep.verdict(keep)
        return second if second == "reject" or first == "accept" else None

    def log_evidence(self, change: Evidence, keep: Evidence) -> tuple[float, float]:
        """Log e-values: of the weaker case to accept, of the stronger one to reject."""
        up, down = self.change.log_evidence(change)
        if self.keep is None:
            return up, down
        keep_up, keep_down = self.keep.log_evidence(keep)
        return min(up, keep_up), max(down, keep_down)


class Criteria:
    """`base_match`: the share in [0, 1] of all screened test pairs that match without intervention;
    `labels`: what each counterfactual is called where labels are arbitrary.

    `fitting`: whether subspaces are to be fit.

    Raises: PairsError where no pair is left, a variable never matters, or two cannot be told apart.
    """

    def __init__(
        self,
        screening: Screening,
        pairs: Mapping[int, ExpectedAnswers],
        test: AnytimeTest,
        these_pairs: bool,
        fitting: bool,
        rule: DecisionRule = DecisionRule(),
    ) -> None:
        _check_solved(screening, fitting)
        used = [pairs[p] for p in screening.usable("test")]
        check_variables(used, f"{len(used)} test pairs that the model solves")
        screened = [
            (e, e.read(out))
            for p, e in pairs.items()
            if e.split == "test" and (out := screening.output(p))
        ]
        self.kinds = rule.kinds
        self._standards: dict[str, Criterion] = {}
        self._relabelled: dict[str, Criterion] = {}
        self.base_match: dict[str, float | None] = {}
        self.labels: dict[str, Mapping[Ids, Ids]] = {}
        for v in used[0].counterfactual:
            changing = sum(e.changes(v) for e in used)
            if rule.kinds == "both" and changing == len(used):
                raise PairsError(
                    f"pairs.kinds: both needs pairs that {v!r} leaves alone, and on all "
                    f"{len(used)} test pairs that the model solves its "
                    "counterfactual differs from the base's answer; give such pairs, or use change"
                )
            self._standards[v] = _standard(
                test, rule, used, [e.changes(v) for e in used], these_pairs
            )
            matches = sum(out == e.counterfactual[v] for e, out in screened)
            self.base_match[v] = matches / len(screened) if screened else None
            self.labels[v] = labels = arbitrary_labels(e.counterfactual[v] for e in pairs.values())
            relabelled = [labels[e.counterfactual[v]] != e.base for e in used]
            self._relabelled[v] = _standard(test, rule, used, relabelled, these_pairs)

    def of(self, hypothesis: Hypothesis) -> Criterion:
        """That of its variable; under arbitrary labels other pairs are change pairs."""
        arbitrary = hypothesis.intervention.control == "arbitrary_labels"
        return (self._relabelled if arbitrary else self._standards)[hypothesis.variable]


def _standard(
    test: AnytimeTest,
    rule: DecisionRule,
    used: Sequence[ExpectedAnswers],
    changes: Sequence[bool],
    these_pairs: bool,
) -> Criterion:
    """`changes`: which of the `used` pairs are change pairs."""
    changing, pairs = sum(changes), len(used)
    counting = (
        e.set
        for e, change in zip(used, changes, strict=True)
        if change or rule.kinds == "unfiltered"
    )

    def of(test: AnytimeTest, population: int) -> AnytimeTest:
        return replace(test, population=population) if these_pairs else test

    sets = Counter(counting)
    if rule.kinds != "both" or changing == pairs:
        return Criterion(of(test, changing if rule.kinds == "change" else pairs), sets=sets)
    half = replace(test, miss=test.miss / 2)
    keep = half if rule.keep_threshold is None else replace(half, threshold=rule.keep_threshold)
    return Criterion(of(half, changing), of(keep, pairs - changing), sets)


def _check_solved(screening: Screening, fitting: bool) -> None:
    screened, solved, _ = screening.counts("test")
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
