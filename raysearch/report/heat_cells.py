"""Draws the cells of a heat map with matplotlib: with text, or as one image if there are many.

Invariants: both ways give a cell the same colour (`fade`), frame accepted ones, and mark undecided
and failed ones.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from raysearch.report.cell_style import blend, ink, interval_width, opacity
from raysearch.report.panels import Panel
from raysearch.report.rows import Row

ACCEPTED, FAILED, WAITING = "#e8112d", "#b5b5b5", "#f3f3f3"
_GREYS = {
    colour: tuple(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    for colour in (FAILED, WAITING)
}
_MAX_TEXT_CELLS = 1500
"""Cells with text at most; more take minutes to draw, and nobody can read them."""
_MAX_TEXT_COLUMNS = 48
"""Most columns whose cells have text; each is at least an inch wide."""


def has_text(panel: Panel) -> bool:
    """Whether the cells show IIA and interval as text."""
    return (
        len(panel.labels) <= _MAX_TEXT_COLUMNS
        and len(panel.labels) * len(panel.layers) <= _MAX_TEXT_CELLS
    )


def fade(colour: Sequence[float], width: float | None) -> tuple[float, ...]:
    """Mixes an RGB colour with white; the wider the interval (in [0, 1], or None), the more."""
    alpha = opacity(width)
    return tuple(1 - alpha * (1 - c) for c in colour[:3])


def draw_with_text(axes: Axes, panel: Panel) -> None:
    """Draws a rectangle for each cell with its IIA, interval and pairs."""
    for (y, x), row in panel.cells.items():
        _draw_cell(axes, x, y, row)


def draw_dense(axes: Axes, panel: Panel) -> None:
    """Draws one pixel for each cell; frames accepted ones, and marks undecided and failed ones."""
    image = np.ones((max(len(panel.layers), 1), max(len(panel.labels), 1), 3))
    for (y, x), row in panel.cells.items():
        image[y, x] = _colour(row)
    axes.imshow(image, origin="lower", aspect="auto", interpolation="nearest")
    for verdict, marker in (("accept", "s"), ("undecided", "$?$"), ("failed", "x")):
        at = [(x, y) for (y, x), row in panel.cells.items() if row["verdict"] == verdict]
        edge, face = (ACCEPTED, "none") if verdict == "accept" else ("black", "black")
        axes.plot(
            *zip(*at, strict=True) if at else ((), ()),
            marker=marker,
            markersize=6 if verdict == "accept" else 4,
            markeredgecolor=edge,
            markerfacecolor=face,
            linestyle="none",
        )


def _colour(row: Row) -> tuple[float, ...]:
    if row["verdict"] is None:
        return _GREYS[WAITING]
    if row["verdict"] == "failed" or row["iia"] is None:
        return _GREYS[FAILED]
    return fade(blend(float(row["iia"])), interval_width(row))


def _draw_cell(axes: Axes, x: int, y: int, row: Row) -> None:
    iia, verdict, colour = row["iia"], row["verdict"], _colour(row)
    axes.add_patch(
        Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=colour, edgecolor="white", linewidth=0.8)
    )
    text = ink(colour)
    if verdict is None:
        axes.text(x, y, "…", ha="center", va="center", fontsize=8, color="#777777")
        return
    if iia is None:
        axes.text(
            x,
            y,
            "failed" if verdict == "failed" else "no pairs",
            ha="center",
            va="center",
            fontsize=7.5,
        )
        return
    weight = "bold" if verdict == "accept" else "normal"
    axes.text(
        x, y + 0.18, f"{iia:.2f}", ha="center", va="center", fontsize=8.5, color=text, weight=weight
    )
    interval = f"{_short(row['low'])}–{_short(row['high'])}  n={row['n']}"
    axes.text(x, y - 0.24, interval, ha="center", va="center", fontsize=6.3, color=text)
    if verdict == "accept":
        frame = Rectangle(
            (x - 0.46, y - 0.43),
            0.92,
            0.86,
            fill=False,
            edgecolor=ACCEPTED,
            linewidth=2.4,
            zorder=3,
        )
        axes.add_patch(frame)
    if verdict == "undecided":
        axes.text(
            x - 0.38, y + 0.2, "?", ha="center", va="center", fontsize=9, color=text, weight="bold"
        )
    if verdict == "failed":
        axes.text(
            x - 0.36, y + 0.2, "×", ha="center", va="center", fontsize=9, color=text, weight="bold"
        )


def _short(share: float | None) -> str:
    """Formats 0.87 as .87, because cells are narrow."""
    return "?" if share is None else f"{share:.2f}".removeprefix("0")
