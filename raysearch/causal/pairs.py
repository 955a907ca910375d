"""Inputs and pairs: what is put to a model, and what the causal model predicts under each
interchange.

Invariants: an input is a text or a stimulus; positions are character spans [start, end) inside the
text, or token indices; a pair's counterfactuals are answers (text), one for each variable that is
asked about.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal, get_args

from raysearch.causal.model import Setting
from raysearch.causal.stimulus import Stimulus
from raysearch.errors import PairsError

Split = Literal["fit", "test", "holdout"]
SPLITS: tuple[Split, ...] = get_args(Split)
Span = tuple[int, int]

LAST = "last"
"""The position that every input has, its last token; nobody need or may declare it."""

ONE_SOURCE = "source"
"""The name of a pair's source where it has only one."""


@dataclass(frozen=True)
class Input:
    """An input of the network: a text or a tensor, with named positions; and the causal model's
    setting behind it.

    Positions of a text are `spans`, each [start, end) in characters, or `tokens`, each indices of
    its tokens, special ones not counted. Those of a stimulus are `tokens`: of what the network has
    as such (time steps, patches; 0 alone where it has none). The position "last" always exists and
    is not listed. `values` is empty for pairs from a file. A `stimulus` may be given as any array,
    tensor, nested list or number (`Stimulus.of` says what becomes of it).

    Raises: PairsError for neither or both, a span that is empty or outside the text, token indices
    that are none or below 0, or what is no tensor.
    """

    text: str = ""
    spans: Mapping[str, Span] = field(default_factory=dict)
    values: Setting = field(default_factory=dict)
    stimulus: Stimulus | None = None
    tokens: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    if TYPE_CHECKING:  # what may be given as a stimulus is more than what is kept

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
        """The names of the positions, "last" not among them."""
        return (*self.spans, *self.tokens)

    @property
    def content(self) -> str:
        """What tells it from other inputs: the text, or the stimulus's digest."""
        return self.text if self.stimulus is None else self.stimulus.digest

    @property
    def shown(self) -> str:
        """How it is called in an error."""
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
            raise PairsError(f"an input is a text or a tensor; got {self.text!r} and {self.shown}")
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

    `answers` is keyed by "base" and the names of the sources; `counterfactual` by variable. Answers
    are text that follows the input's text, a leading blank included where there is one; for a
    stimulus, the class as a whole number ("0", "1", ...). `index` is the pair's place in the run.
    `choices`: the answers among which the model chooses, where it is held to some.
    """

    index: int
    base: Input
    sources: Mapping[str, Input]
    answers: Mapping[str, str]
    counterfactual: Mapping[str, str]
    split: Split
    set: str | None = None
    choices: tuple[str, ...] = ()


def lenders(variable: str) -> tuple[str, ...]:
    """The sources that lend the variables of a counterfactual, each once: of "x<-a,y<-b" a and b;
    of a plain name none, for there is one.

    Where pairs have several sources, such a name is what is asked about, as a variable is
    elsewhere.
    """
    named = [part.partition("<-") for part in variable.split(",")] if "<-" in variable else []
    return tuple(dict.fromkeys(source.strip() for _, _, source in named))


def differing_shares(
    counterfactuals: Sequence[Mapping[str, object]], variables: Sequence[str]
) -> dict[tuple[str, str], float]:
    """For every two variables, the share in [0, 1] of pairs on which their counterfactuals (text or
    ids) differ.

    At 0 no pair tells the two apart: whatever is measured for one holds for the other. Raises:
    PairsError without pairs.
    """
    if not counterfactuals:
        raise PairsError("there are no pairs; variables cannot be told apart without")
    return {
        (v, w): sum(c[v] != c[w] for c in counterfactuals) / len(counterfactuals)
        for v, w in combinations(variables, 2)
    }
