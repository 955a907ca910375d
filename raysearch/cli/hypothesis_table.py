"""Prints hypotheses as a table that fits the terminal.

Invariants: rows are grouped by variable, then layer; what is the same in all rows stands once in a
line above the table, reasons and warnings stand in lines below it; no cell is cut: where a terminal
is too narrow, columns stand in a second line of each row, so that what tells rows apart is there.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pyarrow as pa
from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from raysearch.cli.terminal import PlainTable, say
from raysearch.core.featurizers import FULL
from raysearch.report.row_sequence import Rows, TableRow
from raysearch.report.unit_text import is_plain, unit_texts, words
from raysearch.report.warnings import warning_words
from raysearch.runner.stored_run.find_hypothesis import SHORTEST_ID
from raysearch.visible_text import visible

TABLE_ROWS = 1000
"""Rows of a table for people, which is laid out as a whole."""
_FOLDED = ("units", "subspace", "set")
"""Columns whose cells may take several lines."""
_FOLD = 24
"""The least width of such a column."""
_FIGURES = ("keep IIA", "corrected", "distinct", "holdout", "low–high")
"""Columns that a rejected row has no second line for."""
_LAST = (*_FIGURES, "population", "units", "subspace", "set", "component", "n", "verdict", "head")
"""Columns that go to a second line first where a terminal is narrow."""
_SAID = ("component", "verdict", "population", "set", "keep IIA")
"""Columns that stand above the table where all rows have the same."""
_RIGHT = ("layer", "head", "iia", "n", "distinct", "keep IIA")
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
    rows = sorted(Rows(table)[:most], key=place_key)
    notes = _Notes()
    cells = [_cells(row, digits, notes) for row in rows]
    columns = used_columns(cells)
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
        names = ", ".join(left_out)
        print_line(f"left out of rejected rows, for the width: {names}; -o json has all", console)
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
    """Prints a table of texts; columns for which there is no room stand below each row, by name.
    Returns those that rejected rows have not.

    Args:
        right: columns of numbers.
        last: columns that may stand below, the first one first.
    """
    laid = _layout(cells, columns, console.width, last)
    if title:
        print_line(title, console, "bold")
    _print_rows([], laid, right, console, header=True)
    styled = zip(cells, styles or [""] * len(cells), strict=True)
    for variable, of in groupby(styled, lambda each: each[0]["variable"] if laid.indent else ""):
        if laid.indent:
            print_line(variable, console, "bold")
        waiting: list[tuple[Cells, str]] = []
        for row, style in of:
            waiting.append((row, style))
            if lines := laid.second(row):
                _print_rows(waiting, laid, right, console)
                waiting = []
                for line in lines:
                    console.print(Text(line, style=style))
        _print_rows(waiting, laid, right, console)
    rejected = any(row.get("verdict") == "reject" for row in cells)
    return [name for name in laid.below if name in _FIGURES] if rejected else []


@dataclass(frozen=True, slots=True)
class _Layout:
    """The layout of a table: columns side by side with their widths in characters, the columns
    that stand below each row, and by how many characters rows are indented."""

    widths: Mapping[str, int]
    below: Sequence[str]
    indent: int
    width: int

    def second(self, row: Cells) -> list[str]:
        """Returns what stands below a row, in lines; of a rejected one no figures."""
        said = [
            f"{name} {visible(row[name])}"
            for name in self.below
            if row.get(name, "") not in ("", "-")
            and not (name in _FIGURES and row.get("verdict") == "reject")
        ]
        before = " " * (self.indent + 4)
        lines = [""]
        for text in said:
            joined = f"{lines[-1]}, {text}" if lines[-1] else before + text
            if cell_len(joined) >= self.width and lines[-1]:  # a comma may follow
                joined = before + text
                lines[-1] += ","
                lines.append("")
            lines[-1] = joined
        return [line for line in lines if line]


def _layout(
    cells: Sequence[Cells], columns: Sequence[str], width: int, last: Sequence[str]
) -> _Layout:
    """Finds what fits side by side in `width` characters."""
    widths = {
        name: max(cell_len(visible(text)) for text in (name, *(row.get(name, "") for row in cells)))
        for name in columns
    }
    indent = 2 * (_needed(widths) > width and {"id", "variable"} <= set(columns))
    if indent:
        del widths["variable"]
    for name in last:
        if _needed(widths) > width - indent and len(widths) > 1:
            widths.pop(name, None)
    while (over := _taken(widths) - (width - indent)) > 0:
        folded = [name for name in widths if name in _FOLDED and widths[name] > _FOLD]
        widest = max(folded or widths, key=lambda name: widths[name])
        if widths[widest] == 1:
            break
        widths[widest] -= min(over, max(widths[widest] // 8, 1))
    below = [name for name in columns if name not in widths and not (indent and name == "variable")]
    return _Layout(widths, below, indent, width)


def _taken(widths: Mapping[str, int]) -> int:
    """Returns how many characters a line of these columns takes."""
    return sum(widths.values()) + 2 * (len(widths) - 1)


def _needed(widths: Mapping[str, int]) -> int:
    """Returns how many it takes where columns that may fold do."""
    return _taken({n: min(w, _FOLD) if n in _FOLDED else w for n, w in widths.items()})


def _print_rows(
    rows: Sequence[tuple[Cells, str]],
    laid: _Layout,
    right: Sequence[str],
    console: Console,
    header: bool = False,
) -> None:
    """Prints the heads of the columns, or rows below them."""
    if not rows and not header:
        return
    table = PlainTable(header)
    for name, width in laid.widths.items():
        table.column(name, right=name in right, overflow="fold", width=width)
    for row, style in rows:
        table.row((row.get(name, "") for name in laid.widths), style)
    console.print(Padding(table, (0, 0, 0, laid.indent), expand=False))


def used_columns(cells: Sequence[Cells]) -> list[str]:
    """Returns the columns that say something: where all is full, no subspace."""
    empty = {"subspace": ("", FULL)}
    return [c for c in cells[0] if any(e[c] not in empty.get(c, ("", "-")) for e in cells)]


def print_line(text: str, console: Console, style: str = "") -> None:
    """Prints a text of literal characters: in whole words on a terminal, on one line elsewhere."""
    console.print(Text(visible(text), style=style), soft_wrap=not console.is_terminal)


def place_cells(row: TableRow) -> dict[str, str]:
    """Returns where a hypothesis is: variable, layer, component, head, position, and in words what
    these do not say."""
    named = ("variable", "layer", "component", "head", "position")
    return {name: _text(row[name]) for name in named} | _unit_words(row["units"])


def place_key(row: TableRow) -> tuple[Any, ...]:
    """Returns the key by which rows are sorted: by variable, then layer."""
    numbers = (row["layer"], row["head"])
    layer, head = (-1 if n is None else n for n in numbers)
    texts = (row["variable"], row["component"] or "", row["position"] or "", row["units"])
    return texts[0], layer, *texts[1:3], head, texts[3], row.get("set") or ""


def _cells(row: TableRow, length: int, notes: "_Notes") -> dict[str, str]:
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
        "keep IIA": _text(row.get("keep_iia")),
        "population": _text(row.get("population")),
        "note": notes.of(row),
    }


class _Notes:
    """The notes below a table: each text once, with the number that rows have in a column."""

    def __init__(self) -> None:
        self._texts: dict[str, int] = {}

    def of(self, row: TableRow) -> str:
        """Returns the numbers of the notes of a row."""
        texts = [f"warning: {code}" for code in (row.get("warnings") or "").split(", ") if code]
        if row.get("reason"):
            texts.append(f"{row['verdict']}: {row['reason']}")
        return ",".join(
            map(str, sorted(self._texts.setdefault(t, len(self._texts) + 1) for t in texts))
        )

    def print(self, console: Console, rows: Sequence[TableRow]) -> None:
        """Prints each note, in the order of the numbers."""
        for text, number in self._texts.items():
            code = text.removeprefix("warning: ")
            is_warning = code != text
            said = f"{text}: {warning_words(code)}" if is_warning else text
            print_line(f"note {number}  {said}", console, "yellow" if is_warning else "")


def _heading(title: str | None, said: Iterable[tuple[str, str]], rows: Sequence[TableRow]) -> str:
    """Says what all rows have in common."""
    common = [f"{name} {value}" for name, value in said]
    if any(row.get("n") for row in rows) and all(row.get("distinct") == row["n"] for row in rows):
        common.append("all n pairs are different")
    return ": ".join(filter(None, (title, ", ".join(common))))


def _unit_words(units: str) -> dict[str, str]:
    """Describes what layer, component, head and position do not say of the units."""
    if is_plain(units):
        return {"subspace": FULL, "units": ""}
    found = unit_texts(units)
    if len(found) == 1 and not found[0].source:
        one = found[0]
        return {
            "subspace": ", ".join((one.subspace or FULL, one.operation)).rstrip(", "),
            "units": "",
        }
    return {"subspace": "", "units": words(units)}


def _interval(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"{low:.2f}–{high:.2f}"


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
