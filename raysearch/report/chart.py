"""Builds plotly figures in the look of the page.

Invariants: readable without scripts, on white; `meta` names what a dark page changes
(templates/script.js); nothing can be dragged.
"""

from dataclasses import dataclass
from html import escape
from typing import Any

import plotly.graph_objects as go
import plotly.io

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
