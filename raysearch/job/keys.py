"""The keys of a job, room by room, `space` aside: types, ranges, defaults, and what each means.

Invariants: a default stands here and nowhere else, and so do the words on a key
(docs/reference/job-file.md and editors have them from the schema); nothing but `resources` and
`name` can change without changing an answer.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from raysearch.core.key_types import Count, Keys, Positive, Rate, Whole, at_most, each_once
from raysearch.core.option_names import (
    COMPARISONS,
    PAIR_KINDS,
    SCORES,
    TESTED_SCORES,
    Compare,
    Dtype,
    PairKinds,
    ScoreName,
    TestedScore,
    meanings_text,
)
from raysearch.job.placeholders import is_note, is_note_on_tensors
from raysearch.proposers.weights import WEIGHTED_FROM

MOST_PAIRS = 10**7
"""Most pairs of a split: they are drawn, encoded and kept by one driver."""


OBJECT = re.compile(r"(?P<place>.+\.py|[A-Za-z_]\w*(\.\w+)*):(?P<name>[A-Za-z_]\w*)")


class PromptKeys(Keys):
    """The format in which a text is given to a language model. Character spans are of the text
    itself; `last` is the last token of all that it is given."""

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
        """Says whether an object was given in its place, so that no file has it."""
        return is_note(self.path)

    @property
    def is_factory(self) -> bool:
        """Says whether the network is on tensors: a function makes it, or it was given as a module.
        Decided by the form of the key alone, so that it is the same on every machine."""
        return is_note_on_tensors(self.path) or (
            not self.is_given and OBJECT.fullmatch(self.path) is not None
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
        """Says whether an object was given in its place, so that no file has it."""
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
        default=128, description="Pairs that accepted hypotheses are estimated on again, at most."
    )
    holdout_width: Annotated[float, Field(ge=0, lt=0.5)] = Field(
        default=0.05,
        description="Half the width that the 95 % interval of that estimate is to have: pairs "
        "beyond what it needs are not run. 0: all of them are.",
    )
    seed: Whole = Field(default=0, description="Of drawing the pairs, and of their order.")
    solved_only: bool = Field(
        default=True, description="Only pairs that the model solves without any intervention."
    )
    kinds: Literal["auto"] | PairKinds = Field(
        default="auto",
        description=f"Which pairs decide. {meanings_text(PAIR_KINDS)}; auto: both where an answer "
        "is one of two, so that whatever changes it is a match, if every variable leaves a quarter "
        "of the test pairs alone; else change.",
    )
    fresh: bool = Field(
        default=False,
        description="Whether test pairs are left out that another run of the store has tested on; "
        "which, is settled when a run begins.",
    )
    disjoint: tuple[str, ...] = Field(
        default=(),
        description="Variables of which no value stands in two splits; verdicts are then about the "
        "values that are held out for the test.",
    )


class AnswerKeys(Keys):
    """The part of an answer that is compared."""

    compare: Compare = Field(default="first_token", description=f"{meanings_text(COMPARISONS)}.")
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
        f"{meanings_text(SCORES)}. A test may be on the first two (test.score); the others are "
        "told and never decide.",
    )


class TestKeys(Keys):
    """The `test` key: how a hypothesis becomes accepted or rejected."""

    use: Literal["sequential", "fixed"] = Field(
        default="sequential",
        description="sequential: stops at a verdict, after at most `max_pairs`; fixed: measures "
        "`pairs` pairs for every hypothesis, for "
        "estimates that no stopping has bent.",
    )
    score: TestedScore = Field(
        default="matches",
        description=f"What is held against the threshold. {meanings_text(TESTED_SCORES)}. The last "
        "two by betting; `iia`, `low` and `high` are then of that mean.",
    )
    claim: Literal["auto", "sampler", "these_pairs"] = Field(
        default="auto",
        description="What an IIA is of. sampler: of the pairs that the problem draws (of which of "
        "them, the column `population` says); these_pairs: "
        "of the test pairs at hand; auto: the "
        "first for a problem, the second for a file of pairs.",
    )
    generalise: Literal["pairs", "values"] = Field(
        default="pairs",
        description="What an accepted hypothesis holds for. pairs: other pairs of its population; "
        "values: new values of the one variable in pairs.disjoint, by pairs that share no value, "
        "which needs many values (`plan` says how many).",
    )
    threshold: Rate = Field(default=0.8, description="The IIA from which a hypothesis is true.")
    false_accept: Rate = Field(
        default=0.05,
        description="Chance of any false accept in the whole search, at most; with control: fdr, "
        "the expected share of false ones among all accepts.",
    )
    control: Literal["fwer", "fdr"] = Field(
        default="fwer",
        description="What `false_accept` bounds. fwer: the chance of any false accept; fdr: the "
        "expected share of false ones among the accepts (e-BH on the final e-values), which "
        "accepts more and says less of each. With fwer too, the column fdr_verdict has what fdr "
        "would accept.",
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
    above_baselines: bool = Field(
        default=False,
        description="Whether a hypothesis is accepted only if it also beats the best pure policy "
        "(copy the source's answer, act on another variable, always one answer, keep the base's), "
        "by the paired test on the same pairs; where the variable is that policy, this decides "
        "nothing.",
    )
    weights: Literal["auto", "attribution", "even"] = Field(
        default="auto",
        description="How the chance of a false accept is shared among hypotheses. even: each "
        "spends 1/K of it; attribution: those with larger effects on fit pairs spend more, and are "
        "accepted after fewer pairs (all are tested; none spends less than 1/(e K)); auto: the "
        f"second from {WEIGHTED_FROM} hypotheses on, where fit pairs are at hand.",
    )
    futility: Annotated[float, Field(ge=0, lt=0.5)] = Field(
        default=0.1,
        description="A sequential test of matches ends undecided as soon as the chance of any "
        "verdict within `max_pairs` is below this, given the pairs so far; 0: never.",
    )
    horizon: Literal["auto", "open", "fixed"] = Field(
        default="auto",
        description="Whether a run that is done may be continued (`resume --more-pairs`). open: by "
        "e-processes, which go on on further pairs at no price; fixed: by exact tests of one look "
        "(use: fixed, on matches), on new pairs alone and with what `reserve` keeps; auto: fixed "
        "with use: fixed, else open.",
    )
    reserve: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0,
        description="The share of `false_accept` and `miss` that a run of fixed horizon keeps for "
        "continuations: the n-th spends 1/(n(n+1)) of it. 0: it cannot be continued.",
    )
    max_pairs: Positive = Field(
        default=512, description="Pairs after which a sequential test ends undecided."
    )
    pairs: Positive | None = Field(
        default=None, description="Pairs of every hypothesis, with use: fixed."
    )

    @property
    def is_exact(self) -> bool:
        """Says whether tests are exact ones of one look, so that the horizon is fixed."""
        by_matches = self.score == "matches" and self.generalise == "pairs"
        one_look = self.use == "fixed" and self.control == "fwer"
        return one_look and by_matches and self.horizon != "open"

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
                "threshold must lie between 0 and 1"
            )
        if self.use == "fixed" and self.pairs is None:
            raise ValueError(
                "use: fixed measures a fixed number of pairs for every hypothesis; give it, such "
                "as pairs: 128"
            )
        if self.use == "sequential" and self.pairs is not None:
            raise ValueError("pairs is for use: fixed; the sequential test has max_pairs")
        if self.horizon == "fixed" and not self.is_exact:
            raise ValueError(
                "horizon: fixed is for exact tests (use: fixed on matches, control: fwer); others "
                "are e-processes, which go on at no price: leave it out"
            )
        if self.reserve and not self.is_exact:
            raise ValueError(
                f"reserve {self.reserve:g} is for exact tests (use: fixed on matches, control: "
                "fwer); others are e-processes, which go on at no price: leave it out"
            )
        return self
