"""Heat maps of a run: one PNG for each variable, layers upward, positions across, colour = IIA.

Invariants: a cell shows its IIA and its interval, never the colour alone; what stopped early is marked, for a mean at a
stopping time is biased; drawn without pyplot, so that no global figure or backend of the user's is touched.
"""

import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from raysearch.errors import StoreError
from raysearch.report.chart_facts import ChartFacts, chart_facts
from raysearch.report.results import HYPOTHESES, read_table, results

Row = Mapping[str, Any]
_COLUMN_KEYS = ("component", "head", "featurizer", "features", "position")
_COLOURS = colormaps["viridis"]
_ACCEPT, _FAILED, _WAITING = "#e8112d", "#b5b5b5", "#f3f3f3"
_CELL = 1.0, 0.40
"""Width and height of a cell in inches, at least: room for two lines of text."""
_NARROWEST = 6.4
"""Inches that title and legend need."""


_CLAIMS = {
    "these_pairs": "about these pairs alone, not others like them",
    "sampler": "about the pairs that the problem draws",
}


@dataclass(frozen=True, slots=True)
class _Grid:
    """Cells by (layer, column); `left_out`: hypotheses that lie in no single layer."""

    variable: str
    layers: tuple[int, ...]
    columns: tuple[tuple[Any, ...], ...]
    cells: Mapping[tuple[int, int], Row]
    left_out: int


def heatmaps(run: str | Path, out_dir: str | Path) -> list[Path]:
    """Draws one PNG for each variable of the run into `out_dir`; their paths, in order of the variables' first appearance.

    Raises: StoreError if the run has no hypotheses yet, a part cannot be read, or a picture cannot be written.
    """
    run, out = Path(run), Path(out_dir)
    rows = _in_order_proposed(run)
    facts = chart_facts(run)
    paths: list[Path] = []
    for variable in dict.fromkeys(r["variable"] for r in rows):
        path = out / f"{_file_name(variable, paths)}.png"
        figure = _draw(_grid(variable, rows), facts)
        try:
            out.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, dpi=130)
        except OSError as e:
            raise StoreError(
                f"{path}: cannot be written ({e.strerror or e}); the verdicts are safe, make room for pictures"
            ) from e
        paths.append(path)
    return paths


def _draw(grid: _Grid, facts: ChartFacts) -> Figure:
    rows, columns = max(len(grid.layers), 1), max(len(grid.columns), 1)
    labels = _labels(grid.columns)
    height = rows * max(_CELL[1], 1.3 / rows)
    width = columns * min(max(_CELL[0], 4.4 / columns), 1.6)
    above, left, right = 0.95, 0.75, 1.25
    below = 1.15 + 0.17 * max((label.count("\n") + 1 for label in labels), default=1)
    size = max(width + left + right, _NARROWEST), height + above + below
    figure = Figure(figsize=size)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((left / size[0], below / size[1], width / size[0], height / size[1]))
    reach = facts.pairs.get(grid.variable) or max((r["n"] or 0 for r in grid.cells.values()), default=0)
    for (y, x), row in grid.cells.items():
        _draw_cell(axes, x, y, row, early=_stopped_early(row, facts, reach))
    _draw_axes(axes, grid, labels)
    bar = figure.add_axes(((left + width + 0.2) / size[0], below / size[1], 0.16 / size[0], height / size[1]))
    _draw_bar(figure, bar, facts.threshold)
    _draw_words(figure, grid, facts, reach)
    return figure


def _stopped_early(row: Row, facts: ChartFacts, reach: int) -> bool:
    """A verdict before the last pair; what failed did not stop, it broke."""
    return not facts.fixed and row["verdict"] in ("accept", "reject") and row["n"] < reach


def _draw_cell(axes: Axes, x: int, y: int, row: Row, early: bool) -> None:
    iia, verdict = row["iia"], row["verdict"]
    colour = _WAITING if verdict is None else _FAILED if verdict == "failed" or iia is None else _COLOURS(iia)
    axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=colour, edgecolor="white", linewidth=0.8))
    ink = "black" if verdict == "failed" or iia is None or iia > 0.6 else "white"
    if verdict is None:
        axes.text(x, y, "…", ha="center", va="center", fontsize=8, color="#777777")
        return
    if iia is None:
        axes.text(x, y, "failed" if verdict == "failed" else "no pairs", ha="center", va="center", fontsize=7.5)
        return
    weight = "bold" if verdict == "accept" else "normal"
    axes.text(x, y + 0.18, f"{iia:.2f}", ha="center", va="center", fontsize=8.5, color=ink, weight=weight)
    interval = f"{_short(row['low'])}–{_short(row['high'])}  n={row['n']}"
    axes.text(x, y - 0.24, interval, ha="center", va="center", fontsize=6.3, color=ink)
    if verdict == "accept":
        frame = Rectangle((x - 0.46, y - 0.43), 0.92, 0.86, fill=False, edgecolor=_ACCEPT, linewidth=2.4, zorder=3)
        axes.add_patch(frame)
    if verdict == "undecided":
        axes.text(x - 0.38, y + 0.2, "?", ha="center", va="center", fontsize=9, color=ink, weight="bold")
    if verdict == "failed":
        axes.text(x - 0.36, y + 0.2, "×", ha="center", va="center", fontsize=9, color=ink, weight="bold")
    if early:
        axes.plot([x + 0.36], [y + 0.2], marker="o", markersize=3.4, color=ink, linestyle="none")


def _draw_axes(axes: Axes, grid: _Grid, labels: Sequence[str]) -> None:
    axes.set_xlim(-0.5, max(len(grid.columns), 1) - 0.5)
    axes.set_ylim(-0.5, max(len(grid.layers), 1) - 0.5)
    axes.set_xticks(range(len(grid.columns)), labels, fontsize=8.5)
    axes.set_yticks(range(len(grid.layers)), [str(layer) for layer in grid.layers], fontsize=8.5)
    axes.set_xlabel("position", fontsize=9)
    axes.set_ylabel("layer", fontsize=9)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_color("#cccccc")


def _draw_bar(figure: Figure, axes: Axes, threshold: float | None) -> None:
    bar = figure.colorbar(ScalarMappable(Normalize(0, 1), _COLOURS), cax=axes)
    bar.set_label("IIA (matches / change pairs)", fontsize=8.5)
    axes.tick_params(labelsize=7.5)
    if threshold is not None:
        axes.axhline(threshold, color=_ACCEPT, linewidth=2)


def _draw_words(figure: Figure, grid: _Grid, facts: ChartFacts, reach: int) -> None:
    width, height = figure.get_size_inches()
    figure.text(0.12 / width, 1 - 0.3 / height, f"Where is “{grid.variable}”?", fontsize=12.5, weight="bold")
    about = [facts.model and "/".join(Path(facts.model).parts[-2:]), f"run {facts.run}"]
    figure.text(0.12 / width, 1 - 0.53 / height, " · ".join(a for a in about if a), fontsize=7.5, color="#444444")
    bound = [
        f"threshold {facts.threshold:g}" if facts.threshold is not None else None,
        f"at most {reach} change pairs",
        _CLAIMS.get(facts.claim or ""),
    ]
    figure.text(0.12 / width, 1 - 0.71 / height, " · ".join(b for b in bound if b), fontsize=7.5, color="#444444")
    marks = [
        Patch(facecolor="none", edgecolor=_ACCEPT, linewidth=2.2, label="accepted"),
        Line2D([], [], color="black", marker="$?$", markersize=6, linestyle="none", label="undecided"),
        Line2D([], [], color="black", marker="o", markersize=4, linestyle="none", label="stopped early"),
        Patch(facecolor=_FAILED, label="failed"),
        Patch(facecolor=_WAITING, edgecolor="#cccccc", label="not decided yet"),
    ]
    figure.legend(
        handles=marks,
        loc="lower left",
        bbox_to_anchor=(0.0, 0.42 / height),
        ncols=5,
        fontsize=7,
        frameon=False,
        handletextpad=0.5,
        columnspacing=1.1,
    )
    figure.text(0.12 / width, 0.12 / height, _caption(grid, width), fontsize=7, color="#444444", va="bottom")


def _caption(grid: _Grid, width: float) -> str:
    text = (
        "In a cell: IIA, its 95 % interval (valid at the stopping time), pairs counted. A cell with a dot stopped early: "
        "its mean is biased away from the threshold; go by the interval."
    )
    if grid.left_out:
        text += f" Not shown: {grid.left_out} hypotheses over several layers."
    return textwrap.fill(text, int(width * 16))


def _in_order_proposed(run: Path) -> list[Row]:
    """All rows, in the order of the table of hypotheses, which is the order in which positions were named."""
    place = {h: i for i, h in enumerate(read_table(run, "hypotheses", HYPOTHESES)["hypothesis"].to_pylist())}
    rows: list[Row] = results(run).to_pylist()
    return sorted(rows, key=lambda r: place[r["hypothesis"]])


def _grid(variable: str, rows: Sequence[Row]) -> _Grid:
    ours = [r for r in rows if r["variable"] == variable]
    placed = [r for r in ours if r["layer"] is not None and r["position"] is not None]
    columns = tuple(dict.fromkeys(tuple(r[k] for k in _COLUMN_KEYS) for r in placed))
    layers = tuple(sorted({r["layer"] for r in placed}))
    at = {column: x for x, column in enumerate(columns)}, {layer: y for y, layer in enumerate(layers)}
    cells = {(at[1][r["layer"]], at[0][tuple(r[k] for k in _COLUMN_KEYS)]): r for r in placed}
    return _Grid(variable, layers, columns, cells, len(ours) - len(placed))


def _labels(columns: Sequence[tuple[Any, ...]]) -> list[str]:
    """The position of each column, and below it whatever else tells the columns apart."""
    varies = [len({c[i] for c in columns}) > 1 for i in range(len(_COLUMN_KEYS) - 1)]
    return [
        "\n".join([textwrap.fill(str(c[-1]), 14), *(_part(i, c[i]) for i, shown in enumerate(varies) if shown)])
        for c in columns
    ]


def _part(key: int, value: Any) -> str:
    name = _COLUMN_KEYS[key]
    if name == "features":
        return "all" if value is None else f"k={value}"
    return f"head {value}" if name == "head" else str(value)


def _short(share: float | None) -> str:
    """.87 for 0.87: a cell is narrow."""
    return "?" if share is None else f"{share:.2f}".removeprefix("0")


def _file_name(variable: str, taken: Sequence[Path]) -> str:
    name = re.sub(r"[^\w\-]", "_", variable)[:80] or "variable"
    return name if all(p.stem != name for p in taken) else f"{name}_{len(taken)}"
