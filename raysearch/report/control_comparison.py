"""Compares each accepted hypothesis with its controls, with the best policy that looks into no
network, and with the other variables, and warns where it is not better.

Invariants: a control belongs to a hypothesis of the same variable at the same sites. Each
comparison is a paired test on the same pairs (`margins.py`): a control does as well, as far as is
shown, if it was accepted, or if it was not rejected and the interval of the margin over it reaches
0. A bare difference never counts.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from raysearch.core.control_kinds import HOLDOUT_CONTROLS, JOB_CONTROLS, control_kind
from raysearch.core.hypothesis import canonical_json
from raysearch.report.margins import NO_MARGINS, Interval, Margins
from raysearch.report.row_sequence import TableRow
from raysearch.report.unit_text import words

ControlKey = tuple[str, str, str, int | None]
"""The parts that a control and its hypothesis have in common."""
COLUMNS = {name: f"{name}_iia" for name in ("no_intervention", "baseline", *HOLDOUT_CONTROLS)}
"""Columns of a hypothesis's own row that hold controls; `baseline` is the best policy that looks
into no network."""


@dataclass(frozen=True, slots=True)
class ControlComparison:
    """An accepted hypothesis and what it is held against.

    Args:
        row: its row of `results`.
        iia: IIA of its controls.
        as_well: the controls that do as well.
        margins: 95 % interval of its IIA minus that of a control, on the same pairs.
        alike: the variables from which it is not told apart: outputs are their counterfactual as
            often.
        copies: whether it is not shown to match more often than an answer of the source would.
    """

    row: TableRow
    iia: Mapping[str, float | None]
    as_well: tuple[str, ...]
    margins: Mapping[str, Interval] = field(default_factory=dict)
    alike: tuple[str, ...] = ()
    copies: bool = False

    @property
    def warning(self) -> str | None:
        """One line on what it is not better than, or None."""
        reasons = list(filter(None, (self._controls(), self._policy(), self._variables())))
        if not reasons:
            return None
        of = "" if self.row["holdout_iia"] is None else "holdout_"
        iia, low = self.row[f"{of}iia"], self.row[f"{of}low"]
        least = "" if low is None else f" (at least {low:.2f})"
        where = f"{self.row['variable']} ~ {words(self.row['units'])}"
        return f"{where}: IIA {iia:.2f}{least}, but {'; '.join(reasons)}"

    @property
    def beats_policy(self) -> bool | None:
        """Says whether it does better than the best policy; None where nothing can, or it is not
        known."""
        low = self.row.get("margin_low")
        return None if low is None else low > 0

    def _controls(self) -> str:
        if not self.as_well:
            return ""
        named = ", ".join(
            name if (iia := self.iia[name]) is None else f"{name} ({iia:.2f})"
            for name in self.as_well
        )
        return (
            f"it is not shown to do better than a control: {named}; so the IIA is no evidence for "
            f"this site"
        )

    def _policy(self) -> str:
        if self.beats_policy is not False:
            return ""
        return (
            f"what {self.row['baseline']}, without any network, is right on "
            f"{self.row['baseline_iia']:.2f} of the same pairs, and it is not shown to do better"
        )

    def _variables(self) -> str:
        if not self.alike:
            return ""
        return f"its outputs are as often what {' or '.join(self.alike)} would make of them"


def compare(
    row: TableRow,
    controls: Mapping[ControlKey, TableRow],
    widths: Mapping[str, int],
    margins: Margins = NO_MARGINS,
    variables: Sequence[str] = (),
) -> ControlComparison:
    """Compares an accepted hypothesis; without margins, with its controls by their IIA alone.
    `controls`: as `controls_by_place` returns them."""
    iia: dict[str, float | None] = {name: row[column] for name, column in COLUMNS.items()}
    ablates = '"operation"' in row["units"]
    if ablates:  # it takes nothing from the source
        margins = NO_MARGINS
    over: dict[str, Interval | None] = {
        name: margins.over_holdout(row, name) for name in HOLDOUT_CONTROLS
    }
    as_well: list[str] = [
        name for name in HOLDOUT_CONTROLS if _reaches(over.get(name), iia[name], row)
    ]
    for name, kind in JOB_CONTROLS.items():
        found = controls.get(_key(name, row, widths.get(row["fit"], row["features"])))
        if found is None:
            continue
        iia[name], over[name] = found["iia"], margins.over(row, found)
        if ablates and kind.random_weights:  # it seldom has the base's answer, ablated or not
            continue
        undecided = found["verdict"] == "undecided"
        if found["verdict"] == "accept" or (undecided and _reaches(over[name], iia[name], row)):
            as_well.append(name)
    if row.get("margin_low") is not None:
        over["baseline"] = row["margin_low"], row["margin_high"]
    known = {name: margin for name, margin in over.items() if margin is not None}
    others = (v for v in variables if v != row["variable"])
    alike = tuple(v for v in others if _is_no_better(margins.over_variable(row, v)))
    copies = _is_no_better(margins.over_source(row))
    return ControlComparison(row, iia, tuple(as_well), known, alike, copies)


def _is_no_better(margin: Interval | None) -> bool:
    """Says whether a margin is known and reaches 0."""
    return margin is not None and margin[0] <= 0


def _reaches(margin: Interval | None, iia: float | None, row: TableRow) -> bool:
    """Says whether a control may do as well; without common pairs, whether its IIA reaches the
    lower end of the hypothesis's own interval."""
    if margin is not None:
        return margin[0] <= 0
    return iia is not None and bool(iia >= row["low"])


def controls_by_place(controls: Iterable[TableRow]) -> dict[ControlKey, TableRow]:
    """Returns controls that are hypotheses of their own, the first of each kind and place."""
    found: dict[ControlKey, TableRow] = {}
    for control in controls:
        found.setdefault(_key(control["control"], control, control["features"]), control)
    return found


def _key(control: str, row: TableRow, features: int | None) -> ControlKey:
    if not control_kind(control).random_subspace:
        return control, row["variable"], row["units"], None
    sites = [{**unit, "subspace": None} for unit in json.loads(row["units"])]
    return control, row["variable"], canonical_json(sites), features


def widths(fits: Iterable[TableRow]) -> dict[str, int]:
    """Returns the widths found in training, by the fit's digest; `fits` has rows of that table."""
    found = {
        row["fit"]: json.loads(row["found"]) for row in fits if row["fit"] and row.get("found")
    }
    return {
        fit: max(1, round(values["width"])) for fit, values in found.items() if "width" in values
    }
