"""The marked symbol: an image of nine patches, in two of which a symbol stands, and in the middle a
marker that says which of them counts.

The marker points at the symbol `first` (top left) or at `second` (bottom right); the class of the
image is the one that it points at. The other patches are noise.
"""

import random

import raysearch as rs
from raysearch.causal import Stimulus

SIDE, PATCHES = 4, 3
"""Pixels of a patch's side, and patches of the image's."""

SYMBOLS = (
    ("1111", "1001", "1001", "1111"),
    ("0110", "0110", "0110", "0110"),
    ("0000", "1111", "1111", "0000"),
    ("1001", "0110", "0110", "1001"),
)
MARKERS = {"first": ("1110", "1100", "1000", "0000"), "second": ("0000", "0001", "0011", "0111")}
NOISE = 0.15
"""Of every pixel, uniform up to so much."""

FIRST, MIDDLE, SECOND = 0, 4, 8
"""Where they stand among the patches, row by row."""


def problem() -> rs.Problem:
    """Symbols, marker and noise of base and source are independent of each other. The input `noise`
    is a seed."""
    kinds = tuple(range(len(SYMBOLS)))
    return rs.Problem(
        name="marked_symbol",
        model=rs.CausalModel(
            variables=(
                rs.Variable("noise"),
                rs.Variable("first", kinds),
                rs.Variable("second", kinds),
                rs.Variable("marker", tuple(MARKERS)),
                rs.Variable("marked", kinds),
            ),
            parents={"marked": ("first", "second", "marker")},
            mechanisms={"marked": _marked},
            output="marked",
        ),
        sample=lambda rng: (_setting(rng), _setting(rng)),
        render=_render,
        answer=str,
        positions=(),
    )


def _marked(first: int, second: int, marker: str) -> rs.Value:
    return first if marker == "first" else second


def _setting(rng: random.Random) -> rs.Setting:
    symbols = {name: rng.randrange(len(SYMBOLS)) for name in ("first", "second")}
    return {"noise": rng.randrange(2**30), "marker": rng.choice(tuple(MARKERS)), **symbols}


def _render(values: rs.Setting) -> rs.Input:
    return rs.Input(stimulus=Stimulus.of([pixels(values)]), values=dict(values))


def pixels(values: rs.Setting) -> list[list[float]]:
    """The image, row by row."""
    rng = random.Random(f"marked_symbol.{values['noise']}")
    blank = ("0" * SIDE,) * SIDE
    shown = {
        FIRST: SYMBOLS[values["first"]],
        SECOND: SYMBOLS[values["second"]],
        MIDDLE: MARKERS[values["marker"]],
    }
    return [
        [
            float(shown.get(PATCHES * (y // SIDE) + x // SIDE, blank)[y % SIDE][x % SIDE])
            + rng.uniform(-NOISE, NOISE)
            for x in range(SIDE * PATCHES)
        ]
        for y in range(SIDE * PATCHES)
    ]
