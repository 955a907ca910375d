"""Draws one heat map: white to one hue, with a value in each cell where it can be read; one column
wide for a paper, or with its caption as a title above.

Invariants: text is text, of at least MIN_FONT points, and nothing is cut off; accepted cells are
outlined, which a grey print shows too; a cell's colour is its score alone, so the caption says what
is wrong with a mean, in the words of core/claims.py; pyplot is not used, so that no global figure
or backend of the user's is touched.
"""

import textwrap
from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any
from unicodedata import bidirectional

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.patches import Patch, PathPatch, Rectangle
from matplotlib.path import Path
from matplotlib.text import Text

from raysearch.core import claims
from raysearch.report.claim import ablations, figure_claim
from raysearch.report.figure import Picture
from raysearch.report.heatmap_colours import blend, ink
from raysearch.report.labels import VERDICT_WORDS
from raysearch.report.panels import Panel
from raysearch.report.row_sequence import TableRow
from raysearch.report.run_facts import ChartFacts
from raysearch.stats.distributions import Floats
from raysearch.visible_text import shorten, visible

COLUMN, PAGE = 3.3, 6.9
"""Inches of a column, and of a page with two: for maps of more than MAX_NARROW columns."""
MAX_NARROW = 48
MAX_VALUES = 1500
"""Cells at most that have values; more take minutes to draw, and nobody can read them."""
MIN_FONT = 5.0
_FONT = 7.0
_LONGEST_TALL, _LONGEST_FLAT = 22, 14
"""Characters of a column's label that is turned, and of one that is not."""
_WIDEST, _HIGHEST, _HIGH = 0.62, 0.24, 0.17
"""Inches that a cell is wide and high at most; and high where there are many layers."""
_FLAT, _NARROW, _DENSE = 0.95, 0.3, 0.0325
"""Inches of a column below a title: at most, where its label is turned, and without values."""
_TITLED, _LARGEST = 4.6, 31.2
"""Inches that a title needs, and that a map has at most: PNG viewers stop at 2^16 dots."""
_STEPS = 64
"""Colours of the bar."""
_TALLEST = 6.4
"""Inches of all rows together, for a paper."""
_BAR = 0.09
_GREY, _LINE, _SOFT, _INK = "#d9d9d9", "#9a9a9a", "#767676", "#111111"


def draw(
    panel: Panel, facts: ChartFacts, tokens: Mapping[str, str] = {}, titled: bool = False
) -> Picture:
    """Returns the figure of a panel.

    Args: tokens: the text of an example at each position. titled: whether its caption stands above,
    and it is as large as its values need; else it fits a paper.
    """
    return _Drawing(panel, facts, tokens, titled).picture


class _Drawing:
    """Draws a figure, measures its texts, and gives it the height that they need."""

    def __init__(
        self, panel: Panel, facts: ChartFacts, tokens: Mapping[str, str], titled: bool
    ) -> None:
        self._panel, self._facts = panel, facts
        self._left = 0.3 + 0.055 * max((len(label) for label in panel.layer_labels), default=1)
        right = 0.12 + _BAR + 0.42
        self._labels = _labels(panel, tokens)
        flat = max((_points(part) for label in self._labels for part in label), default=0)
        rows, columns = max(len(panel.layers), 1), max(len(panel.labels), 1)
        width, height = self._size = (
            _size_below_a_title(rows, columns, flat / 72)
            if titled
            else _size_in_a_paper(rows, columns, self._left, right)
        )
        self._width = max(self._left + width + right, _TITLED if titled else 0.0)
        self._cell = 72 * width / columns, 72 * height / rows
        self._turned = flat > self._cell[0] + 1e-6
        self.picture = Picture(figsize=(self._width, 1))
        FigureCanvasAgg(self.picture)
        title = self._draw_title() if titled else []
        axes = self.picture.add_axes((0, 0, 1, 1))
        bar = self.picture.add_axes((0, 0, 1, 1))
        self._draw_cells(axes)
        self._draw_labels(axes)
        self._draw_bar(bar)
        self._draw_legend()
        self._arrange(title, axes, bar)

    @property
    def _tall(self) -> float:
        """Inches that the bar is high."""
        return min(max(self._size[1], 0.5), 1.6)

    def _arrange(self, title: Sequence[tuple[Text, float]], axes: Axes, bar: Axes) -> None:
        """Gives the figure the height that its texts need, and each part its place in it.

        `title`: its parts with their heights in inches.
        """
        left, (width, height), tall = self._left, self._size, self._tall
        above = 0.2 + max(tall - height, 0) / 2 + sum(inches for _, inches in title)
        self._place(axes, left, above, width, height, 1.0)
        below = self._below(axes) + 0.17 * self._legend_rows()
        whole = above + height + max(below, (tall - height) / 2 + 0.05)
        self.picture.set_size_inches(self._width, whole)
        self._place(axes, left, above, width, height, whole)
        at = left + width + 0.12
        self._place(bar, at, above + (height - tall) / 2, _BAR, tall, whole)
        top = whole - 0.06
        for text, inches in title:
            text.set_y(top / whole)
            top -= inches

    def _draw_title(self) -> list[tuple[Text, float]]:
        """Draws the caption, its question in bold, and returns its parts with their heights in
        inches; parts that are too wide get smaller."""
        question, *rest = sentences(self._panel, self._facts)
        drawn = []
        for words, size, weight in ((question, 9.0, "bold"), (" ".join(rest), 5.6, "normal")):
            room = 72 * self._width - 12
            wide = 1 + sum(map(_is_wide, words)) / len(words)
            em = 0.58 if weight == "bold" else 0.55  # of a letter, on average
            lines = textwrap.wrap(words, max(int(room / (em * size * wide)), 8))
            text = self.picture.text(
                6 / (room + 12), 1, "\n".join(lines), size=size, weight=weight, va="top",
                linespacing=1.25, color=_INK if weight == "bold" else "#444444",
            )  # fmt: skip
            while (box := self._inches(text))[0] > room / 72:
                size *= 0.95
                text.set_fontsize(size)
            drawn.append((text, box[1] + 0.06))
        return drawn

    def _inches(self, text: Text) -> tuple[float, float]:
        """Returns the width and height of a text in inches."""
        box, dots = self.picture.box_of(text), self.picture.dpi
        return (0.0, 0.0) if box is None else (box.width / dots, box.height / dots)

    def _place(
        self, axes: Axes, left: float, above: float, width: float, height: float, whole: float
    ) -> None:
        """Puts axes at inches from the left and from above in a figure of `whole` inches."""
        w, bottom = self._width, whole - above - height
        axes.set_position((left / w, bottom / whole, width / w, height / whole))

    def _below(self, axes: Axes) -> float:
        """Returns the inches that the axes' labels take below them."""
        box = self.picture.box_of(axes.xaxis)
        bottom = axes.get_window_extent().y0
        return 0.05 if box is None else float(bottom - box.y0) / self.picture.dpi + 0.05

    def _legend_rows(self) -> int:
        return ceil(len(self._marks()) / (2 if self._width < 2.9 else 4))

    def _marks(self) -> list[Patch]:
        """Returns the marks that the map has, for its legend."""
        verdicts = {row["verdict"] for row in self._panel.cells.values()}
        looks = {
            "accept": Patch(facecolor="white", edgecolor=_INK, linewidth=1.1, label="accepted"),
            "undecided": Patch(
                facecolor="white", edgecolor=_INK, linewidth=0.7, linestyle=":", label="undecided"
            ),
            "reject": Patch(facecolor="white", edgecolor=_GREY, linewidth=0.5, label="rejected"),
            "failed": Patch(facecolor=_GREY, label="failed"),
            None: Patch(
                facecolor="white", edgecolor=_LINE, linewidth=0.5, hatch="////",
                label=VERDICT_WORDS[None],
            ),
        }  # fmt: skip
        return [patch for verdict, patch in looks.items() if verdict in verdicts]

    def _draw_cells(self, axes: Axes) -> None:
        cells, edge = self._panel.cells, 0.4 if min(self._cell) > 5 else 0.0
        at = {v: [c for c, row in cells.items() if row["verdict"] == v] for v in VERDICT_WORDS}
        colours = [_colour(row) for row in cells.values()]
        squares = PolyCollection(
            [*self._corners([*cells])], facecolors=colours, edgecolors=_GREY, linewidths=edge
        )
        axes.add_collection(squares, autolim=False)
        self._mark(axes, at[None], 0.0, edgecolor=_LINE, hatch="////")
        for verdict, points, line in (("accept", 1.1, "-"), ("undecided", 0.7, ":")):
            points = min(points, 0.2 * min(self._cell))
            self._mark(axes, at[verdict], points, edgecolor=_INK, linestyle=line, zorder=3)
        size = min(_FONT, 0.62 * self._cell[1], self._cell[0] / 1.75)
        if size >= MIN_FONT and self._panel.area <= MAX_VALUES:
            self._draw_values(axes, size)
        axes.set_xlim(-0.5, max(len(self._panel.labels), 1) - 0.5)
        axes.set_ylim(-0.5, max(len(self._panel.layers), 1) - 0.5)

    def _corners(self, at: Sequence[tuple[int, int]], line: float = 0.0) -> Floats:
        """Returns the corners (cells, 4, 2) of squares that lie inside of their cells by half the
        width of a line, in points."""
        dx, dy = (0.5 - min(line / side, 0.4) / 2 for side in self._cell)
        corners: Floats = np.array([(-dx, -dy), (dx, -dy), (dx, dy), (-dx, dy)])
        middles: Floats = np.array([(x, y) for y, x in at], dtype=float).reshape(-1, 1, 2)
        return middles + corners

    def _mark(self, axes: Axes, at: Sequence[tuple[int, int]], line: float, **look: Any) -> None:
        """Frames or hatches cells as one artist, since each costs a hundredth of a second."""
        if at:
            path = Path.make_compound_path_from_polys(self._corners(at, line))
            axes.add_artist(PathPatch(path, fill=False, linewidth=line, **look))

    def _draw_values(self, axes: Axes, size: float) -> None:
        for (y, x), row in self._panel.cells.items():
            if row["iia"] is None or row["verdict"] is None:
                continue
            text = _short(row["iia"])
            axes.text(
                x, y, text, ha="center", va="center_baseline", fontsize=size,
                color=_SOFT if text == "0" else ink(_colour(row)),
                weight="bold" if row["verdict"] == "accept" else "normal",
            )  # fmt: skip

    def _draw_labels(self, axes: Axes) -> None:
        panel = self._panel
        across = ceil(1.05 * _FONT / self._cell[0]) if self._turned else 1
        upward = ceil(1.05 * _FONT / self._cell[1])
        joint = " · " if self._turned else "\n"
        axes.set_xticks(
            range(0, len(self._labels), across),
            [joint.join(label) for label in self._labels[::across]],
            fontsize=_FONT - 0.5,
            rotation=90 if self._turned else 0,
            linespacing=1.15,
        )
        axes.set_yticks(
            range(0, len(panel.layers), upward), panel.layer_labels[::upward], fontsize=_FONT - 0.5
        )
        axes.set_xlabel(panel.axis, fontsize=_FONT, labelpad=2)
        axes.set_ylabel("layer", fontsize=_FONT, labelpad=2)
        _frame(axes)

    def _draw_bar(self, axes: Axes) -> None:
        for i in range(_STEPS):
            colour = blend((i + 0.5) / _STEPS)
            axes.add_patch(Rectangle((0, i / _STEPS), 1, 1.2 / _STEPS, color=colour, linewidth=0))
        tau = self._facts.threshold
        ticks = {v: f"{v:g}" for v in (0, 0.5, 1)}
        if tau is not None:
            axes.axhline(tau, color=_INK, linewidth=0.9)
            ticks = {v: name for v, name in ticks.items() if abs(v - tau) * self._tall > 0.12}
            ticks[tau] = f"τ = {tau:g}"
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_xticks([])
        axes.yaxis.tick_right()
        axes.set_yticks(list(ticks), list(ticks.values()), fontsize=_FONT - 1)
        score = self._facts.score
        axes.set_title(score.name if score.counted else "score", fontsize=_FONT - 0.5, pad=3)
        _frame(axes)

    def _draw_legend(self) -> None:
        if marks := self._marks():
            self.picture.legend(
                handles=marks, loc="lower left", ncols=ceil(len(marks) / self._legend_rows()),
                bbox_to_anchor=(0.01, 0.0), fontsize=_FONT - 1, frameon=False,
                handlelength=1.1, handleheight=1.0, handletextpad=0.4, columnspacing=1.0,
                borderpad=0.1, borderaxespad=0.2,
            )  # fmt: skip


def _frame(axes: Axes) -> None:
    """Draws a thin frame without ticks."""
    axes.tick_params(length=0, pad=2)
    for spine in axes.spines.values():
        spine.set_color(_LINE)
        spine.set_linewidth(0.5)


def _high(rows: int) -> float:
    """Returns the inches of a row."""
    return _HIGHEST if rows <= 12 else _HIGH


def _size_below_a_title(rows: int, columns: int, flat: float) -> tuple[float, float]:
    """Returns width and height in inches of all cells, whose widest label is `flat` inches."""
    height = min(rows * _high(rows), _LARGEST)
    if columns > MAX_NARROW or rows * columns > MAX_VALUES:
        return min(max(columns * _DENSE, _TITLED - 1), _LARGEST), height
    wide = flat if flat <= _FLAT and columns * flat <= 9 else _NARROW
    return columns * max(wide, _NARROW, min(_WIDEST, 3.2 / columns)), height


def _size_in_a_paper(rows: int, columns: int, left: float, right: float) -> tuple[float, float]:
    """Returns width and height in inches of all cells, which have so much on their left and right
    in a column or page."""
    room = (COLUMN if columns <= MAX_NARROW else PAGE) - left - right
    return min(room, columns * _WIDEST), rows * min(_high(rows), _TALLEST / rows)


def sentences(panel: Panel, facts: ChartFacts) -> list[str]:
    """Returns the caption's sentences: first where is what, then how it is shown, of what, at
    which threshold."""
    of = "/".join((facts.model or "the model").split("/")[-2:]).removeprefix("models/")
    shared = f" ({', '.join(panel.shared)})" if panel.shared else ""
    score = facts.score
    ablates = ablations(row.get("units") for row in panel.cells.values())
    scored = claims.score_words(ablates) if score.counted else score.description
    said = [
        claims.question(ablates, f"“{panel.variable}”", f"{of}{shared}"),
        f"{score.name[:1].upper()}{score.name[1:]} ({scored}) by layer and {panel.axis}, white 0 "
        "to blue 1.",
        *figure_claim(facts, ablates),
        f"Intervals and holdout are in the report. Run {facts.run}.",
    ]
    if panel.left_out:
        said.append(f"Not shown: {panel.left_out} hypotheses over several layers.")
    return [visible(sentence) for sentence in said]


def _labels(panel: Panel, tokens: Mapping[str, str]) -> list[tuple[str, ...]]:
    """Returns the lines below each column: its label, and the example's token there."""
    one_line = [" ".join(label.split("\n")) for label in panel.labels]
    positions: dict[int, str | None] = {x: row["position"] for (_, x), row in panel.cells.items()}
    cut = len({shorten(label, _LONGEST_TALL) for label in one_line}) < len(one_line)
    found = []
    for x, label in enumerate(panel.labels):
        lines = [one_line[x]] if len(panel.labels) > 12 else label.split("\n")
        token = tokens.get(positions.get(x) or "", "") if panel.axis == "position" else ""
        example = [_quoted(shorten(_spaces(token), _LONGEST_FLAT))] if token else []
        found.append((*(shorten(line, 84 if cut else _LONGEST_TALL) for line in lines), *example))
    return found


def _quoted(token: str) -> str:
    """Returns a token in quotes; one that is written from the right without, which would turn."""
    rightward = any(bidirectional(c) in ("R", "AL") for c in token)
    return token if rightward else f"“{token}”"


def _spaces(token: str) -> str:
    """Returns a token with its outer spaces visible where it is nothing else."""
    return token.strip() or token.replace(" ", "␣")


def _points(text: str) -> float:
    """Returns about how wide a text is in points; wide characters count twice."""
    return 0.56 * (_FONT - 0.5) * (len(text) + sum(map(_is_wide, text))) + 3


def _is_wide(character: str) -> bool:
    return ord(character) > 0x2E80


def _colour(row: TableRow) -> tuple[float, ...]:
    if row["verdict"] == "failed" or (row["iia"] is None and row["verdict"] is not None):
        return (0.85, 0.85, 0.85)
    return blend(min(max(float(row["iia"] or 0.0), 0.0), 1.0)) if row["verdict"] else (1, 1, 1)


def _short(share: float) -> str:
    """Formats 0.87 as .87, 1 as 1.0 and 0 as 0: three characters at most."""
    text = f"{share:.2f}"
    return {"1.00": "1.0", "0.00": "0", "-0.00": "0"}.get(text, text.replace("0.", ".", 1))
