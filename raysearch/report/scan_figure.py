"""Draws a scan: layers upward, tokens across, colour = a logit difference.

Invariants: pyplot is not used, as in heat maps; the colour's middle is zero, where the model
prefers neither answer.
"""

from collections.abc import Sequence

from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg

from raysearch.report.figure import Picture
from raysearch.visible_text import shorten, visible, visible_lines

_LONGEST = 40
"""Maximum of characters of a token."""


def scan_picture(
    title: str,
    label: str,
    layers: Sequence[int | None],
    tokens: Sequence[str],
    values: Sequence[Sequence[float]],
    words: Sequence[Sequence[str]],
) -> Picture:
    """Draws `values` by layer and token, with `words` as text in the cells."""
    limit = max((abs(v) for row in values for v in row), default=0.0) or 1.0
    longest = max((len(shorten(w, _LONGEST)) for row in words for w in row), default=0)
    cell = max(0.62, 0.075 * longest)
    figure = Picture(
        figsize=(max(cell * len(tokens) + 1.9, 5.2), max(0.2 * len(layers), 1.6) + 1.5),
        layout="constrained",
    )
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    image = axes.imshow(
        values, origin="lower", aspect="auto", cmap=colormaps["RdBu_r"], vmin=-limit, vmax=limit
    )
    axes.set_xticks(range(len(tokens)), [_token(token) for token in tokens], fontsize=8)
    axes.set_yticks(
        range(len(layers)), ["-" if layer is None else str(layer) for layer in layers], fontsize=7
    )
    axes.set_xlabel("token (beneath: the source's)", fontsize=8)
    axes.set_ylabel("layer", fontsize=8)
    axes.set_title(visible_lines(title), fontsize=10, loc="left")
    for y, row in enumerate(words):
        for x, word in enumerate(row):
            ink = "white" if abs(values[y][x]) > 0.6 * limit else "black"
            axes.text(
                x,
                y,
                shorten(word.strip(), _LONGEST),
                ha="center",
                va="center",
                fontsize=6,
                color=ink,
            )
    figure.colorbar(image, ax=axes).set_label(visible(label), fontsize=8)
    return figure


def _token(token: str) -> str:
    """Returns the base's token, with the source's below it if that differs."""
    lines = token.split("\n")
    both = lines if len(lines) == 2 and all(lines) else [token]
    return "\n".join(shorten(line.strip(" "), _LONGEST) or "␣" for line in both)
