"""Heat maps of what attribution foresaw and the proposer chose by: layers upward, as in those of
what was measured then.

Invariants: drawn from the table `effects` alone; the sites that were asked about are framed; text
of users is escaped, for plotly reads a little HTML in every text.
"""

import json

from raysearch.report.charts import UNDECIDED, Chart, figure_of, literal
from raysearch.report.heatmap_charts import HeatMaps, chart_of, frame, heat_layer, maps_of
from raysearch.report.panels import Panel
from raysearch.report.run_data import Row, RunData
from raysearch.report.unit_text import words


def effect_maps(account: RunData) -> HeatMaps:
    """Of every variable that is searched; none where the proposer asked for no effects."""
    if not account.effects:
        return HeatMaps((), 0)
    asked = {(row["variable"], site) for row in account.proposed for site in _sites(row)}
    return maps_of(account, account.effects, lambda panel: _effect_map(panel, asked))


def _effect_map(panel: Panel, asked: set[tuple[str, str]]) -> Chart:
    effects: list[list[float | None]] = [[None] * len(panel.labels) for _ in panel.layers]
    hover = [[""] * len(panel.labels) for _ in panel.layers]
    frames = []
    for (y, x), row in panel.cells.items():
        chosen = any((row["variable"], site) in asked for site in _sites(row))
        effects[y][x], hover[y][x] = row["effect"], _hover(row, chosen)
        if chosen:
            frames.append(frame(x, y, UNDECIDED, 1.8))
    bar = {"thickness": 10, "outlinewidth": 0, "title": {"text": "effect", "side": "top"}}
    figure = figure_of(heat_layer(z=effects, hovertext=hover, colorscale="Viridis", colorbar=bar))
    figure.update_layout(shapes=frames)
    return chart_of(panel, figure)


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
    """The sites of its units, source sites with them, whatever subspace is taken there."""
    return [
        json.dumps({**unit, "subspace": None}, sort_keys=True) for unit in json.loads(row["units"])
    ]
