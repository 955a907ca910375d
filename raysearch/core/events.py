"""The messages between search, pool and ledger: tasks out, events in.

Records of what the search concludes are in `records.py`. Invariants: every type is a frozen value
of plain numbers and strings, so that it crosses processes and the journal unchanged; an event
states what was observed, never a conclusion.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from raysearch.causal import LAST, Split, Stimulus
from raysearch.core.hypothesis import Intervention, Unit
from raysearch.core.lease import Lease
from raysearch.core.model_facts import ModelFacts

Ids = tuple[int, ...]
"""Token or class ids of one answer."""

Scores = Mapping[str, Mapping[str, tuple[float, ...]]]
"""One number for each pair, by score and variable."""

ModelInput = Ids | Stimulus
"""Input of a network: token ids, or a tensor."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One pair as the model sees it: token ids, or tensors.

    Args:
        base_positions: token indices by position name, from 0.
        answers: compared ids by "base" and source name.
        counterfactual: compared ids by variable.
        aliases: pairs (ids of an alias, ids of the answer that it counts as).
        choices: ids among which an answer is chosen; empty for no restriction.
        values: as in `Pair`.
        added: as in `Pair`.
    """

    index: int
    base: ModelInput
    sources: Mapping[str, ModelInput]
    base_positions: Mapping[str, Ids]
    source_positions: Mapping[str, Mapping[str, Ids]]
    answers: Mapping[str, Ids]
    counterfactual: Mapping[str, Ids]
    aliases: tuple[tuple[Ids, Ids], ...] = ()
    choices: Ids = ()
    values: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    added: int = 0

    @property
    def tokens(self) -> int:
        """Number of tokens of its longest input."""
        return 1 + max(at[LAST][0] for at in (self.base_positions, *self.source_positions.values()))

    @property
    def longest(self) -> int:
        """Number of ids of its longest answer."""
        aliases = (alias for alias, _ in self.aliases)
        return max(
            map(len, (*self.answers.values(), *self.counterfactual.values(), *aliases)), default=1
        )


@dataclass(frozen=True, slots=True)
class Opened:
    """The report of a pool whose replicas are ready."""

    facts: ModelFacts
    encoded: tuple[Encoded, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """A fixed run of pairs of one split: the unit of evidence."""

    split: Split
    index: int
    pairs: tuple[int, ...]


TaskKind = Literal["screen", "attribute", "fit", "measure", "estimate"]
LossCause = Literal["worker", "node", "deadline", "queued"]


@dataclass(frozen=True, slots=True)
class Seed:
    """One seed of the training of an intervention.

    Args:
        state: digest of the training state to continue from; None before the first step.
        start: before the first step, digest of the larger rotation to start within; None for a
            random start.
    """

    intervention: Intervention
    seed: int
    state: str | None = None
    start: str | None = None

    @property
    def key(self) -> str:
        """Name of the seed in events."""
        return f"{self.intervention.id}#{self.seed}"


@dataclass(frozen=True, slots=True)
class Task:
    """Work for one replica: a run of blocks x a group of interventions.

    Tasks of screening and attribution have no interventions. A fit task trains its `seeds` through
    the steps [first, last), on all of its blocks. An attribution task estimates the first-order
    effect of interchanging each of its `units`, which are whole vectors. With a `lease` an
    intervention may stop before the last block.
    """

    id: int
    kind: TaskKind
    interventions: tuple[Intervention, ...]
    blocks: tuple[Block, ...]
    attempt: int = 0
    seeds: tuple[Seed, ...] = ()
    steps: tuple[int, int] = (0, 0)
    units: tuple[Unit, ...] = ()
    lease: Lease | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of the parts of the task in its events."""
        return (
            tuple(s.key for s in self.seeds)
            if self.kind == "fit"
            else tuple(i.key for i in self.interventions)
        )

    @property
    def digests(self) -> tuple[str, ...]:
        """Digests of the tensors that a replica needs for the task."""
        digests = [i.fit for i in self.interventions] + [
            d for s in self.seeds for d in (s.state, s.start)
        ]
        return tuple(dict.fromkeys(digest for digest in digests if digest is not None))

    @property
    def rows(self) -> int:
        """Upper bound of the rows that the model runs; for a fit, of the rows in one pass over all
        pairs.
        """
        rows = sum(len(b.pairs) for b in self.blocks) * max(
            len(self.seeds or self.interventions), 1
        )
        return rows if self.lease is None else min(rows, self.lease.rows + self.lease.step)


@dataclass(frozen=True, slots=True)
class Screened:
    """Outputs without intervention on one block: for each pair the base's, and each source's by
    name.

    `scores` are those of the base's own run, if the job declares any.
    """

    task: int
    split: Split
    block: int
    pairs: tuple[int, ...]
    base: tuple[Ids, ...]
    sources: Mapping[str, tuple[Ids, ...]]
    near_ties: int
    seconds: float
    device: str
    worker: str
    attempt: int
    scores: Scores | None = None


@dataclass(frozen=True, slots=True)
class Attributed:
    """First-order effects on one block of fit pairs: for each variable, one number for each unit of
    the task.

    An effect is the sum, over the block's pairs whose counterfactual the variable changes, of a
    number in [0, 1]: the share of the base answer's lead over the counterfactual that the
    interchange would move, in either direction, at most all of it. It has six digits, and is None
    for a unit that cannot be interchanged on one of the pairs.
    """

    task: int
    split: Split
    block: int
    pairs: tuple[int, ...]
    effects: Mapping[str, tuple[float | None, ...]]
    seconds: float
    device: str
    worker: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Measured:
    """Outputs of one intervention on one block, pair by pair; never a verdict.

    Args:
        intervention: its key, which also names what was fit.
        near_ties: outputs decided again at batch one, since their two best logits were too close in
            a batch.
        rows: rows that the model ran.
        seconds: this intervention's share of the task's time.
        scores: the scores that the job declares, if any.
        stopped: whether its task runs no further block of the intervention, by its lease; of use to
            the search that waits for the task alone, so it is not journalled.
    """

    task: int
    intervention: str
    split: Split
    block: int
    pairs: tuple[int, ...]
    outputs: tuple[Ids, ...]
    near_ties: int
    rows: int
    seconds: float
    device: str
    worker: str
    attempt: int
    scores: Scores | None = None
    stopped: bool = field(default=False, compare=False)

    @property
    def key(self) -> tuple[str, Split, int]:
        """Key of the evidence; the first event that is journalled under a key counts."""
        return self.intervention, self.split, self.block


@dataclass(frozen=True, slots=True)
class Fitted:
    """One seed of an intervention after the steps [first, last), or where it stopped early
    (`stopped`).

    Args:
        steps: the steps at which validation looked.
        losses: training loss at these steps, in nats.
        iias: validation IIA in [0, 1] at these steps; None without change pairs.
        validation_iia: best validation IIA so far, in [0, 1], on `validation_n` change pairs; None
            without any.
        found: values that training found, by name (such as a boundary's width).
        fit: digest of the best fit so far.
        state: digest of all that is needed to continue; None if nothing is trained in steps.
        tensors: contents by digest; they travel with the event and are stored beside the journal,
            not in it.
    """

    task: int
    intervention: str
    seed: int
    first: int
    last: int
    steps: tuple[int, ...]
    losses: tuple[float, ...]
    iias: tuple[float | None, ...]
    validation_iia: float | None
    validation_loss: float | None
    validation_n: int
    found: Mapping[str, float]
    fit: str
    state: str | None
    stopped: bool
    seconds: float
    device: str
    worker: str
    attempt: int
    tensors: Mapping[str, bytes] = field(default_factory=dict, compare=False, repr=False)

    @property
    def key(self) -> str:
        """Name of the seed in events; the first event that is journalled for a seed and a first
        step counts.
        """
        return f"{self.intervention}#{self.seed}"


@dataclass(frozen=True, slots=True)
class Lost:
    """A task whose worker went away.

    Only the causes "worker" and "deadline" count as attempts of the task; "node" does not, nor does
    "queued", when the worker had not started the task.

    Args:
        group: keys of the task's parts (empty for screening and attribution).
        blocks: indices of the task's blocks.
    """

    task: int
    cause: LossCause
    worker: str
    message: str
    group: tuple[str, ...]
    split: Split
    blocks: tuple[int, ...]

    @property
    def counts_as_attempt(self) -> bool:
        """Says whether the task may be at fault, so that the loss counts as one of its attempts."""
        return self.cause in ("worker", "deadline")


@dataclass(frozen=True, slots=True)
class Failed:
    """An error in a task: of one intervention if the engine could tell which, else of the whole
    task (None).

    `block` is where the intervention failed: its blocks before are measured, those after are not.
    The last three fields are as in `Lost`.
    """

    task: int
    intervention: str | None
    block: int | None
    error_type: str
    message: str
    traceback: str
    node: str
    worker: str
    attempt: int
    group: tuple[str, ...]
    split: Split
    blocks: tuple[int, ...]


Event = Screened | Attributed | Fitted | Measured | Lost | Failed


@dataclass(frozen=True, slots=True)
class Retried:
    """A user's request to retry what failed: verdicts are withdrawn and failed attempts forgotten.

    No pool reports it.

    Args:
        hypotheses: ids of the hypotheses with verdict "failed".
        fits: ids of their interventions without any successful fit.
        estimates: ids of accepted hypotheses with a failed reading on the holdout.
    """

    hypotheses: tuple[str, ...]
    fits: tuple[str, ...]
    estimates: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        """Says whether nothing failed, so that there is nothing to retry."""
        return not (self.hypotheses or self.estimates)


@dataclass(frozen=True, slots=True)
class Continued:
    """A user's request to test undecided hypotheses on further pairs: their verdicts are withdrawn.

    No pool reports it.

    Args:
        pairs: most further test pairs of each.
        hypotheses: ids of all hypotheses with verdict "undecided", controls included.
    """

    pairs: int
    hypotheses: tuple[str, ...]


JournalledEvent = Event | Retried | Continued
"""An event that a search takes and a journal stores."""
