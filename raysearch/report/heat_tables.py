"""Arranges the page's heat maps as tables: a row for each layer, a column for each position, head.

Invariants: a cell says by its text, not by colour alone, what it is; texts are plain, the template
escapes them; of more hypotheses than a page can show, each layer and position shows its best.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from markupsafe import escape

from raysearch.report.best_panels import best_panel
from raysearch.report.cell_style import LEVELS, interval_width, opacity, stopped_early
from raysearch.report.labels import VERDICT_WORDS, ScoreLabel
from raysearch.report.panels import Panel, panels
from raysearch.report.rows import Row, Rows
from raysearch.report.run_data import RunData
from raysearch.report.unit_text import words
from raysearch.visible_text import shorten

MAX_CELLS = 12_000
MAX_PANELS = 60
"""Maximum of cells and of heat maps on a page."""
MAX_TIPS = 2_000_000
"""Maximum of bytes of all that the pointer is shown, of each kind of map."""
_LONGEST = 200
_MARKS = {"undecided": "?", "failed": "×", None: "…"}


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell. `look`: CSS classes; `details`: lines for the pointer; `status`: words for a screen
    reader, where the text alone does not say the verdict."""

    text: str
    look: str
    details: str
    status: str = ""


@dataclass(frozen=True, slots=True)
class HeatMap:
    """A titled table. `examples`: a token of an example pair for each column, "" if unknown;
    `rows`: (layer, cells), the highest layer first; None is a site without a hypothesis."""

    title: str
    axis: str
    labels: tuple[str, ...]
    examples: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell | None, ...]], ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class HeatMaps:
    """The heat maps shown, how many were omitted, and whether each cell shows the best of several
    hypotheses."""

    drawn: tuple[HeatMap, ...]
    left_out: int
    best: bool = False


def heat_maps(data: RunData) -> HeatMaps:
    """Arranges the heat maps of every variable, in the order of the PNGs."""

    def cell(row: Row) -> Cell:
        return _cell(row, data)

    return _arrange(data, data.proposed, cell)


def effect_maps(data: RunData) -> HeatMaps:
    """Arranges the effects estimated by attribution; none if the proposer requested no effects."""
    if not data.effects:
        return HeatMaps((), 0)
    proposed = data.proposed.only("variable", "units")
    tested = {(row["variable"], site) for row in proposed for site in _sites(row)}
    largest = max(filter(None, data.effects.values("effect")), default=0.0)

    def cell(row: Row) -> Cell:
        chosen = any((row["variable"], site) in tested for site in _sites(row))
        asked = "asked about" if chosen else "not asked about"
        look = "chosen " if chosen else ""
        effect = row["effect"]
        if effect is None:
            why = "cannot be interchanged on some fit pair"
            return Cell("×", look + "none", _lines(row, why, asked), asked)
        level = round(LEVELS * max(effect, 0.0) / max(largest, 1e-9))
        mean = f"effect {effect:.3f}, the mean of {row['pairs']} fit pairs"
        return Cell(f"{effect:.2f}", f"{look}h{level}", _lines(row, mean, asked), asked)

    return _arrange(data, data.effects, cell)


def _arrange(data: RunData, rows: Rows, cell: Callable[[Row], Cell]) -> HeatMaps:
    """Arranges the panels of `rows` for every searched variable, as many as fit on a page."""
    variables = data.proposed.values("variable")
    found: list[Panel] = []
    if len(rows) <= MAX_CELLS:
        found = [p for v in variables for p in panels(v, list(rows.where("variable", v)))]
    best = len(rows) > MAX_CELLS or sum(p.area for p in found) > MAX_CELLS
    if best:
        most = MAX_CELLS // min(len(variables), MAX_PANELS)
        found = [best_panel(v, rows.where("variable", v), most) for v in variables]
    drawn: list[HeatMap] = []
    cells, tips, left_out = 0, MAX_TIPS, 0
    for panel in (p for p in found if p.cells):
        cells += panel.area
        if cells > MAX_CELLS or len(drawn) == MAX_PANELS:
            left_out += 1
        else:
            made = {at: cell(row) for at, row in panel.cells.items()}
            size = sum(len(escape(c.details).encode()) for c in made.values())
            if size > tips:
                made = {at: replace(c, details="") for at, c in made.items()}
            tips -= min(size, tips)
            drawn.append(_heat_map(panel, data.tokens, made))
    return HeatMaps(tuple(drawn), left_out, best)


def _heat_map(
    panel: Panel, tokens: Mapping[str, str], made: Mapping[tuple[int, int], Cell]
) -> HeatMap:
    columns = range(len(panel.labels))
    rows = [
        (label, tuple(made.get((y, x)) for x in columns))
        for y, label in enumerate(panel.layer_labels)
    ]
    position = {x: row["position"] for (_, x), row in panel.cells.items()}
    notes = [
        (panel.left_out, "hypotheses over several layers are in the tables, not here."),
        (panel.columns_left_out, "more positions are left out, whose best cells are no higher."),
    ]
    return HeatMap(
        " · ".join([panel.variable, *panel.shared]),
        panel.axis,
        panel.labels,
        tuple(tokens.get(position.get(x) or "", "") for x in columns)
        if panel.axis == "position"
        else (),
        tuple(reversed(rows)),
        " ".join(f"{n} {what}" for n, what in notes if n),
    )


def _cell(row: Row, data: RunData) -> Cell:
    verdict, iia = row["verdict"], row["iia"]
    mark, status = _MARKS.get(verdict, ""), VERDICT_WORDS[verdict]
    details = _details(row, data)
    if iia is None or verdict in ("failed", None):
        return Cell(mark or "–", "none", details, status)
    level = round(LEVELS * iia * opacity(interval_width(row)))
    look = f"accept h{level}" if verdict == "accept" else f"h{level}"
    return Cell(f"{iia:.2f}{mark}", look, details, "" if verdict == "reject" else status)


def _details(row: Row, data: RunData) -> str:
    score: ScoreLabel = data.facts.score
    most = data.facts.pairs.get(row["variable"]) or row["n"]
    lines = []
    if row["iia"] is not None:
        matches = "" if score.counted else " match"
        lines.append(
            f"{score.name} {row['iia']:.3f}: {row['matches']} of n = {row['n']} pairs{matches}"
        )
    if row["low"] is not None:
        lines.append(f"95 % interval {row['low']:.3f} to {row['high']:.3f}")
    early = stopped_early(row, data.facts, most)
    lines.append(
        VERDICT_WORDS[row["verdict"]]
        + (f" early, after {row['n']} of {most} pairs" if early else "")
    )
    if row["holdout_iia"] is not None:
        lines.append(f"holdout {score.name} {row['holdout_iia']:.3f}: n = {row['holdout_n']}")
        if row["holdout_low"] is not None:
            lines[-1] += f", 95 % interval {row['holdout_low']:.3f} to {row['holdout_high']:.3f}"
    if row["reason"]:
        lines.append(row["reason"][:120])
    return _lines(row, *lines)


def _lines(row: Row, *lines: str) -> str:
    many = [f"the best of {row['of']} hypotheses here"] if row.get("of", 1) > 1 else []
    named = shorten(f"{row['variable']} ~ {words(row['units'])}", _LONGEST)
    return "\n".join([named, *lines, *many])


def _sites(row: Row) -> list[str]:
    """Returns the sites of a row's units, including source sites, without their subspaces."""
    return [
        json.dumps({**unit, "subspace": None}, sort_keys=True) for unit in json.loads(row["units"])
    ]
