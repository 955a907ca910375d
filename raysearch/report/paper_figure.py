"""Draws heat maps for a paper: one column wide, white to one hue, as PDF and SVG with a caption.

Invariants: text is text, of at least MIN_FONT points; accepted cells are outlined, which a grey
print shows too; a cell's colour is its score alone; a value stands in a cell only where it can be
read; the caption says all else.
"""

from collections.abc import Iterator, Mapping
from itertools import chain
from math import ceil
from unicodedata import bidirectional

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import Patch, Rectangle

from raysearch.core import claims
from raysearch.report.cell_style import blend, ink
from raysearch.report.claim import ablations, figure_claim
from raysearch.report.figure import Picture, without_glyphs
from raysearch.report.heatmap import each_panel
from raysearch.report.panels import Panel
from raysearch.report.rows import Row
from raysearch.report.run_facts import ChartFacts, chart_facts
from raysearch.storage.open import FolderLike, open_folder
from raysearch.visible_text import shorten, visible

COLUMN, PAGE = 3.3, 6.9
"""Inches of a column, and of a page with two: for maps of more than MAX_NARROW columns."""
MAX_NARROW = 48
MIN_FONT = 5.0
_FONT = 7.0
_LONGEST_TALL, _LONGEST_FLAT = 22, 14
"""Characters of a column's label that is turned, and of one that is not."""
_WIDEST, _HIGHEST, _HIGH = 0.62, 0.24, 0.17
"""Inches that a cell is wide and high at most; and high where there are many layers."""
_STEPS = 64
"""Colours of the bar."""
_TALLEST = 6.4
"""Inches of all rows together."""
_BAR = 0.09
_GREY, _LINE, _SOFT, _INK = "#d9d9d9", "#9a9a9a", "#767676", "#111111"


def figures(run: FolderLike, out: FolderLike, tokens: Mapping[str, str]) -> Iterator[str]:
    """Writes each heat map as PDF and SVG, and captions.txt; yields the names of the files.

    Args: tokens: the text of an example at each position.

    Raises: StoreError if the run has no hypotheses yet, or a file cannot be read or written.
    """
    run, out = open_folder(run), open_folder(out)
    facts, captions = chart_facts(run), []
    for stem, panel in each_panel(run):
        picture = draw(panel, facts, tokens)
        for kind in ("pdf", "svg"):
            out.write(f"{stem}.{kind}", picture.file(kind))
            yield f"{stem}.{kind}"
        captions.append(f"{stem}: {caption(panel, facts)}")
    out.write("captions.txt", "\n\n".join([*captions, ""]).encode())
    yield "captions.txt"


def unshown(run: FolderLike, tokens: Mapping[str, str]) -> str:
    """Returns the characters of labels that no installed font has."""
    labels = (label for _, panel in each_panel(open_folder(run)) for label in panel.labels)
    return without_glyphs("".join(chain(labels, tokens.values())))


def draw(panel: Panel, facts: ChartFacts, tokens: Mapping[str, str] = {}) -> Picture:
    """Returns the figure of a panel."""
    return _Drawing(panel, facts, tokens).picture


class _Drawing:
    """Draws a figure, measures its labels, and gives it the height that they need."""

    def __init__(self, panel: Panel, facts: ChartFacts, tokens: Mapping[str, str]) -> None:
        self._panel, self._facts = panel, facts
        rows, columns = max(len(panel.layers), 1), max(len(panel.labels), 1)
        left = 0.3 + 0.055 * max((len(label) for label in panel.layer_labels), default=1)
        right = 0.12 + _BAR + 0.42
        room = (COLUMN if columns <= MAX_NARROW else PAGE) - left - right
        width = min(room, columns * _WIDEST)
        height = rows * min(_HIGHEST if rows <= 12 else _HIGH, _TALLEST / rows)
        self._cell = 72 * width / columns, 72 * height / rows
        self._labels = _labels(panel, tokens)
        flat = max((_points(part) for label in self._labels for part in label), default=0)
        self._turned = flat > self._cell[0]
        self._width = left + width + right
        self.picture = Picture(figsize=(self._width, 1))
        FigureCanvasAgg(self.picture)
        axes = self.picture.add_axes((0, 0, 1, 1))
        bar = self.picture.add_axes((0, 0, 1, 1))
        self._draw_cells(axes)
        self._draw_labels(axes)
        tall = min(max(height, 0.5), 1.6)
        self._draw_bar(bar, tall)
        self._draw_legend()
        above = 0.2 + max(tall - height, 0) / 2
        self._place(axes, left, above, width, height, 1.0)
        below = self._below(axes) + 0.17 * self._legend_rows()
        whole = above + height + max(below, (tall - height) / 2 + 0.05)
        self.picture.set_size_inches(self._width, whole)
        self._place(axes, left, above, width, height, whole)
        at = left + width + 0.12
        self._place(bar, at, above + (height - tall) / 2, _BAR, tall, whole)

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
        """The marks that the map has, for its legend."""
        verdicts = {row["verdict"] for row in self._panel.cells.values()}
        failed = "failed" in verdicts
        looks = {
            "accept": Patch(facecolor="white", edgecolor=_INK, linewidth=1.1, label="accepted"),
            "undecided": Patch(
                facecolor="white", edgecolor=_INK, linewidth=0.7, linestyle=":", label="undecided"
            ),
            None: Patch(
                facecolor="white", edgecolor=_LINE, linewidth=0.5, hatch="////", label="no verdict"
            ),
        }
        marks = [patch for verdict, patch in looks.items() if verdict in verdicts]
        return [*marks, *([Patch(facecolor=_GREY, label="failed")] if failed else [])]

    def _draw_cells(self, axes: Axes) -> None:
        panel, size = self._panel, min(_FONT, 0.62 * self._cell[1], self._cell[0] / 1.75)
        shown = size >= MIN_FONT
        edge = 0.4 if min(self._cell) > 5 else 0.0
        for (y, x), row in panel.cells.items():
            colour = _colour(row)
            hatch = "////" if row["verdict"] is None else None
            square = Rectangle(
                (x - 0.5, y - 0.5), 1, 1, facecolor=colour, hatch=hatch,
                edgecolor=_GREY, linewidth=edge,
            )  # fmt: skip
            axes.add_patch(square)
            if row["verdict"] in ("accept", "undecided"):
                axes.add_patch(self._outline(x, y, row["verdict"] == "accept"))
            if shown and row["iia"] is not None and row["verdict"] is not None:
                text = _short(row["iia"])
                axes.text(
                    x, y, text, ha="center", va="center_baseline", fontsize=size,
                    color=_SOFT if text == "0" else ink(colour),
                    weight="bold" if row["verdict"] == "accept" else "normal",
                )  # fmt: skip
        axes.set_xlim(-0.5, max(len(panel.labels), 1) - 0.5)
        axes.set_ylim(-0.5, max(len(panel.layers), 1) - 0.5)

    def _outline(self, x: int, y: int, accepted: bool) -> Rectangle:
        """Returns the frame of a cell, drawn inside of it."""
        points = min(1.1 if accepted else 0.7, 0.2 * min(self._cell))
        dx, dy = (0.5 - min(points / side, 0.4) / 2 for side in self._cell)
        return Rectangle(
            (x - dx, y - dy), 2 * dx, 2 * dy, fill=False, edgecolor=_INK, linewidth=points,
            linestyle="-" if accepted else ":", zorder=3,
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
        axes.tick_params(length=0, pad=2)
        for spine in axes.spines.values():
            spine.set_color(_LINE)
            spine.set_linewidth(0.5)

    def _draw_bar(self, axes: Axes, tall: float) -> None:
        for i in range(_STEPS):
            colour = blend((i + 0.5) / _STEPS)
            axes.add_patch(Rectangle((0, i / _STEPS), 1, 1.2 / _STEPS, color=colour, linewidth=0))
        tau = self._facts.threshold
        ticks = {v: f"{v:g}" for v in (0, 0.5, 1)}
        if tau is not None:
            axes.axhline(tau, color=_INK, linewidth=0.9)
            ticks = {v: name for v, name in ticks.items() if abs(v - tau) * tall > 0.12}
            ticks[tau] = f"τ = {tau:g}"
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_xticks([])
        axes.yaxis.tick_right()
        axes.set_yticks(list(ticks), list(ticks.values()), fontsize=_FONT - 1)
        axes.tick_params(length=0, pad=2)
        score = self._facts.score
        axes.set_title(score.name if score.counted else "score", fontsize=_FONT - 0.5, pad=3)
        for spine in axes.spines.values():
            spine.set_color(_LINE)
            spine.set_linewidth(0.5)

    def _draw_legend(self) -> None:
        if marks := self._marks():
            self.picture.legend(
                handles=marks, loc="lower left", ncols=ceil(len(marks) / self._legend_rows()),
                bbox_to_anchor=(0.01, 0.0), fontsize=_FONT - 1, frameon=False,
                handlelength=1.1, handleheight=1.0, handletextpad=0.4, columnspacing=1.0,
                borderpad=0.1, borderaxespad=0.2,
            )  # fmt: skip


def caption(panel: Panel, facts: ChartFacts) -> str:
    """Returns the words under the figure: what is shown, of what, at which threshold."""
    of = "/".join((facts.model or "the model").split("/")[-1:])
    shared = f" ({', '.join(panel.shared)})" if panel.shared else ""
    score = facts.score
    ablates = ablations(row.get("units") for row in panel.cells.values())
    scored = claims.scored(ablates) if score.counted else score.description
    said = [
        f"{claims.question(ablates, panel.variable, f'{of}{shared}')} "
        f"{score.name[:1].upper()}{score.name[1:]} ({scored}) by layer and {panel.axis}, white 0 "
        "to blue 1.",
        *figure_claim(facts, ablates),
        f"Intervals and holdout are in the report. Run {facts.run}.",
    ]
    if panel.left_out:
        said.append(f"Not shown: {panel.left_out} hypotheses over several layers.")
    return visible(" ".join(said))


def _labels(panel: Panel, tokens: Mapping[str, str]) -> list[tuple[str, ...]]:
    """Returns the lines below each column: its label, and the example's token there."""
    positions: dict[int, str | None] = {x: row["position"] for (_, x), row in panel.cells.items()}
    found = []
    for x, label in enumerate(panel.labels):
        lines = [" ".join(label.split("\n"))] if len(panel.labels) > 12 else label.split("\n")
        token = tokens.get(positions.get(x) or "", "") if panel.axis == "position" else ""
        example = [_quoted(shorten(_spaces(token), _LONGEST_FLAT))] if token else []
        found.append((*(shorten(line, _LONGEST_TALL) for line in lines), *example))
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
    wide = sum(ord(c) > 0x2E80 for c in text)
    return 0.56 * (_FONT - 0.5) * (len(text) + wide) + 3


def _colour(row: Row) -> tuple[float, ...]:
    if row["verdict"] == "failed" or (row["iia"] is None and row["verdict"] is not None):
        return (0.85, 0.85, 0.85)
    return blend(min(max(float(row["iia"] or 0.0), 0.0), 1.0)) if row["verdict"] else (1, 1, 1)


def _short(share: float) -> str:
    """Formats 0.87 as .87, 1 as 1.0 and 0 as 0: three characters at most."""
    text = f"{share:.2f}"
    return {"1.00": "1.0", "0.00": "0", "-0.00": "0"}.get(text, text.replace("0.", ".", 1))
