"""Compares the accepted hypotheses of a run with their controls, in the order of `results`."""

from raysearch.report.control_rows import ControlComparison, compare, widths
from raysearch.report.margins import read_margins
from raysearch.report.results_table import read_table, results
from raysearch.storage.open import FolderLike


def compare_controls(run: FolderLike) -> list[ControlComparison]:
    """Returns the accepted hypotheses of a run with their controls, in the order of `results`.

    Raises: StoreError if there is nothing to read.
    """
    rows = results(run, controls=True).to_pylist()
    controls = [row for row in rows if row["control"] is not None]
    accepted = [row for row in rows if row["control"] is None and row["verdict"] == "accept"]
    found = widths(read_table(run, "fits").to_pylist())
    variables = sorted({row["variable"] for row in rows})
    margins = read_margins(run, accepted, controls)
    return [compare(row, controls, found, margins, variables) for row in accepted]
