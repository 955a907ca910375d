"""Describes one hypothesis as its page shows it: figures, controls, warnings, sets, pairs, cost.

Invariants: figures have the words of the tables' columns; what a run does not have is left out.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raysearch.report.control_comparison import COLUMNS, ControlComparison
from raysearch.report.labels import VERDICT_WORDS
from raysearch.report.row_sequence import TableRow
from raysearch.report.run_data import RunData
from raysearch.report.unit_text import words
from raysearch.report.verdict_pairs import is_ablation
from raysearch.report.warnings import warning_words
from raysearch.viewer.observations import SplitObservations
from raysearch.viewer.report_blocks import interval, share
from raysearch.visible_text import visible

_NOTHING = (None, share(None), interval(None, None))
"""Figures that a hypothesis does not have."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A hypothesis: its row of `results`, what was seen of it by split, the outcome of each pair
    seen, its sets, and what it was compared with if it is accepted."""

    row: TableRow
    seen: Mapping[str, SplitObservations]
    outcomes: Mapping[str, str]
    sets: Sequence[TableRow] = ()
    compared: ControlComparison | None = None


def cell_of(cell: Cell, data: RunData) -> dict[str, Any]:
    """Returns a hypothesis as plain values."""
    row = cell.row
    units = json.loads(row["units"])
    return {
        "where": visible(words(row["units"])),
        "base": [visible(u["site"]["position"]) for u in units],
        "source": [visible((u.get("source_site") or u["site"])["position"]) for u in units],
        "ablation": is_ablation(row),
        "control": row["control"],
        "figures": _figures(row, data),
        "holdout": _interval(row, "holdout_"),
        "thresholds": [row["accept_to"], row["reject_from"]],
        "controls": _controls(cell),
        "warnings": _warnings(cell),
        "sets": [
            [visible(s["set"]), s["iia"], s["low"], s["high"], s["matches"], s["n"]]
            for s in cell.sets
        ],
        "outcomes": cell.outcomes,
    }


def intervention_of(
    seen: Mapping[str, SplitObservations], fits: Sequence[TableRow], failures: Sequence[TableRow]
) -> dict[str, Any]:
    """Returns an intervention as plain values: pairs, outputs and scores by split, cost, fits,
    failures."""
    return {
        "pairs": {split: of.pairs.tolist() for split, of in seen.items()},
        "said": {split: of.said.tolist() for split, of in seen.items()},
        "scores": {split: scores for split, of in seen.items() if (scores := of.scores())},
        "cost": {split: of.cost() for split, of in seen.items()},
        "fits": [
            [f["seed"], f["step"], f["loss"], f["validation_iia"], f["status"], f["fit"]]
            for f in fits
        ],
        "failures": [
            [f["error_type"], visible(f["message"] or ""), f["block"], f["attempt"]]
            for f in failures
        ],
    }


def _figures(row: TableRow, data: RunData) -> list[list[str]]:
    """Returns (name, value in words) of what the tables have of a hypothesis."""
    score = data.facts.score
    different = row["distinct"] is not None and row["distinct"] < (row["n"] or 0)
    shown = {
        "verdict": VERDICT_WORDS[row["verdict"]],
        score.name: share(row["iia"]),
        "95 % interval": interval(row["low"], row["high"]),
        "corrected for selection": interval(row["fcr_low"], row["fcr_high"]),
        "pairs that count": row["n"],
        "different ones": row["distinct"] if different else None,
        "matches": row["matches"],
        "keep pairs": row["keep_n"] or None,
        "keep IIA": share(row["keep_iia"]),
        "copies of the source's answer": row["copies"],
        "best policy without a network": row["baseline"],
        "evidence": None if row["evidence"] is None else f"{row['evidence']:.2f} nats",
        "level": None if row["level"] is None else f"{row['level']:.2g}",
        "about": (row["population"] or "").replace("_", " ") or None,
        "why it failed": row["reason"],
        "proposed by": row["proposed_by"],
        "generation": row["generation"],
        "fit": row["fit"],
        "id": row["hypothesis"],
    }
    shown |= {name: f"{mean:.4g}" for name, mean in json.loads(row["scores"] or "{}").items()}
    return [[name, visible(value)] for name, value in shown.items() if value not in _NOTHING]


def _controls(cell: Cell) -> list[list[Any]]:
    """Returns (name, IIA, margin's interval, whether it does as well) of each control."""
    compared = cell.compared
    if compared is None:
        own = {name: cell.row[column] for name, column in COLUMNS.items()}
        return [[name, iia, None, None, False] for name, iia in own.items() if iia is not None]
    return [
        [name, iia, *(compared.margins.get(name) or (None, None)), name in compared.as_well]
        for name, iia in compared.iia.items()
        if iia is not None
    ]


def _warnings(cell: Cell) -> list[str]:
    codes = [code for code in (cell.row.get("warnings") or "").split(", ") if code]
    own = cell.compared.warning if cell.compared is not None else None
    return [visible(line) for line in (own, *(f"{c}: {warning_words(c)}" for c in codes)) if line]


def _interval(row: TableRow, prefix: str) -> list[Any] | None:
    if row[f"{prefix}n"] is None:
        return None
    return [row[f"{prefix}{name}"] for name in ("iia", "low", "high", "n")]
