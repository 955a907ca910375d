"""Draws a run's heat maps: for each variable a PNG of its sites, with layers upward, positions
across and IIA as colour; and one with heads across for each per-head component and position.

Invariants: a cell shows its IIA and interval, never the colour alone, unless there are too many to
read (`heat_cells`); colour fades as the interval widens, so that a mean of few pairs does not look
like one of many; pyplot is not
used, so that no global figure or backend of the user's is touched.
"""

import re
import textwrap
from collections.abc import Iterator, Sequence
from math import ceil
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from raysearch.errors import JobError, StoreError
from raysearch.report.cell_style import blend
from raysearch.report.figure import Picture
from raysearch.report.heat_cells import (
    ACCEPTED,
    FAILED,
    WAITING,
    draw_dense,
    draw_with_text,
    fade,
    has_text,
)
from raysearch.report.panels import Panel, panels
from raysearch.report.results_table import read_verdicts
from raysearch.report.rows import Row, Rows
from raysearch.report.run_facts import ChartFacts, chart_facts
from raysearch.storage.folder import Folder
from raysearch.storage.open import FolderLike, open_folder
from raysearch.visible_text import shorten, visible

_CELL = 1.0, 0.40
"""Minimum width and height of a cell in inches: room for two lines of text."""
_DENSE = 0.05, 0.2
"""Minimum width and height in inches of a cell without text."""
_NARROWEST, _WIDEST = 6.4, 48.0
"""Inches that title and legend need, and the maximum: matplotlib and PNG viewers stop at 2^16 dots.
"""
_LABEL = 0.22
"""Width in inches of a column label of a dense picture."""
_LINE = 0.14
"""Height in inches of a line of the caption."""
_BAR = 0.42
"""Width in inches of the colour legend."""
_COLUMNS = ("variable", "layer", "position", "units", "verdict", "iia", "low", "high", "n")


_RESERVED = {
    "CON",
    "PRN",
    "AUX",
    "NUL",
    *(f"{port}{n}" for port in ("COM", "LPT") for n in range(1, 10)),
}
"""File names that Windows reserves for devices."""


def heatmaps(run: FolderLike, out: FolderLike) -> list[str]:
    """Draws the heat maps of each variable into the folder `out`; returns the files' names, in
    variables' order.

    Raises: StoreError if the run has no hypotheses yet, a part cannot be read, or a picture cannot
    be written.
    """
    run, out = open_folder(run), open_folder(out)
    facts = chart_facts(run)
    names: list[str] = []
    for stem, panel in each_panel(run):
        names.append(f"{stem}.png")
        try:
            out.write(names[-1], _draw(panel, facts).png())
        except StoreError as e:
            raise StoreError(f"{e}; the verdicts are safe, make room for pictures") from e
    return names


def each_panel(run: Folder) -> Iterator[tuple[str, Panel]]:
    """Yields each heat map of a run, in variables' order, with the stem of its files' names.

    Raises: StoreError if the run has no hypotheses yet.
    """
    rows = _proposed_order(run)
    stems: list[str] = []
    for variable in dict.fromkeys(r["variable"] for r in rows):
        for panel in panels(variable, rows):
            stems.append(_file_name("-".join([variable, *panel.shared]), stems))
            yield stems[-1], panel


def heatmap(run: FolderLike, variable: str | None = None, of: str = "") -> Picture:
    """Draws one heat map without writing it.

    Args: variable: None for the run's first. of: which of its maps, such as "das 4" or "head last";
    "" for the first.

    Raises: StoreError if the run has no hypotheses yet; JobError for an unknown variable or map.
    """
    run = open_folder(run)
    rows = _proposed_order(run)
    variables = list(dict.fromkeys(r["variable"] for r in rows))
    chosen = variables[0] if variable is None else variable
    if chosen not in variables:
        raise JobError(f"{chosen!r} is no variable of this run; it has {', '.join(variables)}")
    drawn = panels(chosen, rows)
    named = {" ".join(panel.shared): panel for panel in reversed(drawn)}
    if of and of not in named:
        raise JobError(
            f"{of!r} is no heat map of {chosen}; it has "
            f"{', '.join(repr(n) for n in reversed(named))}"
        )
    return _draw(named[of] if of else drawn[0], chart_facts(run))


def _draw(panel: Panel, facts: ChartFacts) -> Picture:
    with_text = has_text(panel)
    width, height = _extent(panel, with_text)
    above, left, right = 0.95, 0.75, 1.55
    below = 1.05 + 0.17 * max((label.count("\n") + 1 for label in panel.labels), default=1)
    if not with_text:
        below = 1.25 + 0.075 * max(len(_in_one_line(label)) for label in panel.labels)
    inches = max(width + left + right, _NARROWEST)
    caption = _caption(panel, facts, inches, with_text)
    below += _LINE * caption.count("\n")
    size = inches, height + above + below
    figure = Picture(figsize=size)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((left / size[0], below / size[1], width / size[0], height / size[1]))
    max_pairs = facts.pairs.get(panel.variable) or panel.max_pairs
    if with_text:
        draw_with_text(axes, panel)
    else:
        draw_dense(axes, panel)
    _draw_axes(axes, panel, 1 if with_text else ceil(len(panel.labels) * _LABEL / width), with_text)
    bar = figure.add_axes(
        ((left + width + 0.2) / size[0], below / size[1], _BAR / size[0], height / size[1])
    )
    _draw_bar(bar, facts)
    _draw_words(figure, panel, facts, max_pairs, caption)
    return figure


def _extent(panel: Panel, with_text: bool) -> tuple[float, float]:
    """Returns width and height of all cells together, in inches."""
    rows, columns = max(len(panel.layers), 1), max(len(panel.labels), 1)
    if not with_text:
        return min(max(columns * _DENSE[0], _NARROWEST), _WIDEST), min(
            max(rows * _DENSE[1], 1.3), _WIDEST
        )
    return columns * min(max(_CELL[0], 4.4 / columns), 1.6), rows * max(_CELL[1], 1.3 / rows)


def _draw_axes(axes: Axes, panel: Panel, every: int, with_text: bool) -> None:
    """Draws axes and labels; every `every`-th column has a label."""
    labels = panel.labels if with_text else tuple(_in_one_line(label) for label in panel.labels)
    axes.set_xlim(-0.5, max(len(panel.labels), 1) - 0.5)
    axes.set_ylim(-0.5, max(len(panel.layers), 1) - 0.5)
    turned = 0 if with_text else 90
    axes.set_xticks(range(0, len(labels), every), labels[::every], fontsize=8.5, rotation=turned)
    axes.set_yticks(range(len(panel.layers)), panel.layer_labels, fontsize=8.5)
    axes.set_xlabel(panel.axis, fontsize=9)
    axes.set_ylabel("layer", fontsize=9)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_color("#cccccc")


def _draw_bar(axes: Axes, facts: ChartFacts) -> None:
    """Draws the colour legend: the tested score upward, the interval from wide to narrow across."""
    widths = [1 - (x + 0.5) / 24 for x in range(24)]
    colours = [[fade(blend((y + 0.5) / 48), w) for w in widths] for y in range(48)]
    axes.imshow(
        colours, origin="lower", extent=(0, 1, 0, 1), aspect="auto", interpolation="nearest"
    )
    axes.set_xticks([0, 1], ["1", "0"], fontsize=6.5)
    axes.set_xlabel("interval\nwidth", fontsize=7, labelpad=1)
    axes.yaxis.tick_right()
    axes.yaxis.set_label_position("right")
    axes.set_ylabel(
        "IIA (matches / change pairs)" if facts.score.counted else facts.score.name, fontsize=8.5
    )
    axes.tick_params(labelsize=7.5)
    for spine in axes.spines.values():
        spine.set_color("#cccccc")
    if facts.threshold is not None:
        axes.axhline(facts.threshold, color=ACCEPTED, linewidth=2)


def _draw_words(
    figure: Picture, panel: Panel, facts: ChartFacts, max_pairs: int, caption: str
) -> None:
    width, height = figure.get_size_inches()
    figure.text(
        0.12 / width,
        1 - 0.3 / height,
        shorten(_title(panel), int(width * 9)),
        fontsize=12.5,
        weight="bold",
    )
    about = [facts.model and "/".join(Path(facts.model).parts[-2:]), f"run {facts.run}"]
    figure.text(
        0.12 / width,
        1 - 0.53 / height,
        visible(" · ".join(a for a in about if a)),
        fontsize=7.5,
        color="#444444",
    )
    bound = [
        f"threshold {facts.threshold:g}" if facts.threshold is not None else None,
        f"at most {max_pairs} change pairs",
        facts.population and f"about {facts.population}",
    ]
    figure.text(
        0.12 / width,
        1 - 0.71 / height,
        shorten(" · ".join(b for b in bound if b), int(width * 16)),
        fontsize=7.5,
        color="#444444",
    )
    marks = [
        Patch(facecolor="none", edgecolor=ACCEPTED, linewidth=2.2, label="accepted"),
        Line2D(
            [], [], color="black", marker="$?$", markersize=6, linestyle="none", label="undecided"
        ),
        Patch(facecolor=FAILED, label="failed"),
        Patch(facecolor=WAITING, edgecolor="#cccccc", label="not decided yet"),
    ]
    figure.legend(
        handles=marks,
        loc="lower left",
        bbox_to_anchor=(0.0, (0.26 + _LINE * caption.count("\n")) / height),
        ncols=4,
        fontsize=7,
        frameon=False,
        handletextpad=0.5,
        columnspacing=1.1,
    )
    figure.text(0.12 / width, 0.12 / height, caption, fontsize=7, color="#444444", va="bottom")


def _title(panel: Panel) -> str:
    question = f"Where is “{panel.variable}”?"
    if not panel.shared:
        return question
    if len(panel.shared) == 1:
        return f"{question}  {panel.shared[0]}"
    component, position, *rest = panel.shared
    return f"{question}  {', '.join([f'{component} at {position}', *rest])}"


def _in_one_line(label: str) -> str:
    return " ".join(label.split("\n"))


def _caption(panel: Panel, facts: ChartFacts, width: float, with_text: bool) -> str:
    legend = (
        f"In a cell: {facts.score.name}, its 95 % interval (valid at the stopping time), pairs "
        f"counted. "
        if with_text
        else "So many cells that their figures are left to the report, which shows them under the "
        "pointer. "
    )
    text = legend + ("Colours fade as the interval widens: what is pale was seen on few pairs.")
    if with_text:
        text += " A mean at an early stop is biased away from the threshold; go by the interval."
    if panel.left_out:
        text += f" Not shown: {panel.left_out} hypotheses over several layers."
    return textwrap.fill(text, int(width * 16))


def _proposed_order(run: Folder) -> list[Row]:
    """Returns all rows in the order of proposal, which is also that of the job's positions."""
    rows = Rows(read_verdicts(run)).where("control", None)
    return list(rows.only(*_COLUMNS))


def _file_name(variable: str, taken: Sequence[str]) -> str:
    """Returns a name that every file system accepts: short, not reserved, and not in `taken`,
    ignoring case."""
    name = (
        re.sub(r"[^\w\-]", "_", variable)[:80].encode()[:180].decode(errors="ignore") or "variable"
    )
    name = f"{name}_" if name.upper() in _RESERVED else name
    used = {t.lower() for t in taken}
    free = (name, *(f"{name}_{i}" for i in range(len(taken), 2 * len(taken) + 1)))
    return next(n for n in free if n.lower() not in used)
