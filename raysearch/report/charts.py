"""Charts of a page, as figures of plotly in the page's own look: intervals of what was accepted,
pairs to a verdict, courses of training.

Invariants: text of users is escaped, for plotly reads a little HTML in every text; a chart that
leaves something out says so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import cycle
from typing import Any

import plotly.graph_objects as go
import plotly.io

from raysearch.report.labels import SAYS
from raysearch.report.run_data import RunData
from raysearch.report.unit_text import words
from raysearch.visible_text import visible

ACCEPT, REJECT, UNDECIDED = "#d1242f", "#57606a", "#bf8700"


@dataclass(frozen=True, slots=True)
class Chart:
    """`figure`: JSON that stands safely in HTML (no "<", ">" or "/"). `width`: pixels at most;
    `note`: said below it."""

    title: str
    figure: str
    width: int
    note: str = ""


def literal(text: object) -> str:
    """`text` for a figure, as it is: plotly reads a little HTML in every text. (Formulas it is told
    not to read: templates/script.js.)"""
    return escape(visible(text), quote=False)


def figure_of(*traces: Any) -> go.Figure:
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
MOST_LINES = 40
"""Accepted hypotheses in one chart of intervals; courses in one chart of fits."""


def intervals(account: RunData) -> Chart | None:
    """The accepted hypotheses, each with its interval, holdout IIA and controls; None where there
    are none."""
    shown = account.beside[:MOST_LINES][::-1]
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
    judged = account.facts.judged.name
    seen = sorted({name for b in shown for name, iia in b.iia.items() if iia is not None})
    figure = figure_of(
        _points(
            f"{judged}, 95 % interval",
            [r["iia"] for r in rows],
            names,
            ACCEPT,
            "circle",
            error_x=bars,
        ),
        _points(
            f"holdout {judged}",
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
    figure.update_xaxes(range=[-0.02, 1.02], title_text=account.facts.judged.of)
    figure.update_yaxes(
        tickvals=list(range(len(names))),
        ticktext=names,
        range=[-0.6, len(names) - 0.4],
        showgrid=False,
    )
    if account.facts.threshold is not None:
        figure.add_vline(
            x=account.facts.threshold, line={"color": ACCEPT, "width": 1, "dash": "dot"}
        )
    legend = {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0}
    figure.update_layout(height=24 * len(names) + 170, legend=legend)
    note = (
        f"The first {MOST_LINES} of {len(account.beside)}."
        if len(account.beside) > MOST_LINES
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
    """`lower`: than the others of its row, so that equal values are both seen."""
    marker = {"color": color, "symbol": symbol, "size": 9, "line": {"width": 2}}
    text = [
        f"{of}<br>{name} {v:.3f}" if v is not None else "" for of, v in zip(names, x, strict=True)
    ]
    y = [i - lower for i in range(len(x))]
    return go.Scatter(
        x=x, y=y, mode="markers", name=name, marker=marker, hovertext=text, hoverinfo="text", **look
    )


def stops(account: RunData) -> Chart:
    """How many hypotheses came to each verdict after how many pairs."""
    counts: Mapping[str, dict[int, int]] = {
        verdict: {} for verdict in ("reject", "undecided", "accept")
    }
    for row in account.rows:
        if row["verdict"] in counts:
            of = counts[row["verdict"]]
            of[_bin(row["n"])] = of.get(_bin(row["n"]), 0) + 1
    most = max((b for of in counts.values() for b in of), default=0)
    names = [f"{(1 << b) // 2 + 1}–{1 << b}" if b > 1 else str(b + 1) for b in range(most + 1)]
    look = {"reject": REJECT, "undecided": UNDECIDED, "accept": ACCEPT}
    bars = (
        go.Bar(
            x=names, y=[of.get(b, 0) for b in range(most + 1)], name=SAYS[verdict], marker_color=look[verdict],
            hovertemplate="%{y} " + SAYS[verdict] + " after %{x} pairs<extra></extra>",
        )
        for verdict, of in counts.items()
        if of
    )  # fmt: skip
    figure = figure_of(*bars)
    figure.update_xaxes(
        type="category", title_text="pairs that counted, at the verdict", showgrid=False
    )
    figure.update_yaxes(title_text="hypotheses")
    figure.update_layout(
        barmode="stack", height=300, showlegend=True, legend={"orientation": "h", "y": 1.12, "x": 0}
    )
    return Chart("Pairs to a verdict", as_json(figure), 760)


def _bin(n: int) -> int:
    """The b for which n is at most 2^b, and more than half of that."""
    return max(n - 1, 0).bit_length()


def courses(account: RunData) -> Chart | None:
    """Validation IIA over the steps of training, for the seeds of what was accepted; None where
    nothing was trained."""
    titles = {
        b.row["intervention"]: f"{b.row['variable']} ~ {words(b.row['units'])}"
        for b in account.beside
    }
    lines: dict[tuple[str, int], list[tuple[int, float]]] = {}
    for fit in account.fits:
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
    for (intervention, seed), points in list(lines.items())[:MOST_LINES]:
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
    figure = figure_of(*traces)
    figure.update_xaxes(title_text="steps of training")
    figure.update_yaxes(title_text="validation IIA", range=[-0.02, 1.02])
    figure.update_layout(
        height=360 + 18 * len(traces),
        legend={"orientation": "h", "y": -0.25, "yanchor": "top", "x": 0},
    )
    note = f"The first {MOST_LINES} of {len(lines)} courses." if len(lines) > MOST_LINES else ""
    return Chart("Training of accepted subspaces", as_json(figure), 900, note)
