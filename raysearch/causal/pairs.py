"""Inputs and pairs: what is put to a model, and what the causal model predicts under each interchange.

Invariants: positions are character spans [start, end) inside the text; a pair's counterfactuals are answers (text), one
for each variable that is asked about.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Literal, get_args

from raysearch.causal.model import Setting
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
    """A text with named positions, each a character span [start, end); and the causal model's setting behind it.

    The position "last" always exists and is not listed. `values` is empty for pairs from a file.

    Raises: PairsError for a span that is empty or outside the text.
    """

    text: str
    spans: Mapping[str, Span] = field(default_factory=dict)
    values: Setting = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.text:
            raise PairsError("an input's text is empty; a model needs at least one token")
        for name, (start, end) in self.spans.items():
            if name == LAST:
                raise PairsError(
                    f"position {LAST!r} is every text's last token and cannot be given a span; name it otherwise"
                )
            if not 0 <= start < end <= len(self.text):
                raise PairsError(
                    f"position {name!r}: [{start}, {end}) is no span of {self.text!r}; need 0 <= start < end <= {len(self.text)}"
                )


@dataclass(frozen=True)
class Pair:
    """A base, its sources, the answers without intervention, and the counterfactual for each variable.

    `answers` is keyed by "base" and the names of the sources; `counterfactual` by variable. Answers are text that
    follows the input's text, a leading blank included where there is one. `index` is the pair's place in the run.
    """

    index: int
    base: Input
    sources: Mapping[str, Input]
    answers: Mapping[str, str]
    counterfactual: Mapping[str, str]
    split: Split
    set: str | None = None


def differing_shares(
    counterfactuals: Sequence[Mapping[str, object]], variables: Sequence[str]
) -> dict[tuple[str, str], float]:
    """For every two variables, the share in [0, 1] of pairs on which their counterfactuals (text or ids) differ.

    At 0 no pair tells the two apart: whatever is measured for one holds for the other. Raises: PairsError without pairs.
    """
    if not counterfactuals:
        raise PairsError("there are no pairs; variables cannot be told apart without")
    return {
        (v, w): sum(c[v] != c[w] for c in counterfactuals) / len(counterfactuals) for v, w in combinations(variables, 2)
    }
