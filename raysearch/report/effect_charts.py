"""Draws heat maps of the effects estimated by attribution, from which the proposer chose.

Invariants: drawn from the table `effects` alone; sites of proposed hypotheses are framed; users'
text is escaped, since plotly interprets some HTML in every text.
"""

import json

from raysearch.report.charts import UNDECIDED, Chart, build_figure, literal
from raysearch.report.heatmap_charts import HeatMaps, build_chart, draw_maps, frame, heat_layer
from raysearch.report.panels import Panel
from raysearch.report.run_data import Row, RunData
from raysearch.report.unit_text import words


def effect_maps(data: RunData) -> HeatMaps:
    """Draws the maps of every searched variable; none if the proposer requested no effects."""
    if not data.effects:
        return HeatMaps((), 0)
    tested = {(row["variable"], site) for row in data.proposed for site in _sites(row)}
    return draw_maps(data, data.effects, lambda panel: _effect_map(panel, tested))


def _effect_map(panel: Panel, tested: set[tuple[str, str]]) -> Chart:
    effects: list[list[float | None]] = [[None] * len(panel.labels) for _ in panel.layers]
    hover = [[""] * len(panel.labels) for _ in panel.layers]
    frames = []
    for (y, x), row in panel.cells.items():
        chosen = any((row["variable"], site) in tested for site in _sites(row))
        effects[y][x], hover[y][x] = row["effect"], _hover(row, chosen)
        if chosen:
            frames.append(frame(x, y, UNDECIDED, 1.8))
    bar = {"thickness": 10, "outlinewidth": 0, "title": {"text": "effect", "side": "top"}}
    figure = build_figure(
        heat_layer(z=effects, hovertext=hover, colorscale="Viridis", colorbar=bar)
    )
    figure.update_layout(shapes=frames)
    return build_chart(panel, figure)


def _hover(row: Row, chosen: bool) -> str:
    return "<br>".join(
        [
            f"<b>{literal(row['variable'])}</b>",
            literal(words(row["units"])),
            "cannot be interchanged on some fit pair"
            if row["effect"] is None
            else f"effect {row['effect']:.3f}, the mean of {row['pairs']} fit pairs",
            "asked about" if chosen else "not asked about",
        ]
    )


def _sites(row: Row) -> list[str]:
    """Returns the sites of a row's units, including source sites, without their subspaces."""
    return [
        json.dumps({**unit, "subspace": None}, sort_keys=True) for unit in json.loads(row["units"])
    ]
