"""Compares the accepted hypotheses of a run with their controls, in the order of `results`."""

import pyarrow as pa

from raysearch.report.control_rows import ControlComparison, compare, indexed
from raysearch.report.margins import read_margins
from raysearch.report.results_table import results, widths_of
from raysearch.report.rows import Rows
from raysearch.storage.open import FolderLike


def compare_controls(run: FolderLike) -> list[ControlComparison]:
    """Returns the accepted hypotheses of a run with their controls, in the order of `results`.

    Raises: StoreError if there is nothing to read.
    """
    rows, controls = hypotheses_and_controls(results(run, controls=True))
    return compare_accepted(run, rows, rows.where("verdict", "accept"), controls)


def hypotheses_and_controls(table: pa.Table) -> tuple[Rows, Rows]:
    """Splits the rows of `results`."""
    rows = Rows(table)
    return rows.where("control", None), rows.where("control", *filter(None, rows.values("control")))


def compare_accepted(
    run: FolderLike, rows: Rows, accepted: Rows, controls: Rows
) -> list[ControlComparison]:
    """Returns the same for some accepted hypotheses; `rows` are all hypotheses of the run.

    Raises: StoreError for a damaged table.
    """
    widths = widths_of(run, accepted)
    wanted = list(controls.where("variable", *accepted.values("variable")))
    margins = read_margins(run, list(accepted), wanted)
    variables = sorted(rows.values("variable"))
    of_controls = indexed(wanted)
    return [compare(row, of_controls, widths, margins, variables) for row in accepted]
