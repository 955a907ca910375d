"""Arranges the page's heat maps as tables: a row for each layer, a column for each position or head.

Invariants: a cell says by its text, not by colour alone, what it is; texts are plain, the template
escapes them; of more hypotheses than a page can show, each layer and position shows its best.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from raysearch.report.cell_style import LEVELS, interval_width, opacity, stopped_early
from raysearch.report.labels import VERDICT_WORDS, ScoreLabel
from raysearch.report.panels import Panel, panels
from raysearch.report.run_data import Row, RunData
from raysearch.report.unit_text import words

MAX_CELLS = 12_000
MAX_PANELS = 60
"""Maximum of cells and of heat maps on a page."""
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
    """A titled table. `examples`: a token of an example pair for each column, "" if unknown; `rows`:
    (layer, cells), the highest layer first; None is a site without a hypothesis."""

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
    tested = {(row["variable"], site) for row in data.proposed for site in _sites(row)}
    largest = max((row["effect"] or 0.0 for row in data.effects), default=0.0)

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


def _arrange(data: RunData, rows: Sequence[Row], cell: Callable[[Row], Cell]) -> HeatMaps:
    """Arranges the panels of `rows` for every searched variable, as many as fit on a page."""
    variables = dict.fromkeys(row["variable"] for row in data.proposed)
    best = len(rows) > MAX_CELLS
    if best:
        rows = _best(rows)
    drawn: list[HeatMap] = []
    cells = left_out = 0
    for panel in (p for variable in variables for p in panels(variable, rows) if p.cells):
        cells += len(panel.cells)
        if cells > MAX_CELLS or len(drawn) == MAX_PANELS:
            left_out += 1
        else:
            drawn.append(_heat_map(panel, data.tokens, cell))
    return HeatMaps(tuple(drawn), left_out, best)


def _best(rows: Sequence[Row]) -> list[Row]:
    """Returns the best row at each variable, layer and position: accepted, then the highest."""
    found: dict[tuple[object, ...], Row] = {}
    counts = Counter[tuple[object, ...]]()
    for row in rows:
        key = row["variable"], row["layer"], row["position"]
        counts[key] += 1
        if key not in found or _rank(row) > _rank(found[key]):
            found[key] = row
    return [{**row, "of": counts[key]} for key, row in found.items()]


def _rank(row: Row) -> tuple[bool, float]:
    value = row.get("iia", row.get("effect"))
    return row.get("verdict") == "accept", -1.0 if value is None else value


def _heat_map(panel: Panel, tokens: Mapping[str, str], cell: Callable[[Row], Cell]) -> HeatMap:
    made = {at: cell(row) for at, row in panel.cells.items()}
    columns = range(len(panel.labels))
    rows = [
        (label, tuple(made.get((y, x)) for x in columns))
        for y, label in enumerate(panel.layer_labels)
    ]
    position = {x: row["position"] for (_, x), row in panel.cells.items()}
    note = f"{panel.left_out} hypotheses over several layers are in the tables, not here."
    return HeatMap(
        " · ".join([panel.variable, *panel.shared]),
        panel.axis,
        panel.labels,
        tuple(tokens.get(position.get(x) or "", "") for x in columns)
        if panel.axis == "position"
        else (),
        tuple(reversed(rows)),
        note if panel.left_out else "",
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
    if row["reason"]:
        lines.append(row["reason"][:120])
    return _lines(row, *lines)


def _lines(row: Row, *lines: str) -> str:
    many = [f"the best of {row['of']} hypotheses here"] if row.get("of", 1) > 1 else []
    return "\n".join([f"{row['variable']} ~ {words(row['units'])}", *lines, *many])


def _sites(row: Row) -> list[str]:
    """Returns the sites of a row's units, including source sites, without their subspaces."""
    return [
        json.dumps({**unit, "subspace": None}, sort_keys=True) for unit in json.loads(row["units"])
    ]
