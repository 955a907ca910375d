"""The results of a run, with what compares its accepted hypotheses with their controls."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from raysearch.core.control_kinds import JOB_CONTROLS
from raysearch.report.control_comparison import ControlComparison, compare, controls_by_place
from raysearch.report.margins import NO_MARGINS, Margins
from raysearch.report.row_sequence import Rows, TableRow


@dataclass(frozen=True, slots=True)
class RunResults:
    """All hypotheses of a run, read once for all that show them (`results_table.read_results`).

    Args:
        table: hypotheses and controls with their verdicts, in the order of `results`.
        margins: the margins of accepted hypotheses.
        widths: widths found in the training of accepted hypotheses, by the fit's digest.
    """

    table: pa.Table
    margins: Margins = NO_MARGINS
    widths: Mapping[str, int] = field(default_factory=dict)

    @property
    def hypotheses(self) -> Rows:
        """The hypotheses, without controls."""
        return Rows(self.table).where("control", None)

    @property
    def accepted(self) -> Rows:
        """The accepted hypotheses, without controls."""
        return self.hypotheses.where("verdict", "accept")

    @property
    def controls(self) -> Rows:
        """The controls that are hypotheses of their own."""
        return Rows(self.table).where("control", *JOB_CONTROLS)


def compare_controls(
    found: RunResults, accepted: Rows | None = None, any_score: bool = False
) -> Iterator[ControlComparison]:
    """Yields accepted hypotheses (None: all) with their controls.

    Args: any_score: use margins of matches even where the test is on another score.
    """
    accepted = found.accepted if accepted is None else accepted
    controls = controls_by_place(of_same_variables(found.controls, accepted))
    margins = found.margins if any_score or found.margins.of_tested_score else NO_MARGINS
    variables = sorted(found.hypotheses.values("variable"))
    for row in accepted:
        yield compare(row, controls, found.widths, margins, variables)


def of_same_variables(controls: Rows, accepted: Rows) -> list[TableRow]:
    """Returns the controls of the variables of accepted hypotheses."""
    return list(controls.where("variable", *accepted.values("variable")))
