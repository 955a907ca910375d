"""Heat maps of a page, with what a pointer finds in a cell.

Invariants: the cells, colours and marks of the pictures (heatmap.py, cells.py); text of users is
escaped, for plotly reads a little HTML in every text; a cell without a number still says in its
colour and by the pointer what it is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from raysearch.report.cell_style import interval_width, lightness, stopped_early, strength
from raysearch.report.charts import ACCEPT, Chart, as_json, figure_of, literal
from raysearch.report.labels import SAYS, ScoreLabel
from raysearch.report.panels import Panel, panels
from raysearch.report.run_data import Row, RunData
from raysearch.report.run_facts import ChartFacts
from raysearch.report.unit_text import words

MOST_CELLS = 20_000
MOST_PANELS = 60
"""Of a page; the pictures in heatmaps/ have all."""
_WITH_NUMBERS = 14
"""Columns of a heat map whose cells have room for a number."""
_FAILED, _WAITING = "#b5b5b5", "rgba(128,128,128,0.14)"
_GROUNDS = {"light": (1.0, 1.0, 1.0), "dark": (0.09, 0.1, 0.12)}
"""What colours fade into; as in templates/script.js."""


@dataclass(frozen=True, slots=True)
class HeatMaps:
    """Those drawn, and how many were not."""

    drawn: tuple[Chart, ...]
    left_out: int


def heat_maps(account: RunData) -> HeatMaps:
    """Of every variable, in the order of the pictures."""
    return maps_of(account, account.proposed, lambda panel: _heat_map(panel, account))


def maps_of(account: RunData, rows: Sequence[Row], draw: Callable[[Panel], Chart]) -> HeatMaps:
    """Of every variable that is searched, its panels of `rows`, as many as a page takes."""
    drawn: list[Chart] = []
    cells = left_out = 0
    for variable in dict.fromkeys(row["variable"] for row in account.proposed):
        for panel in panels(variable, rows):
            cells += len(panel.layers) * len(panel.labels)
            if not panel.cells or cells > MOST_CELLS or len(drawn) == MOST_PANELS:
                left_out += bool(panel.cells)
                continue
            drawn.append(draw(panel))
    return HeatMaps(tuple(drawn), left_out)


def _heat_map(panel: Panel, account: RunData) -> Chart:
    reach = account.facts.pairs.get(panel.variable) or panel.reach
    height, width = len(panel.layers), len(panel.labels)
    iia, veil, other, hover = (_empty(height, width) for _ in range(4))
    marks = _Marks(numbers=width <= _WITH_NUMBERS)
    for (y, x), row in panel.cells.items():
        early = stopped_early(row, account.facts, reach)
        hover[y][x] = _hover(row, early, reach, account.facts.judged)
        if row["verdict"] in (None, "failed") or row["iia"] is None:
            other[y][x] = 0 if row["verdict"] is None else 1
        else:
            iia[y][x], veil[y][x] = row["iia"], round(1 - strength(interval_width(row)), 3)
        marks.add(x, y, row, early)
    figure = figure_of(
        heat_layer(z=iia, hovertext=hover, colorscale="Viridis", colorbar=_bar(account.facts)),
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
    return chart_of(panel, figure, note)


def chart_of(panel: Panel, figure: go.Figure, note: str = "") -> Chart:
    """The figure, whose cells are those of the panel, with axes and in its size."""
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
        " · ".join([panel.variable, *panel.of]),
        as_json(figure),
        max(340, min(width, 60) * 74 + 160),
        note,
    )


def _empty(height: int, width: int) -> list[list[Any]]:
    return [[None] * width for _ in range(height)]


class _Marks:
    """What stands in the cells: numbers where there is room, "?" undecided, "×" failed, "•" stopped
    early, a frame for accepted ones."""

    def __init__(self, numbers: bool) -> None:
        self._numbers = numbers
        self._at: list[tuple[float, float, str]] = []
        self._ink: dict[str, list[str]] = {ground: [] for ground in _GROUNDS}
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
        """All of it, with the ink for a light page; that for a dark one in `meta`."""
        x, y, text = zip(*self._at, strict=True) if self._at else ((), (), ())
        font = {"size": 10, "color": self._ink["light"]}
        return go.Scatter(
            x=x, y=y, text=text, mode="text", textfont=font, hoverinfo="skip", showlegend=False, meta={"ink": self._ink}
        )  # fmt: skip

    def _put(self, x: float, y: float, text: str, row: Row) -> None:
        self._at.append((x, y, text))
        for ground, colour in _GROUNDS.items():
            self._ink[ground].append("#111" if lightness(_shown(row, colour)) > 0.5 else "#fff")


def _shown(row: Row, ground: Sequence[float]) -> tuple[float, ...]:
    """The colour of a cell, as it is seen."""
    if row["verdict"] is None:
        return tuple(ground)
    if row["iia"] is None or row["verdict"] == "failed":
        return (0.71, 0.71, 0.71)
    kept = strength(interval_width(row))
    return tuple(
        kept * c + (1 - kept) * g
        for c, g in zip(_viridis()[round(row["iia"] * 100)], ground, strict=True)
    )


@cache
def _viridis() -> tuple[tuple[float, ...], ...]:
    return tuple(sample_colorscale("Viridis", [i / 100 for i in range(101)], colortype="tuple"))


def _hover(row: Row, early: bool, reach: int, judged: ScoreLabel) -> str:
    lines = [f"<b>{literal(row['variable'])}</b>", literal(words(row["units"]))]
    if row["iia"] is not None:
        matches = "" if judged.counted else " match"
        lines.append(
            f"{judged.name} {row['iia']:.3f}: {row['matches']} of n = {row['n']} pairs{matches}"
        )
    if row["low"] is not None:
        lines.append(f"95 % interval {row['low']:.3f} to {row['high']:.3f}")
    lines.append(
        SAYS[row["verdict"]] + (f" early, after {row['n']} of {reach} pairs" if early else "")
    )
    if row["holdout_iia"] is not None:
        lines.append(f"holdout {judged.name} {row['holdout_iia']:.3f}: n = {row['holdout_n']}")
    if row["reason"]:
        lines.append(literal(row["reason"][:120]))
    return "<br>".join(lines)


def frame(x: float, y: float, colour: str, width: float) -> dict[str, Any]:
    """A frame, `width` pixels strong, around a cell."""
    box = {"x0": x - 0.46, "x1": x + 0.46, "y0": y - 0.44, "y1": y + 0.44}
    return {"type": "rect", **box, "line": {"color": colour, "width": width}}


def heat_layer(**look: Any) -> go.Heatmap:
    """Cells with a colour each, of numbers in [0, 1] unless said."""
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
        "title": {"text": facts.judged.name, "side": "top"},
    }


def _veil(colour: str) -> list[list[float | str]]:
    return [[0, f"rgba({colour},0)"], [1, f"rgba({colour},1)"]]
