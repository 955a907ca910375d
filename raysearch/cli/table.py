"""Prints hypotheses as a table that fits the terminal.

Invariants: rows are grouped by variable, then layer; what is the same in all rows stands once in a
line above the table, reasons and warnings stand in lines below it; no cell is cut: where a terminal
is too narrow, whole columns are left out, and named.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

import pyarrow as pa
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from raysearch.cli.terminal import PlainTable, say
from raysearch.report.row_sequence import Row, Rows
from raysearch.report.unit_text import is_plain, unit_texts, words
from raysearch.report.warnings import WARNINGS
from raysearch.runner.find_hypothesis import SHORTEST_ID
from raysearch.visible_text import visible

TABLE_ROWS = 1000
"""Rows of a table for people, which is laid out as a whole."""
_FOLDED = ("units", "subspace", "set")
"""Columns whose cells may take several lines."""
_FOLD = 24
"""The least width of such a column."""
_LAST = ("keep", "corrected", "distinct", "holdout", "subspace", "component", "low–high", "id")
"""Columns that are left out first where a terminal is narrow."""
_SAID = ("component", "verdict", "population", "set", "keep")
"""Columns that stand above the table where all rows have the same."""
_RIGHT = ("layer", "head", "iia", "n", "distinct", "keep")
Cells = Mapping[str, str]
_STYLES = {"accept": "green", "failed": "red", "reject": "dim"}


def print_table(
    table: pa.Table,
    console: Console,
    title: str | None = None,
    most: int = TABLE_ROWS,
    digits: int = SHORTEST_ID,
) -> None:
    """Prints the first `most` rows of the results; of an id the first `digits`."""
    if not table.num_rows:
        console.print("No hypothesis to show.")
        return
    rows = sorted(Rows(table)[:most], key=_place)
    notes = _Notes()
    cells = [_cells(row, digits, notes) for row in rows]
    columns = [c for c in cells[0] if any(each[c] not in ("", "-") for each in cells)]
    if all(row.get("distinct") in (None, row.get("n")) for row in rows):
        columns = [c for c in columns if c != "distinct"]
    said = [c for c in columns if c in _SAID and len({each[c] for each in cells}) == 1]
    left_out = print_cells(
        cells,
        [c for c in columns if c not in said],
        console,
        _heading(title, [(c, cells[0][c]) for c in said], rows),
        [_STYLES.get(row["verdict"] or "", "") for row in rows],
    )
    notes.print(console, rows)
    if left_out:
        print_line(f"left out, for the width: {', '.join(left_out)}; -o json has all", console)
    if (more := table.num_rows - len(rows)) > 0:
        say(f"{more:,} more rows: --where or --top N chooses, -o csv writes all")


def print_cells(
    cells: Sequence[Cells],
    columns: Sequence[str],
    console: Console,
    title: str = "",
    styles: Sequence[str] = (),
    right: Sequence[str] = _RIGHT,
    last: Sequence[str] = _LAST,
) -> list[str]:
    """Prints a table of texts, without the columns for which there is no room; returns these.

    Args:
        right: columns of numbers.
        last: columns that may be left out, the first one first.
    """
    styles = styles or [""] * len(cells)
    shown, left_out = list(columns), []
    if _width(cells, shown) > console.width and {"id", "variable"} <= set(shown):
        shown.remove("variable")
        cells, styles = _grouped(cells, styles)
    for name in last:
        if _width(cells, shown) > console.width and name in shown:
            shown.remove(name)
            left_out.append(name)
    too_wide = _width(cells, shown) > console.width
    if title:
        print_line(title, console, "bold")
    table = PlainTable()
    for name in shown:
        folds = name in _FOLDED or too_wide
        table.column(name, right=name in right, overflow="fold", no_wrap=not folds)
    for row, style in zip(cells, styles, strict=True):
        table.row((row.get(c, "") for c in shown), style)
    console.print(table)
    return left_out


def _width(cells: Sequence[Cells], columns: Sequence[str]) -> int:
    """Returns how many characters a line of these columns takes."""
    widths = []
    for name in columns:
        width = max(cell_len(name), *(cell_len(row.get(name, "")) for row in cells))
        widths.append(min(width, _FOLD) if name in _FOLDED else width)
    return sum(widths) + 2 * (len(widths) - 1)


def _grouped(cells: Sequence[Cells], styles: Sequence[str]) -> tuple[list[Cells], list[str]]:
    """Returns the rows of each variable below a row with its name."""
    rows: list[Cells] = []
    shown: list[str] = []
    for variable, of in groupby(
        zip(cells, styles, strict=True), key=lambda each: each[0]["variable"]
    ):
        rows.append({"id": variable})
        shown.append("bold")
        for cell, style in of:
            rows.append({**cell, "id": f"  {cell['id']}"})
            shown.append(style)
    return rows, shown


def print_line(text: str, console: Console, style: str = "") -> None:
    """Prints a text of literal characters: in whole words on a terminal, on one line elsewhere."""
    console.print(Text(visible(text), style=style), soft_wrap=not console.is_terminal)


def place_cells(row: Row) -> dict[str, str]:
    """Returns where a hypothesis is: variable, layer, component, head, position, and in words what
    these do not say."""
    named = ("variable", "layer", "component", "head", "position")
    return {name: _text(row[name]) for name in named} | _unit_words(row["units"])


def _place(row: Row) -> tuple[Any, ...]:
    numbers = (row["layer"], row["head"])
    layer, head = (-1 if n is None else n for n in numbers)
    texts = (row["variable"], row["component"] or "", row["position"] or "", row["units"])
    return texts[0], layer, *texts[1:3], head, texts[3], row.get("set") or ""


def _cells(row: Row, length: int, notes: "_Notes") -> dict[str, str]:
    holdout = row.get("holdout_iia")
    return {
        "id": row["hypothesis"][:length],
        **place_cells(row),
        "verdict": row["verdict"] or "-",
        "set": _text(row.get("set")),
        "iia": _text(row.get("iia")),
        "low–high": _interval(row.get("low"), row.get("high")),
        "corrected": _interval(row.get("fcr_low"), row.get("fcr_high")),
        "n": _text(row.get("n")),
        "distinct": _text(row.get("distinct")),
        "holdout": "-"
        if holdout is None
        else f"{holdout:.2f} {_interval(row.get('holdout_low'), row.get('holdout_high'))}",
        "keep": _text(row.get("keep_iia")),
        "population": _text(row.get("population")),
        "note": notes.of(row),
    }


class _Notes:
    """The notes below a table: each text once, with the number that rows have in a column."""

    def __init__(self) -> None:
        self._texts: dict[str, int] = {}

    def of(self, row: Row) -> str:
        """Returns the numbers of the notes of a row."""
        texts = [f"warning: {code}" for code in (row.get("warnings") or "").split(", ") if code]
        if row.get("reason"):
            texts.append(f"{row['verdict']}: {row['reason']}")
        return ",".join(
            map(str, sorted(self._texts.setdefault(t, len(self._texts) + 1) for t in texts))
        )

    def print(self, console: Console, rows: Sequence[Row]) -> None:
        """Prints each note, in the order of the numbers."""
        for text, number in self._texts.items():
            code = text.removeprefix("warning: ")
            said = f"{text}: {WARNINGS[code]}" if code in WARNINGS else text
            print_line(f"note {number}  {said}", console, "yellow" if code in WARNINGS else "")


def _heading(title: str | None, said: Iterable[tuple[str, str]], rows: Sequence[Row]) -> str:
    """Says what all rows have in common."""
    common = [f"{name} {value}" for name, value in said]
    if any(row.get("n") for row in rows) and all(row.get("distinct") == row["n"] for row in rows):
        common.append("all n pairs are different")
    return ": ".join(filter(None, (title, ", ".join(common))))


def _unit_words(units: str) -> dict[str, str]:
    """Describes what layer, component, head and position do not say of the units."""
    if is_plain(units):
        return {"subspace": "", "units": ""}
    found = unit_texts(units)
    if len(found) == 1 and not found[0].source:
        return {"subspace": found[0].subspace or found[0].operation, "units": ""}
    return {"subspace": "", "units": words(units)}


def _interval(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"{low:.2f}–{high:.2f}"


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
