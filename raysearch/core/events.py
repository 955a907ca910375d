"""What travels between the search, the pools and the ledger: tasks out, events in (what the search
says of them: `notes.py`).

Invariants: every type is a frozen value of plain numbers and strings, so that it crosses processes
and the journal unchanged; an event says what was seen, never what it means.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from raysearch.causal import LAST, Split, Stimulus
from raysearch.core.hypothesis import Intervention, Unit

Ids = tuple[int, ...]
"""Token or class ids of one answer."""

Scores = Mapping[str, Mapping[str, tuple[float, ...]]]
"""By score and variable, a number for each pair."""

ModelInput = Ids | Stimulus
"""What is put into a network: token ids, or a tensor."""


@dataclass(frozen=True, slots=True)
class ComponentFacts:
    """A component that the job names, in this model. `layers`: those that have it; (None,) for one
    that the model has once.

    `width`: of its vector, all heads together (0: not known before the model is loaded, or not the
    same in all layers); `heads`: how many it divides into (0: none). `widths`: of each of `layers`,
    where they differ. `tokens`: that its activation has on the first base, 0 where it has those of
    the input.
    """

    name: str
    layers: tuple[int | None, ...]
    width: int
    heads: int
    widths: tuple[int, ...] = ()
    tokens: int = 0

    def width_in(self, layer: int | None) -> int:
        """Of its vector in `layer`, one of `layers`; 0 where that is not known."""
        return self.widths[self.layers.index(layer)] if self.widths else self.width


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the driver knows of the model. `path` is how it is evaluated: "replay", "batched" or
    "plain", the first that held.

    `width`: of the residual, 0 where layers may differ. `heads`: attention heads of a layer.
    `components`: those that the job names (the residual, where it names none). `tokens`: of every
    input, where the job asks for all positions. `commit`: of a hub's repository, what was loaded: a
    revision that is a branch may be another tomorrow. `unused`: what lies with the model and is
    left out of it, a line for each.
    """

    layers: int
    width: int
    heads: int
    digest: str
    dtype: str
    device: str
    path: str
    components: tuple[ComponentFacts, ...] = ()
    tokens: int = 0
    commit: str | None = None
    unused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Encoded:
    """One pair as the model sees it: token ids, or tensors. `positions` give token indices, from 0,
    padding not counted.

    `answers` is keyed by "base" and the names of the sources, `counterfactual` by variable: the
    compared ids. `aliases`: (what is said, the answer that it counts as). `choices`: the ids among
    which an answer is chosen; none: all.
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

    @property
    def tokens(self) -> int:
        """Of its longest input."""
        return 1 + max(at[LAST][0] for at in (self.base_positions, *self.source_positions.values()))

    @property
    def longest(self) -> int:
        """Ids of its longest answer."""
        said = (said for said, _ in self.aliases)
        return max(
            map(len, (*self.answers.values(), *self.counterfactual.values(), *said)), default=1
        )


@dataclass(frozen=True, slots=True)
class Opened:
    """What a pool knows once its replicas are ready."""

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
    """One way of fitting an intervention. `state`: the digest of where it stands, None before its
    first step.

    `start`: before its first step, the digest of the larger rotation within which it begins; None
    where it begins at random.
    """

    intervention: Intervention
    seed: int
    state: str | None = None
    start: str | None = None

    @property
    def key(self) -> str:
        """Its name in events."""
        return f"{self.intervention.id}#{self.seed}"


@dataclass(frozen=True, slots=True)
class Task:
    """A run of blocks x a group of interventions, for one replica. A task of screening or
    attribution has no interventions.

    A fit task takes its `seeds` through the steps [first, last) of training, on all of its blocks.
    One of attribution tells what interchanges of its `units`, whole vectors all, would do to first
    order.
    """

    id: int
    kind: TaskKind
    interventions: tuple[Intervention, ...]
    blocks: tuple[Block, ...]
    attempt: int = 0
    seeds: tuple[Seed, ...] = ()
    steps: tuple[int, int] = (0, 0)
    units: tuple[Unit, ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        """What its events call the parts of its group."""
        return (
            tuple(s.key for s in self.seeds)
            if self.kind == "fit"
            else tuple(i.key for i in self.interventions)
        )

    @property
    def digests(self) -> tuple[str, ...]:
        """Of the tensors that a replica needs for it."""
        kept = [i.fit for i in self.interventions] + [
            d for s in self.seeds for d in (s.state, s.start)
        ]
        return tuple(dict.fromkeys(digest for digest in kept if digest is not None))

    @property
    def rows(self) -> int:
        """How many rows the model runs for it, at most; of a fit, how many in each step of all
        pairs."""
        return sum(len(b.pairs) for b in self.blocks) * max(
            len(self.seeds or self.interventions), 1
        )


@dataclass(frozen=True, slots=True)
class Screened:
    """The outputs without intervention: for each pair of `pairs` the base's, and each source's by
    name.

    `scores`: of the base's own run, where the job declares any.
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
    """What interchanges would do on one block of fit pairs, to first order: `effects` by variable,
    one for each unit of the task.

    An effect is the sum, over the block's pairs whose counterfactual the variable changes, of a
    number in [0, 1]: how much of the lead of the base's answer over the counterfactual would be
    moved, either way, at most all of it. To six digits; None for a unit that cannot be interchanged
    on one of the pairs.
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
    """The outputs of one intervention on one block, pair by pair. Never a verdict.

    `intervention`: its key, which says too what was fit. `near_ties`: outputs decided again at
    batch one, their two best logits being too close to call in a batch. `rows`: rows that the model
    ran; `seconds`: this intervention's share of the task's time. `scores`: where the job declares
    any.
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

    @property
    def key(self) -> tuple[str, Split, int]:
        """What it is evidence for; the first that is journalled under a key wins."""
        return self.intervention, self.split, self.block


@dataclass(frozen=True, slots=True)
class Fitted:
    """One seed of an intervention after the steps [first, last), or where it stopped early
    (`stopped`).

    `steps`, `losses`, `iias`: the course of this stretch, as validation saw it (`losses`: of
    training, in nats; an IIA is None where there are no change pairs to see). `validation_iia`: in
    [0, 1], on `validation_n` change pairs of the validation part, of the best so far: `fit` is its
    digest; None where there are no such pairs. `state`: the digest of all that is needed to go on,
    None where nothing is trained in steps. `found`: what training found, by name (a boundary's
    width). `tensors`: the contents by digest, which travel with the event and are kept beside the
    journal, not in it.
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
        """Its seed's name in events; the first that is journalled for a seed and a first step wins."""
        return f"{self.intervention}#{self.seed}"


@dataclass(frozen=True, slots=True)
class Lost:
    """A task whose worker went away. Only "worker" and "deadline" count against the task; not
    "node", nor "queued": its worker had not begun it.

    `group`: the keys of the task's parts (empty for screening and attribution); `split` and
    `blocks`: the blocks it was about.
    """

    task: int
    cause: LossCause
    worker: str
    message: str
    group: tuple[str, ...]
    split: Split
    blocks: tuple[int, ...]

    @property
    def counts(self) -> bool:
        """Whether the task may be at fault."""
        return self.cause in ("worker", "deadline")


@dataclass(frozen=True, slots=True)
class Failed:
    """An error while a task ran: of one intervention where the engine could tell which, else of the
    whole task (None).

    `block`: where the intervention failed; its blocks before are measured, those after are not.
    `group`, `split` and `blocks` as in Lost.
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
    """What failed is tried again: verdicts are withdrawn, strikes forgotten. Somebody asked for it;
    no pool tells it.

    `hypotheses`: ids of those whose verdict was `failed`. `fits`: ids of the interventions, among
    theirs, of which no fit came. `estimates`: ids of accepted hypotheses whose readings on the
    holdout broke off.
    """

    hypotheses: tuple[str, ...]
    fits: tuple[str, ...]
    estimates: tuple[str, ...]

    @property
    def nothing(self) -> bool:
        """Whether nothing failed."""
        return not (self.hypotheses or self.estimates)


JournalledEvent = Event | Retried
"""What a search is told, and a journal keeps of it."""
