"""Draws a page's charts with plotly: intervals of accepted hypotheses, pairs to a verdict, training
curves.

Invariants: users' text is escaped, since plotly interprets some HTML in every text; a chart that
omits something says so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import cycle
from typing import Any

import plotly.graph_objects as go
import plotly.io

from raysearch.report.labels import VERDICT_WORDS
from raysearch.report.run_data import RunData
from raysearch.report.unit_text import words
from raysearch.visible_text import visible

ACCEPT, REJECT, UNDECIDED = "#d1242f", "#57606a", "#bf8700"


@dataclass(frozen=True, slots=True)
class Chart:
    """A titled plotly chart.

    `figure`: JSON that is safe inside HTML (no "<", ">" or "/"); `width`: maximum in pixels;
    `note`: text below it.
    """

    title: str
    figure: str
    width: int
    note: str = ""


def literal(text: object) -> str:
    """Escapes `text` for a figure, since plotly interprets some HTML in every text.

    templates/script.js stops it from interpreting formulas.
    """
    return escape(visible(text), quote=False)


def build_figure(*traces: Any) -> go.Figure:
    figure = go.Figure(list(traces), go.Layout(template=go.layout.Template()))
    clear = "rgba(0,0,0,0)"
    figure.update_layout(
        paper_bgcolor=clear,
        plot_bgcolor=clear,
        margin={"l": 10, "r": 10, "t": 12, "b": 10},
        font={"family": "system-ui, sans-serif", "size": 12, "color": "#1f2328"},
        hoverlabel={"align": "left", "bgcolor": "#24292f", "font": {"color": "#fff", "size": 12}},
        dragmode=False,
    )
    for axes in (figure.update_xaxes, figure.update_yaxes):
        axes(
            automargin=True,
            zeroline=False,
            showline=False,
            ticks="",
            gridcolor="rgba(128,128,128,0.22)",
            fixedrange=True,
        )
    return figure


def as_json(figure: go.Figure) -> str:
    text: str = plotly.io.to_json(figure, validate=False)
    assert "<" not in text, "plotly no longer writes JSON that stands safely in HTML"
    return text


_CONTROL = "#8c959f"
_SYMBOLS = (
    "x-thin-open",
    "cross-thin-open",
    "asterisk-open",
    "triangle-up-open",
    "square-open",
    "star-open",
    "hexagon-open",
)
MAX_LINES = 40
"""Maximum of accepted hypotheses in the chart of intervals, and of curves in that of training."""


def intervals(data: RunData) -> Chart | None:
    """Draws the accepted hypotheses' IIA with intervals, holdout IIA and controls; None without
    any."""
    shown = data.comparisons[:MAX_LINES][::-1]
    if not shown:
        return None
    names = [literal(f"{b.row['variable']} ~ {words(b.row['units'])}") for b in shown]
    rows = [b.row for b in shown]
    high, low = ([abs(row[end] - row["iia"]) for row in rows] for end in ("high", "low"))
    bars = {
        "type": "data",
        "symmetric": False,
        "array": high,
        "arrayminus": low,
        "thickness": 2,
        "width": 4,
    }
    score = data.facts.score.name
    seen = sorted({name for b in shown for name, iia in b.iia.items() if iia is not None})
    figure = build_figure(
        _points(
            f"{score}, 95 % interval",
            [r["iia"] for r in rows],
            names,
            ACCEPT,
            "circle",
            error_x=bars,
        ),
        _points(
            f"holdout {score}",
            [r["holdout_iia"] for r in rows],
            names,
            "#2f81f7",
            "diamond-open",
            lower=0.24,
        ),
        *(
            _points(
                f"control: {name.replace('_', ' ')}",
                [b.iia.get(name) for b in shown],
                names,
                _CONTROL,
                symbol,
            )
            for name, symbol in zip(seen, cycle(_SYMBOLS))
        ),
    )
    figure.update_xaxes(range=[-0.02, 1.02], title_text=data.facts.score.description)
    figure.update_yaxes(
        tickvals=list(range(len(names))),
        ticktext=names,
        range=[-0.6, len(names) - 0.4],
        showgrid=False,
    )
    if data.facts.threshold is not None:
        figure.add_vline(x=data.facts.threshold, line={"color": ACCEPT, "width": 1, "dash": "dot"})
    legend = {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0}
    figure.update_layout(height=24 * len(names) + 170, legend=legend)
    note = (
        f"The first {MAX_LINES} of {len(data.comparisons)}."
        if len(data.comparisons) > MAX_LINES
        else ""
    )
    return Chart("Intervals, holdout and controls", as_json(figure), 1000, note)


def _points(
    name: str,
    x: Sequence[float | None],
    names: Sequence[str],
    color: str,
    symbol: str,
    lower: float = 0,
    **look: Any,
) -> go.Scatter:
    """Returns one series of points. `lower`: shift downwards, so that equal values stay visible."""
    marker = {"color": color, "symbol": symbol, "size": 9, "line": {"width": 2}}
    text = [
        f"{of}<br>{name} {v:.3f}" if v is not None else "" for of, v in zip(names, x, strict=True)
    ]
    y = [i - lower for i in range(len(x))]
    return go.Scatter(
        x=x, y=y, mode="markers", name=name, marker=marker, hovertext=text, hoverinfo="text", **look
    )


def pairs_to_verdict(data: RunData) -> Chart:
    """Draws how many hypotheses reached each verdict after how many pairs."""
    counts: Mapping[str, dict[int, int]] = {
        verdict: {} for verdict in ("reject", "undecided", "accept")
    }
    for row in data.rows:
        if row["verdict"] in counts:
            of = counts[row["verdict"]]
            of[_bin(row["n"])] = of.get(_bin(row["n"]), 0) + 1
    largest = max((b for of in counts.values() for b in of), default=0)
    names = [f"{(1 << b) // 2 + 1}–{1 << b}" if b > 1 else str(b + 1) for b in range(largest + 1)]
    look = {"reject": REJECT, "undecided": UNDECIDED, "accept": ACCEPT}
    bars = (
        go.Bar(
            x=names,
            y=[of.get(b, 0) for b in range(largest + 1)],
            name=VERDICT_WORDS[verdict],
            marker_color=look[verdict],
            hovertemplate="%{y} " + VERDICT_WORDS[verdict] + " after %{x} pairs<extra></extra>",
        )
        for verdict, of in counts.items()
        if of
    )
    figure = build_figure(*bars)
    figure.update_xaxes(
        type="category", title_text="pairs that counted, at the verdict", showgrid=False
    )
    figure.update_yaxes(title_text="hypotheses")
    figure.update_layout(
        barmode="stack", height=300, showlegend=True, legend={"orientation": "h", "y": 1.12, "x": 0}
    )
    return Chart("Pairs to a verdict", as_json(figure), 760)


def _bin(n: int) -> int:
    """Returns the smallest b with n <= 2^b."""
    return max(n - 1, 0).bit_length()


def training_curves(data: RunData) -> Chart | None:
    """Draws validation IIA over training steps for accepted hypotheses' seeds; None without
    training."""
    titles = {
        b.row["intervention"]: f"{b.row['variable']} ~ {words(b.row['units'])}"
        for b in data.comparisons
    }
    lines: dict[tuple[str, int], list[tuple[int, float]]] = {}
    for fit in data.fits:
        if (
            fit["intervention"] in titles
            and fit["status"] is None
            and fit["validation_iia"] is not None
        ):
            lines.setdefault((fit["intervention"], fit["seed"]), []).append(
                (fit["step"], fit["validation_iia"])
            )
    if not lines:
        return None
    traces = []
    for (intervention, seed), points in list(lines.items())[:MAX_LINES]:
        name = literal(f"{titles[intervention]}, seed {seed}")
        steps, values = zip(*sorted(points), strict=True)
        text = [
            f"{name}<br>step {s}: validation IIA {v:.3f}"
            for s, v in zip(steps, values, strict=True)
        ]
        traces.append(
            go.Scatter(
                x=steps, y=values, mode="lines+markers", name=name, hovertext=text, hoverinfo="text"
            )
        )
    figure = build_figure(*traces)
    figure.update_xaxes(title_text="steps of training")
    figure.update_yaxes(title_text="validation IIA", range=[-0.02, 1.02])
    figure.update_layout(
        height=360 + 18 * len(traces),
        legend={"orientation": "h", "y": -0.25, "yanchor": "top", "x": 0},
    )
    note = f"The first {MAX_LINES} of {len(lines)} courses." if len(lines) > MAX_LINES else ""
    return Chart("Training of accepted subspaces", as_json(figure), 900, note)
