"""Compares an accepted hypothesis with its controls, and warns when a control does as well.

Invariants: a control belongs to a hypothesis of the same variable at the same sites. A control does
as well if it was accepted, or was not rejected and its IIA reaches the lower end of the
hypothesis's own interval; a bare difference never counts.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raysearch.core.controls import HOLDOUT_CONTROLS, JOB_CONTROLS
from raysearch.report.unit_text import words

COLUMNS = {name: f"{name}_iia" for name in ("no_intervention", *HOLDOUT_CONTROLS)}
"""Columns of a hypothesis's own row that hold controls."""


@dataclass(frozen=True, slots=True)
class ControlComparison:
    """An accepted hypothesis (its row of `results`), the IIA of its controls, and those that do as
    well."""

    row: Mapping[str, Any]
    iia: Mapping[str, float | None]
    as_well: tuple[str, ...]

    @property
    def warning(self) -> str | None:
        """One line naming the controls that do as well, or None."""
        if not self.as_well:
            return None
        controls = ", ".join(f"{name} ({self.iia[name]:.2f})" for name in self.as_well)
        own = self.row["holdout_iia"] if self.row["holdout_iia"] is not None else self.row["iia"]
        return (
            f"{self.row['variable']} ~ {words(self.row['units'])}: IIA {own:.2f} (at least "
            f"{self.row['low']:.2f}), "
            f"but a control does as well: {controls}; the IIA is no evidence for this site"
        )


def compare(
    row: Mapping[str, Any], controls: Sequence[Mapping[str, Any]], widths: Mapping[str, int]
) -> ControlComparison:
    iia: dict[str, float | None] = {name: row[column] for name, column in COLUMNS.items()}
    as_well: list[str] = [name for name in HOLDOUT_CONTROLS if (iia[name] or 0.0) >= row["low"]]
    for name in JOB_CONTROLS:
        found = next(
            (c for c in controls if c["control"] == name and _belongs(c, row, widths)), None
        )
        if found is None:
            continue
        iia[name] = found["iia"]
        if found["verdict"] == "accept" or (
            found["verdict"] == "undecided" and (found["iia"] or 0.0) >= row["low"]
        ):
            as_well.append(name)
    return ControlComparison(row, iia, tuple(as_well))


def _belongs(control: Mapping[str, Any], row: Mapping[str, Any], widths: Mapping[str, int]) -> bool:
    if control["variable"] != row["variable"]:
        return False
    if control["control"] != "random_subspace":
        return bool(control["units"] == row["units"])
    return _sites(control) == _sites(row) and control["features"] == widths.get(
        row["fit"], row["features"]
    )


def _sites(row: Mapping[str, Any]) -> list[Any]:
    return [{k: v for k, v in unit.items() if k != "subspace"} for unit in json.loads(row["units"])]


def widths(fits: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Returns the widths found in training, by the fit's digest; `fits` has rows of that table."""
    found = {row["fit"]: json.loads(row["found"]) for row in fits if row["fit"] and row["found"]}
    return {
        fit: max(1, round(values["width"])) for fit, values in found.items() if "width" in values
    }
