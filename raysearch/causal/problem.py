"""A problem: a causal model, a sampler of pairs, and how its settings become inputs and answers.

Invariants: a problem that lists its domain lists each pair once, and its sampler draws each with
the same chance.
"""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from raysearch.causal.model import CausalModel, Setting, Value
from raysearch.causal.pairs import LAST, Input
from raysearch.errors import PairsError


@dataclass(frozen=True)
class Problem:
    """A causal model, and how its settings become texts (or tensors) and answers.

    Args:
        sample: draws the inputs' values of one (base, source).
        render: writes the text and its spans, or the stimulus and its tokens, from the values of
            all variables.
        answer: writes the output variable's value as the text that follows, or as its class ("0",
            "1", ...).
        positions: names that every rendered input has; "last" need not be named.
        set_of: names the kind of a (base, source) pair, for results per set; None for no sets.
        choices: lists the answers among which an input's answer is chosen (answer.compare:
            choices). A pair chooses among those of base and source.
        domain: yields every (base, source) that `sample` may draw, each once, if it draws all of
            them with the same chance; None if it does not, or they cannot be listed.

    Raises:
        PairsError: a field has the wrong type, or a position is named twice or is "last".
    """

    name: str
    model: CausalModel
    sample: Callable[[random.Random], tuple[Setting, Setting]]
    render: Callable[[Setting], Input]
    answer: Callable[[Value], str]
    positions: tuple[str, ...]
    set_of: Callable[[Setting, Setting], str] | None = None
    choices: Callable[[Setting], Sequence[Value]] | None = None
    domain: Callable[[], Iterable[tuple[Setting, Setting]]] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.model, CausalModel):
            raise PairsError(
                f"problem {self.name!r}: model is {self.model!r:.60}; give a CausalModel"
            )
        for field in ("sample", "render", "answer"):
            if not callable(getattr(self, field)):
                raise PairsError(
                    f"problem {self.name!r}: {field} is {getattr(self, field)!r:.60}; give a "
                    f"function"
                )
        if isinstance(self.positions, str):
            raise PairsError(
                f"problem {self.name!r}: positions is a text; give a tuple of names, "
                f"({self.positions!r},)"
            )
        if LAST in self.positions or len(set(self.positions)) < len(self.positions):
            raise PairsError(
                f"problem {self.name!r}: positions {self.positions}: name each once, and {LAST!r} "
                f"not at all (it always exists)"
            )
