"""Each accepted hypothesis beside its controls, and a plain word where a control does as well.

Invariants: a control belongs to a hypothesis of the same variable at the same sites; "as well" is
judged by intervals, never by a bare difference: a control that was accepted, or that was not
rejected and matches no less often than the lower end of the hypothesis's own interval.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raysearch.core.controls import HOLDOUT_CONTROLS, JOB_CONTROLS
from raysearch.report.results_table import read_table, results
from raysearch.report.unit_text import words
from raysearch.storage.open import FolderLike

COLUMNS = {"no_intervention": "base_match_unfiltered"} | {
    name: f"{name}_iia" for name in HOLDOUT_CONTROLS
}
"""The columns of a hypothesis's own row with its controls; without intervention no change pair
matches, and keep pairs do."""


@dataclass(frozen=True, slots=True)
class ControlComparison:
    """An accepted hypothesis (its row of `results`) and the IIA of each control, by name;
    `as_well`: those that do as well."""

    row: Mapping[str, Any]
    iia: Mapping[str, float | None]
    as_well: tuple[str, ...]

    @property
    def warning(self) -> str | None:
        """In one line, what does as well."""
        if not self.as_well:
            return None
        said = ", ".join(f"{name} ({self.iia[name]:.2f})" for name in self.as_well)
        own = self.row["holdout_iia"] if self.row["holdout_iia"] is not None else self.row["iia"]
        return (
            f"{self.row['variable']} ~ {words(self.row['units'])}: IIA {own:.2f} (at least "
            f"{self.row['low']:.2f}), "
            f"but a control does as well: {said}; the IIA is no evidence for this site"
        )


def beside(run: FolderLike) -> list[ControlComparison]:
    """The accepted hypotheses of a run, in the order of `results`. Raises: StoreError if there is
    nothing to read."""
    rows = results(run, controls=True).to_pylist()
    controls = [row for row in rows if row["control"] is not None]
    accepted = [row for row in rows if row["control"] is None and row["verdict"] == "accept"]
    widths = _widths(run)
    return [_beside(row, controls, widths) for row in accepted]


def _widths(run: FolderLike) -> dict[str, int]:
    """The width that each fit found, by its digest, of those that found one."""
    rows = read_table(run, "fits").to_pylist()
    found = {row["fit"]: json.loads(row["found"]) for row in rows if row["fit"] and row["found"]}
    return {
        fit: max(1, round(values["width"])) for fit, values in found.items() if "width" in values
    }


def _beside(
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
