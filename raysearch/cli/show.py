"""Results as people and programs read them: a table, JSON, JSON lines, CSV, Parquet.

Invariants: JSON is JSON: numbers that are not finite become null, an evidence that is certain among them.
"""

import json
import math
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.table import Table

from raysearch.report.results import results
from raysearch.report.units import is_plain, words

SHOWN = (
    "variable", "layer", "component", "head", "position", "units", "verdict", "iia", "low", "high", "n", "holdout_iia", "keep_iia",
)  # fmt: skip
_WORDS = ("variable", "component", "position", "units", "verdict")
"""Columns of words; the others are numbers."""


def show_results(run: Path, output: str, no_color: bool = False, **choice: Any) -> None:
    """Writes the chosen results of a run to stdout. Raises: StoreError, JobError for a bad condition."""
    table = results(run, **choice)
    match output:
        case "table":
            print_table(table, Console(width=None if sys.stdout.isatty() else 160, no_color=no_color or None))
        case "json":
            print(json.dumps(_objects(table), indent=2))
        case "jsonl":
            for row in _objects(table):
                print(json.dumps(row))
        case "csv":
            import pyarrow.csv as csv

            csv.write_csv(table, sys.stdout.buffer)
        case "parquet":
            import pyarrow.parquet as pq

            pq.write_table(table, sys.stdout.buffer)


def print_table(table: pa.Table, console: Console, title: str | None = None) -> None:
    """The columns that people look at first: component and verdict only where they differ between the rows, head only where there is
    one, units only where the columns before do not say them (several at once, coordinates, another source site)."""
    shown = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    rows = [row | {"units": None if is_plain(row["units"]) else words(row["units"])} for row in table.to_pylist()]
    left_out = {c for c in ("component", "verdict") if len({row[c] for row in rows}) == 1}
    left_out |= {c for c in ("head", "units") if all(row[c] is None for row in rows)}
    columns = [name for name in SHOWN if name not in left_out]
    for name in columns:
        shown.add_column(name, justify="left" if name in _WORDS else "right")
    for row in rows:
        style = {"accept": "green", "failed": "red", "reject": "dim"}.get(row["verdict"] or "", "")
        shown.add_row(*(_cell(row[name]) for name in columns), style=style)
    console.print(shown)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _objects(table: pa.Table) -> list[dict[str, Any]]:
    return [{k: _finite(v) for k, v in row.items()} for row in table.to_pylist()]


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
