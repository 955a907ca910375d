"""Compares each accepted hypothesis with its controls, and warns when a control does as well.

Invariants: a control belongs to a hypothesis of the same variable at the same sites. A control does
as well if it was accepted, or was not rejected and its IIA reaches the lower end of the
hypothesis's own interval; a bare difference never counts.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from raysearch.core.controls import HOLDOUT_CONTROLS, JOB_CONTROLS
from raysearch.core.hypothesis import canonical_json
from raysearch.report.results_table import read_parts, results
from raysearch.report.rows import Row, Rows
from raysearch.report.unit_text import words
from raysearch.storage.open import FolderLike

_Key = tuple[str, str, str, int | None]
COLUMNS = {"no_intervention": "base_match_unfiltered"} | {
    name: f"{name}_iia" for name in HOLDOUT_CONTROLS
}
"""Columns of a hypothesis's own row that hold controls. Without intervention, keep pairs match and
change pairs do not."""


@dataclass(frozen=True, slots=True)
class ControlComparison:
    """An accepted hypothesis (its row of `results`), the IIA of its controls, and those that do as
    well."""

    row: Row
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


def compare_controls(run: FolderLike) -> list[ControlComparison]:
    """Returns the accepted hypotheses of a run with their controls, in the order of `results`.

    Raises: StoreError if there is nothing to read.
    """
    rows, controls = hypotheses_and_controls(results(run, controls=True))
    return compare(run, rows.where("verdict", "accept"), controls)


def hypotheses_and_controls(table: pa.Table) -> tuple[Rows, Rows]:
    """Splits the rows of `results`."""
    rows = Rows(table)
    return rows.where("control", None), rows.where("control", *filter(None, rows.values("control")))


def compare(run: FolderLike, accepted: Rows, controls: Rows) -> list[ControlComparison]:
    """Returns the same for some accepted hypotheses. Raises: StoreError for a damaged table."""
    widths = _widths(run, accepted)
    indexed: dict[_Key, Row] = {}
    for control in controls.where("variable", *accepted.values("variable")):
        indexed.setdefault(_key(control["control"], control, control["features"]), control)
    return [_compare(row, indexed, widths) for row in accepted]


def _widths(run: FolderLike, accepted: Rows) -> dict[str, int]:
    """Returns the widths found in training, by the fit's digest."""
    wanted = accepted.values("fit")
    parts = (Rows(part).where("fit", *wanted) for part in read_parts(run, "fits", ("fit", "found")))
    rows = (row for part in parts for row in part)
    found = {
        row["fit"]: json.loads(row["found"]) for row in rows if row["fit"] and row.get("found")
    }
    return {
        fit: max(1, round(values["width"])) for fit, values in found.items() if "width" in values
    }


def _compare(
    row: Row, controls: Mapping[_Key, Row], widths: Mapping[str, int]
) -> ControlComparison:
    iia: dict[str, float | None] = {name: row[column] for name, column in COLUMNS.items()}
    as_well: list[str] = [name for name in HOLDOUT_CONTROLS if _reaches(iia[name], row)]
    for name in JOB_CONTROLS:
        found = controls.get(_key(name, row, widths.get(row["fit"], row["features"])))
        if found is None:
            continue
        iia[name] = found["iia"]
        if found["verdict"] == "accept" or (
            found["verdict"] == "undecided" and _reaches(found["iia"], row)
        ):
            as_well.append(name)
    return ControlComparison(row, iia, tuple(as_well))


def _reaches(iia: float | None, row: Row) -> bool:
    """Whether a control's IIA is within or above the interval of its hypothesis."""
    return iia is not None and bool(iia >= row["low"])


def _key(control: str, row: Row, features: int | None) -> _Key:
    """Returns what a control and its hypothesis have in common."""
    if control != "random_subspace":
        return control, row["variable"], row["units"], None
    sites = [{**unit, "subspace": None} for unit in json.loads(row["units"])]
    return control, row["variable"], canonical_json(sites), features
