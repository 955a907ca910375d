"""Records of what the search concludes from events, for tables and trackers; and a snapshot of its
state.

Invariants: every type is a frozen value; a record follows from the events so far alone, so that a
replay gives the same records.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from raysearch.causal import Split
from raysearch.core.baselines import Baseline
from raysearch.core.events import Fitted, Ids, Measured
from raysearch.core.hypothesis import Hypothesis, Unit
from raysearch.core.pair_counts import PairCount
from raysearch.core.population import PopulationName


@dataclass(frozen=True, slots=True)
class Proposed:
    """A hypothesis enters the search."""

    hypothesis: Hypothesis
    proposed_by: str
    generation: int


@dataclass(frozen=True, slots=True)
class PairScreened:
    """Result of screening one pair: the model's outputs, whether all are right, and its block
    (None: not used).
    """

    pair: int
    base_output: Ids | None
    source_outputs: Mapping[str, Ids] | None
    solved: bool | None
    split: Split
    block: int | None


@dataclass(frozen=True, slots=True)
class Blocked:
    """Screening is over: the result of each pair, and how many count for each variable."""

    pairs: tuple[PairScreened, ...]
    counts: tuple[PairCount, ...] = ()


@dataclass(frozen=True, slots=True)
class Effect:
    """First-order effect of an interchange at `unit` on one variable.

    The effect is the mean over `pairs` change pairs of a share in [0, 1]; None if the unit cannot
    be interchanged on one of them.
    """

    variable: str
    unit: Unit
    effect: float | None
    pairs: int


@dataclass(frozen=True, slots=True)
class Weighed:
    """Attribution is over: the effects that the proposer chooses by, of every variable at every
    site.
    """

    effects: tuple[Effect, ...]


@dataclass(frozen=True, slots=True)
class Counted:
    """An observation entered the evidence of at least one hypothesis.

    `conflicts` counts the repeats that had given other outputs by then; `part` is the part of the
    test pairs that its block is of, 0 on the holdout.
    """

    observation: Measured
    conflicts: int
    part: int = 0


@dataclass(frozen=True, slots=True)
class Conflicted:
    """A repeat gave other outputs than the first observation, and was not counted."""

    repeat: Measured | Fitted


VerdictName = Literal["accept", "reject", "undecided", "failed"]


@dataclass(frozen=True, slots=True)
class SetCount:
    """Evidence on the pairs of one kind (Pair.set), with its own 95 % interval, valid at the
    stopping time.

    `score` is the mean score, if the test is on one.
    """

    name: str
    n: int
    matches: int
    low: float
    high: float
    score: float | None = None


@dataclass(frozen=True, slots=True)
class PolicyComparison:
    """A hypothesis against the best policy of its variable, on the pairs that count.

    Args:
        share: share of these pairs on which the policy is right.
        low: lower end of the 95 % interval of the difference between the two shares of matches;
            None unless accepted, and where nothing can beat the policy.
        high: upper end of that interval.
    """

    baseline: Baseline
    share: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Decided:
    """A verdict, with the evidence that led to it.

    Counts are over the pairs that count: change pairs, or all if the rule says so.

    Args:
        low: lower end of the 95 % interval, valid at the stopping time; of the mean score if the
            test is on one.
        high: upper end of that interval.
        keep_n: number of keep pairs.
        copies: outputs on change pairs that equal an answer of the source.
        log_evidence: log e-value against the rejected null; the larger of the two if undecided.
        fit: digest of what was fit and then tested; None if nothing was.
        sets: the same counts by kind of pair, if the problem tells kinds apart.
        score: mean score, if the test is on one; `keep_score` that of keep pairs.
        means: mean of every score that the job declares.
        against: the best policy of the variable, which looks into no network.
        level: chance of a false accept that the verdict spends: `false_accept` / K.
        population: what the verdict is about; None for runs of before.
        population_size: number of its pairs, or of its values (these_values), where it is finite.
        distinct: number of different pairs among the n.
        no_intervention: share of the pairs that count whose output without intervention is the
            counterfactual.
        accept_to: the highest threshold of a list at which, and at all below, the same evidence
            accepts; None at none.
        reject_from: the lowest at which, and at all above, it rejects.
        part: the part of the test pairs that the evidence is of.
    """

    hypothesis: Hypothesis
    verdict: VerdictName
    n: int
    matches: int
    low: float
    high: float
    keep_n: int
    keep_matches: int
    copies: int
    base_match_unfiltered: float | None
    log_evidence: float
    claim: str
    reason: str | None = None
    fit: str | None = None
    sets: tuple[SetCount, ...] = ()
    score: float | None = None
    keep_score: float | None = None
    means: tuple[tuple[str, float], ...] = ()
    against: PolicyComparison | None = None
    level: float | None = None
    population: PopulationName | None = None
    population_size: int | None = None
    distinct: int | None = None
    no_intervention: float | None = None
    accept_to: float | None = None
    reject_from: float | None = None
    part: int = 0


@dataclass(frozen=True, slots=True)
class Reading:
    """A count on holdout change pairs of a control (`name`: one of `HOLDOUT_CONTROLS`) or of
    one seed (`fit`).

    `score` is the mean score, if the test is on one.
    """

    name: str
    n: int
    matches: int
    seed: int | None = None
    fit: str | None = None
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Estimated:
    """An accepted hypothesis on the holdout pairs, with the readings of its controls and seeds in
    `readings`.

    `score` is the mean score, if the test is on one; `low` and `high` are the ends of the 95 %
    interval of its mean, None without pairs; `distinct` is the number of different pairs among
    the n.
    """

    hypothesis: Hypothesis
    n: int
    matches: int
    readings: tuple[Reading, ...] = ()
    score: float | None = None
    low: float | None = None
    high: float | None = None
    distinct: int | None = None


@dataclass(frozen=True, slots=True)
class Selected:
    """A hypothesis that the whole search accepts, once all verdicts are there.

    Args:
        fdr_verdict: "accept" if e-BH accepts it at a false discovery rate of `test.false_accept`.
        selected: number of accepted hypotheses, controls apart; None if this one is not.
        fcr_level: level of the interval from `fcr_low` to `fcr_high`, at which the expected share
            of accepted hypotheses whose interval misses is at most 5 % (e-BY).
    """

    hypothesis: Hypothesis
    fdr_verdict: str | None
    selected: int | None
    fcr_level: float | None
    fcr_low: float | None
    fcr_high: float | None


@dataclass(frozen=True, slots=True)
class Trained:
    """A stretch of training was reported; `rung` counts the rungs that its seed had passed."""

    event: Fitted
    rung: int


FitStatus = Literal["done", "stopped", "dropped"]


@dataclass(frozen=True, slots=True)
class Concluded:
    """The training of a seed ended: at its last step, early (no more progress), or dropped at a
    rung.

    `event.fit` is the result; `start` is the digest of the rotation in which it started, or None
    for a random start.
    """

    event: Fitted
    rung: int
    status: FitStatus
    start: str | None = None


Record = (
    Proposed
    | Blocked
    | Weighed
    | Trained
    | Concluded
    | Counted
    | Conflicted
    | Decided
    | Estimated
    | Selected
)


Stage = Literal["screening", "attributing", "searching", "estimating", "done"]


@dataclass(frozen=True, slots=True)
class Training:
    """The seeds that train now.

    Args:
        step: the steps that they have done, the fewest of them; `steps`: of how many.
        loss: mean training loss when it was last seen, in nats; None before.
        of: what they are trained for: variables, and controls of these.
        done: steps of all seeds of the search so far.
        left: steps that may still come.
    """

    step: int
    steps: int
    loss: float | None
    of: tuple[str, ...]
    done: int
    left: int

    def at(self, step: int, fits: int, loss: float) -> "Training":
        """Returns the same seeds at a later step, which `fits` of them have taken."""
        taken = min(max(step - self.step, 0) * fits, self.left)
        return replace(self, step=step, loss=loss, done=self.done + taken, left=self.left - taken)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of a search in numbers; controls count only in `pairs`, `at_most` and `fitting`.

    Args:
        alive: hypotheses without a verdict.
        pairs: evaluations that have come back so far (pairs x interventions), also after the
            verdict.
        at_most: evaluations that may still come.
        queued: trials and groups that are ready to run.
        out: tasks that are running.
        fitting: seeds still in training.
        training: those that train now, or next; None without any.
        controls: controls without a verdict.
        estimates: estimates on the holdout in progress.
    """

    stage: Stage
    alive: int
    accepted: int
    rejected: int
    undecided: int
    failed: int
    pairs: int
    at_most: int
    queued: int
    out: int
    conflicts: int = 0
    fitting: int = 0
    training: Training | None = None
    controls: int = 0
    estimates: int = 0

    @property
    def decided(self) -> int:
        return self.accepted + self.rejected + self.undecided + self.failed
