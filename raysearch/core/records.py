"""Notes: what the search says of what it was told, for tables and mirrors; and a snapshot of where
it stands.

Invariants: every type is a frozen value; a note follows from the events so far alone, so that a
replay says the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from raysearch.causal import Split
from raysearch.core.events import Fitted, Ids, Measured
from raysearch.core.hypothesis import Hypothesis, Unit
from raysearch.core.pair_counts import PairCount


@dataclass(frozen=True, slots=True)
class Proposed:
    """A hypothesis enters the search."""

    hypothesis: Hypothesis
    proposed_by: str
    generation: int


@dataclass(frozen=True, slots=True)
class PairScreened:
    """What screening decided for one pair: the model's own outputs, whether both are right, its
    block (None: not used)."""

    pair: int
    base_output: Ids | None
    source_outputs: Mapping[str, Ids] | None
    solved: bool | None
    split: Split
    block: int | None


@dataclass(frozen=True, slots=True)
class Blocked:
    """Screening is over: which pairs are solved, the blocks they were cut into, and what became of
    each for each variable."""

    pairs: tuple[PairScreened, ...]
    counts: tuple[PairCount, ...] = ()


@dataclass(frozen=True, slots=True)
class Effect:
    """What an interchange at `unit` would do to first order, for one variable: the mean over
    `pairs` change pairs of a share in [0, 1]; None where it cannot be interchanged on one of them.
    """

    variable: str
    unit: Unit
    effect: float | None
    pairs: int


@dataclass(frozen=True, slots=True)
class Weighed:
    """Attribution is over: the effects that the proposer chooses by, of every variable at every
    site of the space."""

    effects: tuple[Effect, ...]


@dataclass(frozen=True, slots=True)
class Counted:
    """An observation entered the evidence of at least one hypothesis. `conflicts`: repeats that had
    said otherwise by then."""

    observation: Measured
    conflicts: int


@dataclass(frozen=True, slots=True)
class Conflicted:
    """A repeat of an observation said otherwise, and was not counted."""

    repeat: Measured | Fitted


VerdictName = Literal["accept", "reject", "undecided", "failed"]


@dataclass(frozen=True, slots=True)
class SetCount:
    """Evidence on the pairs of one kind (Pair.set). `low`, `high`: its own 95 % interval, valid at
    the stopping time. `score`: their mean score, where the test is on one."""

    name: str
    n: int
    matches: int
    low: float
    high: float
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Decided:
    """A verdict. Counts are over change pairs (or all, where the rule is so) unless said; `low`,
    `high`: the 95 % interval valid at the stopping time.

    `log_evidence`: log e-value against the null that was rejected (for undecided: the larger of the
    two). `fit`: the digest of what was fit and then tested, None where nothing was. `sets`: the
    same counts by kind of pair, where kinds are told apart. `score`, `keep_score`: mean scores,
    where the test is on one: then `low` and `high` are of that mean. `means`: of every score that
    the job declares, over the pairs that count.
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


@dataclass(frozen=True, slots=True)
class Reading:
    """A count on holdout change pairs, beside or instead of the estimate itself: of a control
    ("self_swap", "random_source"), or of a seed (`fit`: its digest). `score`: their mean score,
    where the test is on one."""

    name: str
    n: int
    matches: int
    seed: int | None = None
    fit: str | None = None
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Estimated:
    """An accepted hypothesis on the holdout pairs, and what was read beside. `score`: their mean
    score, where the test is on one."""

    hypothesis: Hypothesis
    n: int
    matches: int
    beside: tuple[Reading, ...] = ()
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Trained:
    """A stretch of training was taken note of. `rung`: how many rungs its seed had passed."""

    event: Fitted
    rung: int


FitStatus = Literal["done", "stopped", "dropped"]


@dataclass(frozen=True, slots=True)
class Concluded:
    """A seed's training has ended: at its last step, early (no better any more), or as hopeless at
    a rung. `event.fit` came of it.

    `start`: the digest of what it began within; None where it began at random.
    """

    event: Fitted
    rung: int
    status: FitStatus
    start: str | None = None


Record = (
    Proposed | Blocked | Weighed | Trained | Concluded | Counted | Conflicted | Decided | Estimated
)


Stage = Literal["screening", "attributing", "searching", "estimating", "done"]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Where a search stands. `pairs`: evaluations so far (pairs x interventions); `at_most`: those
    that may still come.

    `fitting`: seeds still in training. Controls count nowhere but in `pairs`, `at_most` and
    `fitting`."""

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

    @property
    def decided(self) -> int:
        return self.accepted + self.rejected + self.undecided + self.failed
