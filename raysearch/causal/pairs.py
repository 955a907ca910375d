"""Inputs and pairs: what a model is given, and what the causal model predicts under each
interchange.

Invariants: an input is a text or a stimulus; positions are character spans [start, end) in the
text, or token indices; a pair's counterfactuals are answers (text), one for each variable that is
tested.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal, get_args

from raysearch.causal.model import Setting
from raysearch.causal.tensor_input import Stimulus
from raysearch.errors import PairsError

Split = Literal["fit", "test", "holdout"]
SPLITS: tuple[Split, ...] = get_args(Split)
Span = tuple[int, int]

LAST = "last"
"""The position that every input has, its last token; it need not, and must not, be declared."""

ONE_SOURCE = "source"
"""Name of a pair's source if it has only one."""


@dataclass(frozen=True)
class Input:
    """An input of the network, a text or a tensor, with named positions and the causal model's
    setting.

    Positions of a text are `spans`, each [start, end) in characters, or `tokens`, each a list of
    token indices, special tokens not counted. Positions of a stimulus are `tokens`, in what the
    network treats as tokens (time steps, patches; only 0 if it has none). The position "last"
    always exists and is not listed. `values` is empty for pairs from a file. A `stimulus` may be
    any array, tensor, nested list or number, and is converted by `Stimulus.of`.

    Raises:
        PairsError: both a text and a tensor or neither, a span that is empty or outside the text,
            negative or repeated token indices, or a stimulus that is no tensor.
    """

    text: str = ""
    spans: Mapping[str, Span] = field(default_factory=dict)
    values: Setting = field(default_factory=dict)
    stimulus: Stimulus | None = None
    tokens: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    if TYPE_CHECKING:  # a stimulus may be given as more types than it is stored as

        def __init__(
            self,
            text: str = "",
            spans: Mapping[str, Span] = ...,
            values: Setting = ...,
            stimulus: Any = None,
            tokens: Mapping[str, tuple[int, ...]] = ...,
        ) -> None: ...

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise PairsError(
                f"an input's text is a {type(self.text).__name__}; give text as a string, an array "
                f"or tensor as Input(stimulus=...)"
            )
        if self.stimulus is not None and not isinstance(self.stimulus, Stimulus):
            object.__setattr__(self, "stimulus", Stimulus.of(self.stimulus))
        if LAST in self.positions:
            raise PairsError(
                f"position {LAST!r} is every text's last token and cannot be given a span; name it "
                f"otherwise"
                if self.stimulus is None
                else f"position {LAST!r} is every input's last token and cannot be given others; "
                f"name it otherwise"
            )
        twice = next((name for name in self.spans if name in self.tokens), None)
        if twice is not None:
            raise PairsError(
                f"position {twice!r} is given as a span and as token indices; give one of them"
            )
        if self.stimulus is None:
            self._check_text()
        else:
            self._check_stimulus()
        self._check_tokens()

    @property
    def positions(self) -> tuple[str, ...]:
        """Names of the positions, "last" excepted."""
        return (*self.spans, *self.tokens)

    @property
    def content(self) -> str:
        """Content that identifies the input: the text, or the stimulus's digest."""
        return self.text if self.stimulus is None else self.stimulus.digest

    @property
    def description(self) -> str:
        """Description for errors."""
        return (
            repr(self.text)
            if self.stimulus is None
            else f"the tensor of shape {list(self.stimulus.shape)}"
        )

    def _check_text(self) -> None:
        if not self.text:
            raise PairsError("an input's text is empty; a model needs at least one token")
        for name, (start, end) in self.spans.items():
            if not 0 <= start < end <= len(self.text):
                raise PairsError(
                    f"position {name!r}: [{start}, {end}) is no span of {self.text!r}; need 0 <= "
                    f"start < end <= {len(self.text)}"
                )

    def _check_stimulus(self) -> None:
        if self.text:
            raise PairsError(
                f"an input is a text or a tensor; got {self.text!r} and {self.description}"
            )
        if self.spans:
            raise PairsError(
                f"position {next(iter(self.spans))!r}: positions of a tensor are token indices "
                f"(tokens)"
            )

    def _check_tokens(self) -> None:
        for name, tokens in self.tokens.items():
            if not tokens or min(tokens) < 0 or len(set(tokens)) < len(tokens):
                raise PairsError(
                    f"position {name!r}: {list(tokens)} are no token indices; give at least one, "
                    f"from 0, each once"
                )


@dataclass(frozen=True)
class Pair:
    """A base, its sources, the answers without intervention, and the counterfactual for each
    variable.

    `answers` is keyed by "base" and source name, `counterfactual` by variable. An answer is the
    text that follows the input's text, with its leading blank if there is one; for a stimulus, the
    class as a whole number ("0", "1", ...).

    Args:
        index: place of the pair in the run.
        choices: answers among which the model chooses, if it is restricted to some.
        values: by variable, a number for its value in "base" and in each source; equal numbers mean
            equal values. Empty where the values are not known, as in a file of pairs.
        matching: for a claim about new values, the matching of values that the pair is of
            (`causal/value_matchings.py`).
        added: by which continuation of the run it was drawn, from 1; 0: when the run began.
    """

    index: int
    base: Input
    sources: Mapping[str, Input]
    answers: Mapping[str, str]
    counterfactual: Mapping[str, str]
    split: Split
    set: str | None = None
    choices: tuple[str, ...] = ()
    values: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    matching: int | None = None
    added: int = 0

    @property
    def contents(self) -> tuple[str, ...]:
        """Contents of base and sources, by which two pairs are the same pair."""
        return (self.base.content, *(self.sources[name].content for name in sorted(self.sources)))


def named_sources(variable: str) -> tuple[str, ...]:
    """Returns the sources that a counterfactual's name lists, each once: a and b for "x<-a,y<-b".

    It is empty for a plain name, which stands for the only source. Pairs with several sources use
    such names in place of variables.
    """
    named = [part.partition("<-") for part in variable.split(",")] if "<-" in variable else []
    return tuple(dict.fromkeys(source.strip() for _, _, source in named))


def differing_shares(
    counterfactuals: Sequence[Mapping[str, object]], variables: Sequence[str]
) -> dict[tuple[str, str], float]:
    """Returns, for every two variables, the share in [0, 1] of pairs whose counterfactuals differ.

    Counterfactuals may be text or ids. At 0 no pair tells the two apart: whatever is measured for
    one holds for the other.

    Raises:
        PairsError: there are no pairs.
    """
    if not counterfactuals:
        raise PairsError("there are no pairs; variables cannot be told apart without")
    return {
        (v, w): sum(c[v] != c[w] for c in counterfactuals) / len(counterfactuals)
        for v, w in combinations(variables, 2)
    }
