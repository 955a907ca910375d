"""Prints results as a table, JSON, JSON lines, CSV or Parquet.

Invariants: JSON is valid: numbers that are not finite, such as the evidence of certainty, become
null.
"""

import io
import json
import math
import sys
from collections.abc import Iterator, Sequence
from textwrap import indent
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.text import Text

from raysearch.cli.terminal import PlainTable, console, say
from raysearch.core.controls import JOB_CONTROLS
from raysearch.report.claim import continued_words, read_claim
from raysearch.report.control_rows import COLUMNS, ControlComparison
from raysearch.report.dropped_pairs import describe_dropped
from raysearch.report.results_table import MAIN_COLUMNS, TEXT_COLUMNS, results
from raysearch.report.rows import Rows
from raysearch.report.unit_text import is_plain, unit_texts, words
from raysearch.report.warnings import warning_lines
from raysearch.storage.open import FolderLike, open_folder
from raysearch.store.run_folder import RunFolder
from raysearch.visible_text import for_stream, visible

TABLE_ROWS = 1000
"""Rows of a table for people, which is laid out as a whole."""
_SAID = ("subspace", "units")
"""Columns that `_said` adds."""


def show_results(run: FolderLike, output: str, no_color: bool = False, **choice: Any) -> None:
    """Writes the chosen results of a run to stdout. Raises: StoreError; JobError for a bad
    condition."""
    table = results(run, **choice)
    match output:
        case "table":
            left_out, terminal = (
                describe_dropped(run),
                console(no_color),
            )  # read before anything is printed: it may be damaged
            print_table(table, terminal, most=choice.get("top") or TABLE_ROWS)
            if "accept" in table["verdict"].to_pylist():
                print_claim(run, terminal)
            elif words := continued_words(RunFolder.open(open_folder(run)).info.continued):
                say(f"this run was {words}")
            print_dropped(left_out, terminal)
        case "json":
            _print_list(table)
        case "jsonl":
            for row in _objects(table):
                print(json.dumps(row))
        case "csv":
            import pyarrow.csv as csv

            if sys.stdout.isatty():
                csv.write_csv(table, shown := io.BytesIO())
                print(for_stream(shown.getvalue().decode(), sys.stdout), end="")
            else:
                csv.write_csv(table, sys.stdout.buffer)
        case "parquet":
            import pyarrow.parquet as pq

            pq.write_table(table, sys.stdout.buffer)


def print_table(
    table: pa.Table, console: Console, title: str | None = None, most: int = TABLE_ROWS
) -> None:
    """Prints the main columns of the first `most` rows, omitting those that say nothing.

    Component and verdict are shown only where rows differ, head only if there is one, reason if one
    failed, the interval corrected for selection if one was accepted, and subspace and units only
    where other columns do not determine them.
    """
    shown, every = PlainTable(title), Rows(table)
    rows = [{**row, **_said(row["units"])} for row in every[:most]]
    left_out = {c for c in ("component", "verdict") if len(every.values(c)) == 1}
    empty = {"head", "fcr_low", "fcr_high", "distinct", "population", "warnings", "reason"}
    empty &= set(table.column_names)
    left_out |= {c for c in empty if set(every.values(c)) <= {None, ""}}
    left_out |= {c for c in _SAID if all(row[c] is None for row in rows)}
    columns = [
        name
        for name in MAIN_COLUMNS
        if name not in left_out and (name in table.column_names or name in _SAID)
    ]
    for name in columns:
        shown.column(name, right=name not in TEXT_COLUMNS)
    for row in rows:
        style = {"accept": "green", "failed": "red", "reject": "dim"}.get(row["verdict"] or "", "")
        shown.row((_cell(row[name]) for name in columns), style)
    console.print(shown if rows else "No hypothesis to show.")
    if (more := table.num_rows - len(rows)) > 0:
        say(f"{more:,} more rows: --where or --top N chooses, -o csv writes all")


def print_claim(run: FolderLike, console: Console) -> None:
    """Prints what an accept of the run says, and what it does not. Raises: StoreError."""
    console.print(visible(read_claim(run)), markup=False, highlight=False, soft_wrap=True)


def print_dropped(lines: Sequence[str], console: Console) -> None:
    """Prints which pairs do not count and why, one line each."""
    for line in lines:
        console.print(visible(f"pairs: {line}"), markup=False, highlight=False, soft_wrap=True)


def print_controls(found: Sequence[ControlComparison], console: Console) -> None:
    """Prints each accepted hypothesis with its controls, and warns of each whose control does as
    well."""
    shown = PlainTable("Controls (IIA)")
    names = [name for name in (*COLUMNS, *JOB_CONTROLS) if any(name in b.iia for b in found)]
    rows = [{**b.row, **_said(b.row["units"])} for b in found]
    named = ("variable", "layer", "component", "head", "position", "subspace", "units")
    columns = [c for c in named if any(r[c] is not None for r in rows)]
    for name in (*columns, "hypothesis", *names):
        shown.column(name, right=name not in TEXT_COLUMNS)
    for row, b in zip(rows, found, strict=True):
        own = row["holdout_iia"] if row["holdout_iia"] is not None else row["iia"]
        cells = (
            [_cell(row[c]) for c in columns]
            + [_cell(own)]
            + [_cell(b.iia.get(name)) for name in names]
        )
        shown.row(cells, "yellow" if b.as_well else "")
    console.print(shown)
    for line in [b.warning for b in found if b.warning] + warning_lines([b.row for b in found]):
        console.print(Text(visible(f"warning: {line}"), style="yellow"))


def _said(units: str) -> dict[str, str | None]:
    """Describes what layer, component, head and position do not say of the units."""
    if is_plain(units):
        return {"subspace": None, "units": None}
    found = unit_texts(units)
    if len(found) == 1 and not found[0].source:
        return {"subspace": found[0].subspace, "units": None}
    return {"subspace": None, "units": words(units)}


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _print_list(table: pa.Table) -> None:
    """Prints a list as `json.dumps(rows, indent=2)` would, a row at a time."""
    before = "["
    for row in _objects(table):
        print(before, indent(json.dumps(row, indent=2), "  "), sep="\n", end="")
        before = ","
    print("\n]" if table.num_rows else "[]")


def _objects(table: pa.Table) -> Iterator[dict[str, Any]]:
    """Yields the rows; what is not finite is null."""
    for row in Rows(table):
        yield {name: _finite(value) for name, value in row.items()}


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
