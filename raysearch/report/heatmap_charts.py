"""Draws the page's heat maps with plotly, with details on hover.

Invariants: cells, colours and marks are those of the PNGs (heatmap.py, heat_cells.py); users' text
is escaped, since plotly interprets some HTML in every text; a cell without a number still shows by
colour and on hover what it is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from raysearch.report.cell_style import interval_width, lightness, opacity, stopped_early
from raysearch.report.charts import ACCEPT, Chart, as_json, build_figure, literal
from raysearch.report.labels import VERDICT_WORDS, ScoreLabel
from raysearch.report.panels import Panel, panels
from raysearch.report.run_data import Row, RunData
from raysearch.report.run_facts import ChartFacts
from raysearch.report.unit_text import words

MAX_CELLS = 20_000
MAX_PANELS = 60
"""Maximum of cells and of heat maps on a page; the folder heatmaps/ has all."""
_WITH_NUMBERS = 14
"""Maximum of columns whose cells have room for a number."""
_FAILED, _WAITING = "#b5b5b5", "rgba(128,128,128,0.14)"
_BACKGROUNDS = {"light": (1.0, 1.0, 1.0), "dark": (0.09, 0.1, 0.12)}
"""Colours that cells fade into, as in templates/script.js."""


@dataclass(frozen=True, slots=True)
class HeatMaps:
    """The heat maps drawn, and how many were omitted."""

    drawn: tuple[Chart, ...]
    left_out: int


def heat_maps(data: RunData) -> HeatMaps:
    """Draws the heat maps of every variable, in the order of the PNGs."""
    return draw_maps(data, data.proposed, lambda panel: _heat_map(panel, data))


def draw_maps(data: RunData, rows: Sequence[Row], draw: Callable[[Panel], Chart]) -> HeatMaps:
    """Draws the panels of `rows` for every searched variable, as many as fit on a page."""
    drawn: list[Chart] = []
    cells = left_out = 0
    for variable in dict.fromkeys(row["variable"] for row in data.proposed):
        for panel in panels(variable, rows):
            cells += len(panel.layers) * len(panel.labels)
            if not panel.cells or cells > MAX_CELLS or len(drawn) == MAX_PANELS:
                left_out += bool(panel.cells)
                continue
            drawn.append(draw(panel))
    return HeatMaps(tuple(drawn), left_out)


def _heat_map(panel: Panel, data: RunData) -> Chart:
    max_pairs = data.facts.pairs.get(panel.variable) or panel.max_pairs
    height, width = len(panel.layers), len(panel.labels)
    iia, veil, other, hover = (_empty(height, width) for _ in range(4))
    marks = _Marks(numbers=width <= _WITH_NUMBERS)
    for (y, x), row in panel.cells.items():
        early = stopped_early(row, data.facts, max_pairs)
        hover[y][x] = _hover(row, early, max_pairs, data.facts.score)
        if row["verdict"] in (None, "failed") or row["iia"] is None:
            other[y][x] = 0 if row["verdict"] is None else 1
        else:
            iia[y][x], veil[y][x] = row["iia"], round(1 - opacity(interval_width(row)), 3)
        marks.add(x, y, row, early)
    figure = build_figure(
        heat_layer(z=iia, hovertext=hover, colorscale="Viridis", colorbar=_bar(data.facts)),
        heat_layer(
            z=other, hovertext=hover, colorscale=[[0, _WAITING], [1, _FAILED]], showscale=False
        ),
        heat_layer(
            z=veil,
            hoverinfo="skip",
            colorscale=_veil("255,255,255"),
            showscale=False,
            meta={"veil": True},
        ),
        marks.trace(),
    )
    figure.update_layout(shapes=marks.frames)
    note = (
        f"{panel.left_out} hypotheses over several layers are in the tables, not here."
        if panel.left_out
        else ""
    )
    return build_chart(panel, figure, note)


def build_chart(panel: Panel, figure: go.Figure, note: str = "") -> Chart:
    """Builds the chart of a panel from its cells: adds axes, labels and size."""
    height, width = len(panel.layers), len(panel.labels)
    labels = ["<br>".join(map(literal, label.split("\n"))) for label in panel.labels]
    for axis, n, names, title in (
        (figure.update_xaxes, width, labels, panel.axis),
        (figure.update_yaxes, height, panel.layer_labels, "layer"),
    ):
        axis(
            tickvals=list(range(n)),
            ticktext=names,
            title_text=title,
            range=[-0.5, n - 0.5],
            showgrid=False,
        )
    lines = max(label.count("\n") for label in panel.labels) + 1
    figure.update_layout(height=max(height * 27, 110) + 85 + 16 * lines)
    return Chart(
        " · ".join([panel.variable, *panel.shared]),
        as_json(figure),
        max(340, min(width, 60) * 74 + 160),
        note,
    )


def _empty(height: int, width: int) -> list[list[Any]]:
    return [[None] * width for _ in range(height)]


class _Marks:
    """Text in the cells: numbers where they fit, "?" undecided, "×" failed, "•" stopped early;
    accepted cells get a frame."""

    def __init__(self, numbers: bool) -> None:
        self._numbers = numbers
        self._at: list[tuple[float, float, str]] = []
        self._ink: dict[str, list[str]] = {background: [] for background in _BACKGROUNDS}
        self.frames: list[dict[str, Any]] = []

    def add(self, x: int, y: int, row: Row, early: bool) -> None:
        verdict, iia = row["verdict"], row["iia"]
        mark = {"undecided": "?", "failed": "×", None: "…"}.get(verdict, "•" if early else "")
        if iia is not None and verdict != "failed" and self._numbers:
            self._put(
                x, y - 0.04, f"<b>{iia:.2f}</b>" if verdict == "accept" else f"{iia:.2f}", row
            )
        if mark:
            self._put(
                x + (0.37 if iia is not None else 0),
                y + (0.24 if iia is not None else 0),
                mark,
                row,
            )
        if verdict == "accept":
            self.frames.append(frame(x, y, ACCEPT, 2.2))

    def trace(self) -> go.Scatter:
        """Returns the text with colours for a light page; those for a dark one are in `meta`."""
        x, y, text = zip(*self._at, strict=True) if self._at else ((), (), ())
        font = {"size": 10, "color": self._ink["light"]}
        return go.Scatter(
            x=x,
            y=y,
            text=text,
            mode="text",
            textfont=font,
            hoverinfo="skip",
            showlegend=False,
            meta={"ink": self._ink},
        )

    def _put(self, x: float, y: float, text: str, row: Row) -> None:
        self._at.append((x, y, text))
        for background, colour in _BACKGROUNDS.items():
            self._ink[background].append("#111" if lightness(_shown(row, colour)) > 0.5 else "#fff")


def _shown(row: Row, background: Sequence[float]) -> tuple[float, ...]:
    """Returns the colour of a cell after fading into the background."""
    if row["verdict"] is None:
        return tuple(background)
    if row["iia"] is None or row["verdict"] == "failed":
        return (0.71, 0.71, 0.71)
    alpha = opacity(interval_width(row))
    return tuple(
        alpha * c + (1 - alpha) * g
        for c, g in zip(_viridis()[round(row["iia"] * 100)], background, strict=True)
    )


@cache
def _viridis() -> tuple[tuple[float, ...], ...]:
    return tuple(sample_colorscale("Viridis", [i / 100 for i in range(101)], colortype="tuple"))


def _hover(row: Row, early: bool, max_pairs: int, score: ScoreLabel) -> str:
    lines = [f"<b>{literal(row['variable'])}</b>", literal(words(row["units"]))]
    if row["iia"] is not None:
        matches = "" if score.counted else " match"
        lines.append(
            f"{score.name} {row['iia']:.3f}: {row['matches']} of n = {row['n']} pairs{matches}"
        )
    if row["low"] is not None:
        lines.append(f"95 % interval {row['low']:.3f} to {row['high']:.3f}")
    lines.append(
        VERDICT_WORDS[row["verdict"]]
        + (f" early, after {row['n']} of {max_pairs} pairs" if early else "")
    )
    if row["holdout_iia"] is not None:
        lines.append(f"holdout {score.name} {row['holdout_iia']:.3f}: n = {row['holdout_n']}")
    if row["reason"]:
        lines.append(literal(row["reason"][:120]))
    return "<br>".join(lines)


def frame(x: float, y: float, colour: str, width: float) -> dict[str, Any]:
    """Returns a frame around a cell, `width` pixels thick."""
    box = {"x0": x - 0.46, "x1": x + 0.46, "y0": y - 0.44, "y1": y + 0.44}
    return {"type": "rect", **box, "line": {"color": colour, "width": width}}


def heat_layer(**look: Any) -> go.Heatmap:
    """Returns a layer of coloured cells; values are in [0, 1] unless `look` says otherwise."""
    return go.Heatmap(
        **{
            "zmin": 0,
            "zmax": 1,
            "xgap": 1.5,
            "ygap": 1.5,
            "hoverinfo": "text",
            "hoverongaps": False,
            **look,
        }
    )


def _bar(facts: ChartFacts) -> dict[str, Any]:
    threshold = facts.threshold
    ticks = sorted({0.0, 0.5, 1.0} | ({threshold} if threshold is not None else set()))
    names = [f"{t:g}" + (" τ" if t == threshold else "") for t in ticks]
    return {
        "thickness": 10,
        "outlinewidth": 0,
        "tickvals": ticks,
        "ticktext": names,
        "title": {"text": facts.score.name, "side": "top"},
    }


def _veil(colour: str) -> list[list[float | str]]:
    return [[0, f"rgba({colour},0)"], [1, f"rgba({colour},1)"]]
