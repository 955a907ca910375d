"""The keys of a job, room by room, `space` aside: types, ranges, defaults, and what each means.

Invariants: a default stands here and nowhere else, and so do the words on a key (docs/reference/job-file.md
and editors have them from the schema); nothing but `resources` and `name` can change without
changing an answer.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    ValidationInfo,
    model_validator,
)

from raysearch.core.choices import (
    COMPARISONS,
    PAIR_KINDS,
    SCORES,
    TESTED_SCORES,
    Compare,
    Dtype,
    PairKinds,
    ScoreName,
    TestedScore,
    described,
)
from raysearch.core.key_types import (
    Amount,
    Count,
    Keys,
    Positive,
    Rate,
    Weight,
    Whole,
    at_most,
    each_once,
)
from raysearch.job.named_files import PROPOSER, NamedFile, none_away
from raysearch.job.placeholders import is_note, is_note_on_tensors
from raysearch.proposers.registry import READY, names, options_words, schema_of_names
from raysearch.suggest import did_you_mean

MOST_PAIRS = 10**7
"""Of a split: they are drawn, encoded and kept by one driver."""


_FACTORY = re.compile(r"(?P<place>.+\.py|[A-Za-z_]\w*(\.\w+)*):(?P<name>[A-Za-z_]\w*)")


class PromptKeys(Keys):
    """The format in which a text is given to a language model. Character spans are of the text itself; `last` is the
    last token of all that it is given."""

    chat_template: bool = Field(
        default=False,
        description="Whether each text is what the user says in the tokenizer's chat template, up "
        "to where the model replies; answers are "
        "then replies, mostly without a leading blank.",
    )
    special_tokens: Literal["auto"] | bool = Field(
        default="auto",
        description="Whether the tokenizer puts its special tokens before a text; auto: it does, "
        "but not beside a chat template, which "
        "writes them itself.",
    )


class ModelKeys(Keys):
    """The network to search."""

    path: str = Field(
        description="A local folder, a .gguf file, or a hub id; or `module:factory` or "
        "`my_file.py:factory`, a function that returns a "
        "torch.nn.Module on tensors."
    )
    revision: str | None = Field(default=None, description="The commit, tag or branch of a hub id.")
    dtype: Dtype = Field(
        default="float32",
        description="Of weights and activations. An answer depends on no batch in any of them; "
        "what it is in half precision: "
        "docs/how-to/your-own-model.md.",
    )
    device_map: Literal["auto", "balanced", "balanced_low_0", "sequential"] | None = Field(
        default=None, description="How accelerate spreads one replica over the GPUs of its actor."
    )
    trust_remote_code: bool = Field(
        default=False,
        description="Run the code that lies in the model's folder or repository, on the driver's "
        "machine and on every node; of a hub id "
        "only with a `revision` that is a commit.",
    )
    prompt: PromptKeys = PromptKeys()

    @property
    def is_given(self) -> bool:
        """Whether it was given as an object, so that no file has it."""
        return is_note(self.path)

    @property
    def is_factory(self) -> bool:
        """Whether the network is on tensors (a function makes it, or it was given as a module): of
        its form alone, so that it is the same on every machine."""
        return is_note_on_tensors(self.path) or (
            not self.is_given and _FACTORY.fullmatch(self.path) is not None
        )

    @property
    def factory_file(self) -> str | None:
        """The file of a factory that stands in one."""
        place, _, _ = self.path.rpartition(":")
        return place if self.is_factory and place.endswith(".py") else None

    @model_validator(mode="after")
    def _fits(self) -> "ModelKeys":
        for key in ("revision", "device_map", "trust_remote_code"):
            if self.is_factory and getattr(self, key):
                raise ValueError(
                    f"{key} is for a language model; {self.path} is a function that makes one: "
                    f"leave it out"
                )
        if self.is_factory and self.prompt != PromptKeys():
            raise ValueError(
                f"prompt is for a language model; {self.path} is a function that makes a network: "
                f"leave it out"
            )
        return self


class ProblemKeys(Keys):
    """The problem: one of `use` and `pairs`."""

    use: str | None = Field(
        default=None,
        description="A ready problem, such as `raysearch.problems.capitals`, or "
        "`my_file.py:problem`.",
    )
    pairs: str | None = Field(
        default=None,
        description="A file of pairs (JSON lines, a JSON array, Parquet, Arrow; packed or not), or "
        "a folder of such or of "
        "datasets.save_to_disk; a path, or s3://BUCKET/pairs.jsonl (gs://, abfs://).",
    )
    options: dict[str, Any] = Field(
        default={}, description="Keyword arguments of the problem that `use` names."
    )

    @property
    def is_given(self) -> bool:
        """Whether it was given as an object, so that no file has it."""
        return self.use is not None and is_note(self.use)

    @model_validator(mode="after")
    def _one_of_two(self) -> "ProblemKeys":
        if (self.use is None) == (self.pairs is None):
            raise ValueError('give one of "use" (a problem) and "pairs" (a file of pairs)')
        if self.pairs is not None and self.options:
            raise ValueError('"options" are for a problem ("use"), not for a file of pairs')
        return self


class PairsKeys(Keys):
    """The number of pairs of each split, after screening, and which of them decide."""

    test: Annotated[Positive, at_most(MOST_PAIRS)] = Field(
        default=512, description="Pairs that hypotheses are tested on."
    )
    fit: Annotated[Count, at_most(MOST_PAIRS)] = Field(
        default=512,
        description="Pairs that subspaces are fit to, where any are; and on which effects are "
        "computed for a proposer that needs them (`propose.use`).",
    )
    holdout: Annotated[Count, at_most(MOST_PAIRS)] = Field(
        default=128, description="Pairs that accepted hypotheses are estimated on again."
    )
    seed: Whole = Field(default=0, description="Of drawing the pairs, and of their order.")
    solved_only: bool = Field(
        default=True, description="Only pairs that the model solves without any intervention."
    )
    kinds: PairKinds = Field(
        default="change", description=f"Which pairs decide. {described(PAIR_KINDS)}."
    )
    disjoint: tuple[str, ...] = Field(
        default=(), description="Variables of which no value stands in two splits."
    )


class AnswerKeys(Keys):
    """The part of an answer that is compared."""

    compare: Compare = Field(default="first_token", description=f"{described(COMPARISONS)}.")
    aliases: dict[str, tuple[str, ...]] = Field(
        default={},
        description="By answer, a list of other answers that count as equal to it (first_token, "
        'sequence): `{" Washington": [" DC"]}`.',
    )

    @model_validator(mode="after")
    def _aliases_of_one(self) -> "AnswerKeys":
        if self.aliases and self.compare not in ("first_token", "sequence"):
            raise ValueError(
                f"aliases are for first_token and sequence; with compare: {self.compare} leave "
                f"them out"
            )
        of: dict[str, str] = {}
        for answer, aliases in self.aliases.items():
            for alias in aliases:
                if not alias or not answer:
                    raise ValueError(
                        "aliases: an answer or alias is empty; give the text that follows the input"
                    )
                if alias in self.aliases:
                    raise ValueError(
                        f"aliases: {alias!r} is an alias of {answer!r} and has a list of its own; "
                        f"make it one list"
                    )
                if of.setdefault(alias, answer) != answer:
                    raise ValueError(
                        f"aliases: {alias!r} is an alias of {of[alias]!r} and of {answer!r}; name "
                        f"it once"
                    )
        return self

    scores: Annotated[tuple[ScoreName, ...], AfterValidator(each_once)] = Field(
        default=(),
        description="Numbers that are measured beside each output, for each pair and variable. "
        f"{described(SCORES)}. A test may be on the first two (test.score); the others are told "
        "and never decide.",
    )


class TestKeys(Keys):
    """When to believe it."""

    use: Literal["sequential", "fixed"] = Field(
        default="sequential",
        description="sequential: stops at a verdict, after at most `max_pairs`; fixed: measures "
        "`pairs` pairs for every hypothesis, for "
        "estimates that no stopping has bent.",
    )
    score: TestedScore = Field(
        default="matches",
        description=f"What is held against the threshold. {described(TESTED_SCORES)}. The last "
        "two by betting; `iia`, `low` and `high` are then of that mean.",
    )
    claim: Literal["auto", "sampler", "these_pairs"] = Field(
        default="auto",
        description="What an IIA is of. sampler: of all pairs that the problem draws; these_pairs: "
        "of the test pairs at hand; auto: the "
        "first for a problem, the second for a file of pairs.",
    )
    threshold: Rate = Field(default=0.8, description="The IIA from which a hypothesis is true.")
    false_accept: Rate = Field(
        default=0.05, description="Chance of any false accept in the whole search, at most."
    )
    miss: Rate = Field(
        default=0.05,
        description="Chance of rejecting a true hypothesis, at most, for each by itself.",
    )
    indifference: Annotated[float, Field(ge=0, lt=0.5)] = Field(
        default=0.0,
        description="Half the width of a band around the threshold in which neither error is "
        "counted.",
    )
    keep_threshold: Rate | None = Field(
        default=None,
        description="The threshold of the pairs that should stay as they are, with pairs.kinds: "
        "both; null: as `threshold`.",
    )
    max_pairs: Positive = Field(
        default=512, description="Pairs after which a sequential test ends undecided."
    )
    pairs: Positive | None = Field(
        default=None, description="Pairs of every hypothesis, with use: fixed."
    )

    @property
    def most_pairs(self) -> int:
        """The most pairs of a hypothesis."""
        return self.max_pairs if self.pairs is None else self.pairs

    @model_validator(mode="after")
    def _fits(self) -> "TestKeys":
        for key, tau in (("threshold", self.threshold), ("keep_threshold", self.keep_threshold)):
            if tau is None or self.indifference < tau < 1 - self.indifference:
                continue
            raise ValueError(
                f"{key} {tau:g} and indifference {self.indifference:g}: the band around the "
                f"threshold must lie "
                "between 0 and 1"
            )
        if self.use == "fixed" and self.pairs is None:
            raise ValueError(
                "use: fixed measures a fixed number of pairs for every hypothesis; give it, such "
                "as pairs: 128"
            )
        if self.use == "sequential" and self.pairs is not None:
            raise ValueError("pairs is for use: fixed; the sequential test has max_pairs")
        return self


def _known_proposer(name: str, info: ValidationInfo) -> str:
    """Refuses a name that neither we nor an installed package have; `info.context` says whether
    the proposer is on other machines (an `Away`)."""
    if name in READY or _FACTORY.fullmatch(name) is not None:
        return name
    if name not in names() and not (info.context or none_away)(NamedFile(PROPOSER, name)):
        hint = did_you_mean(name, names())
        raise ValueError(
            f"{name!r} is no proposer; {hint}it may be {', '.join(names())} or my_file.py:Proposer"
        )
    return name


class _ProposerSchema:
    """Lists the proposers when the schema is asked for: packages may have added some."""

    def __get_pydantic_json_schema__(self, *_: Any) -> dict[str, Any]:
        return schema_of_names()


ProposerName = Annotated[str, AfterValidator(_known_proposer), _ProposerSchema()]


class ProposeKeys(Keys):
    """The proposer: which hypotheses to test next."""

    use: ProposerName = "exhaustive"
    options: dict[str, Any] = Field(
        default={},
        description=f"Keyword arguments of the proposer ({options_words()}).",
    )

    @property
    def file(self) -> str | None:
        """The file of a proposer that stands in one."""
        place, _, _ = self.use.rpartition(":")
        return place if place.endswith(".py") else None


Seconds = Literal["auto"] | Amount
LabelKey = Annotated[
    str, Field(pattern=r"^([A-Za-z0-9.-]+/)?[A-Za-z0-9]([\w.-]{0,61}[A-Za-z0-9])?$")
]
LabelSelector = Annotated[
    str, Field(pattern=r"^!?(in\([\w., -]+\)|[A-Za-z0-9]([\w.-]{0,61}[A-Za-z0-9])?)$")
]
OWN_KEYS = {"CPU": "cpus", "GPU": "gpus", "memory": "memory"}


class ResourcesKeys(Keys):
    """The resources of each replica, and the number of replicas. Changes no answer."""

    replicas: Literal["auto"] | Positive = Field(
        default="auto",
        description="So many; auto: as many as the cluster has room for, as it grows and shrinks.",
    )
    max_replicas: Positive | None = Field(
        default=None,
        description="With replicas: auto, a cluster that has an autoscaler is asked for more, up "
        "to so many, while there is work for "
        "them; null: what is there is used.",
    )
    gpus: Literal["auto"] | Weight = Field(
        default="auto",
        description="Of each replica, parts of one (0.5) or several (2, with `model.device_map`), "
        "as a requirement; auto: one where there "
        "is one, else the CPU.",
    )
    cpus: Annotated[Positive, at_most(4096)] = Field(default=1, description="CPUs of each replica.")
    labels: dict[LabelKey, LabelSelector] = Field(
        default={},
        description="Of the nodes that may hold replicas, as Ray's label selectors have them "
        "(`H100`, `!H100`, `in(H100, A100)`).",
    )
    custom: dict[str, Amount] = Field(
        default={}, description="Resources of a node that each replica takes, by name."
    )
    rows: Positive = Field(default=64, description="Rows of one forward pass, and of a task.")
    memory: Literal["auto"] | Annotated[Amount, at_most(2**20)] = Field(
        default="auto",
        description="GiB of a replica for activations that it keeps; auto: as there is room.",
    )
    deadline: Seconds = Field(
        default="auto",
        description="Seconds that a task may take at most (auto: ten minutes); less where tasks "
        "prove to be quicker.",
    )
    wait: Seconds = Field(
        default="auto",
        description="Seconds that a run goes on without any replica, and that one may load (auto: "
        "ten minutes).",
    )

    @model_validator(mode="after")
    def _can_be_asked(self) -> "ResourcesKeys":
        if self.max_replicas is not None and self.replicas != "auto":
            raise ValueError(
                f"max_replicas is for replicas: auto; replicas says {self.replicas}: leave one of "
                f"them out"
            )
        for name, amount in (*self.custom.items(), ("gpus", self.gpus)):
            if name in OWN_KEYS:
                raise ValueError(
                    f"custom: {name} is not a custom resource; resources.{OWN_KEYS[name]} asks for "
                    f"it"
                )
            if amount != "auto" and amount > 1 and amount != int(amount):
                raise ValueError(
                    f"{name}: {amount:g} cannot be given; it may be a part of one, or a whole "
                    f"number"
                )
        return self
