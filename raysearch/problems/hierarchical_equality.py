"""Hierarchical equality: (w = x) = (y = z) on random vectors, the first problem of distributed
alignment search.

w, x, y, z are symbols, each a fixed vector; the network gets the four vectors in one row and
answers "1" (the two comparisons agree) or "0". It may use two intermediate variables, left_equality
(w = x) and right_equality (y = z). Geiger et al., 2023, "Finding Alignments Between Interpretable
Causal Variables and Distributed Neural Representations", section 4.

Invariants: the vectors depend on their number and dimensions alone; any two of them are at least
NEAREST apart (sum of absolute differences), so that equality can be seen; both comparisons are true
half of the time, in base and source independently.
"""

import operator
import random
from functools import cache, partial

from raysearch.causal import CausalModel, Input, Problem, Setting, Stimulus, Value, Variable
from raysearch.errors import CausalModelError
from raysearch.problems.option_checks import whole

INPUTS = ("w", "x", "y", "z")
"""The four symbols, in the order of their vectors."""

NEAREST = 0.2
"""Least distance of two vectors, as the sum of absolute differences."""

MOST_SYMBOLS, MOST_DIMENSIONS = 1_000, 100
"""Upper bounds, since every two vectors are compared; this many take some seconds."""

_TRIES = 10_000
"""Vectors in a row that are too near to another, before the search for room is given up."""


def problem(symbols: int = 20, dimensions: int = 4) -> Problem:
    """Returns the problem over a number of `symbols`, with vectors of `dimensions` numbers.

    Variables: w, x, y, z, left_equality, right_equality, output. A pair's set says which
    comparisons differ between base and source: "left", "right", "both" or "neither".

    Raises:
        CausalModelError: a number is out of range, or there is no room for so many symbols.
    """
    symbols = whole("hierarchical_equality", "symbols", symbols, 2, MOST_SYMBOLS, 20)
    dimensions = whole("hierarchical_equality", "dimensions", dimensions, 1, MOST_DIMENSIONS, 4)
    return Problem(
        name="hierarchical_equality",
        model=_causal_model(symbols),
        sample=partial(_sample, symbols),
        render=partial(_render, vectors(symbols, dimensions)),
        answer=_class,
        positions=(),
        set_of=_set_of,
    )


@cache
def vectors(symbols: int, dimensions: int) -> tuple[tuple[float, ...], ...]:
    """Returns the vector of each symbol, with coordinates uniform in [-1, 1].

    Raises:
        CausalModelError: there is no room for so many.
    """
    rng = random.Random(f"hierarchical_equality.{dimensions}.vectors")
    found: list[tuple[float, ...]] = []
    tries = 0
    while len(found) < symbols:
        new = tuple(rng.uniform(-1, 1) for _ in range(dimensions))
        if all(sum(abs(a - b) for a, b in zip(new, old, strict=True)) >= NEAREST for old in found):
            found.append(new)
            tries = 0
        tries += 1
        if tries > _TRIES:
            raise CausalModelError(
                f"hierarchical_equality: symbols: {symbols} vectors of {dimensions} dimensions "
                f"have no room {NEAREST} apart; "
                f"{len(found)} have: ask for fewer symbols or more dimensions"
            )
    return tuple(found)


def _causal_model(symbols: int) -> CausalModel:
    truth = (False, True)
    return CausalModel(
        variables=(
            *(Variable(name, tuple(range(symbols))) for name in INPUTS),
            *(Variable(name, truth) for name in ("left_equality", "right_equality", "output")),
        ),
        parents={
            "left_equality": ("w", "x"),
            "right_equality": ("y", "z"),
            "output": ("left_equality", "right_equality"),
        },
        mechanisms=dict.fromkeys(("left_equality", "right_equality", "output"), operator.eq),
        output="output",
    )


def _sample(symbols: int, rng: random.Random) -> tuple[Setting, Setting]:
    """Draws a base and a source, independently."""
    return _setting(symbols, rng), _setting(symbols, rng)


def _setting(symbols: int, rng: random.Random) -> Setting:
    """Draws symbols: each comparison is true half of the time, and the symbols are uniform given
    that.
    """
    chosen: list[int] = []
    for _ in ("left", "right"):
        one, other = rng.sample(range(symbols), 2)
        chosen += (one, one) if rng.random() < 0.5 else (one, other)
    return dict(zip(INPUTS, chosen, strict=True))


def _render(of: tuple[tuple[float, ...], ...], values: Setting) -> Input:
    """Returns the four vectors in one row."""
    row = [number for name in INPUTS for number in of[_symbol(values[name])]]
    return Input(stimulus=Stimulus.of(row), values=dict(values))


def _symbol(value: Value) -> int:
    assert isinstance(value, int)
    return value


def _class(output: Value) -> str:
    return "1" if output else "0"


def _set_of(base: Setting, source: Setting) -> str:
    left, right = (base[name] != source[name] for name in ("left_equality", "right_equality"))
    return ("both" if right else "left") if left else ("right" if right else "neither")
