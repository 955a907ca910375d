"""Prints results as a table, JSON, JSON lines, CSV or Parquet.

Invariants: JSON is valid: numbers that are not finite, such as the evidence of certainty, become
null.
"""

import io
import sys
from collections.abc import Sequence
from textwrap import indent
from typing import Any

import pyarrow as pa
from rich.console import Console

from raysearch.cli.hypothesis_table import (
    TABLE_ROWS,
    place_cells,
    place_key,
    print_cells,
    print_line,
    print_table,
    used_columns,
)
from raysearch.cli.json_output import emit_text, to_json
from raysearch.cli.terminal import console, lead, say, shell_path
from raysearch.core.control_kinds import HOLDOUT_CONTROLS, JOB_CONTROLS
from raysearch.errors import RaysearchError
from raysearch.report.claim import continued_words, read_claim
from raysearch.report.control_comparison import COLUMNS, ControlComparison
from raysearch.report.dropped_pairs import summarise_dropped
from raysearch.report.results_table import results
from raysearch.report.row_sequence import Rows
from raysearch.runner.plans.pairs_needed import pairs_for_verdicts
from raysearch.runner.stored_run.find_hypothesis import short_ids
from raysearch.store.job_file import read_job
from raysearch.store.run_folder import RunFolder
from raysearch.store.run_history import run_state
from raysearch.visible_text import for_stream


def show_results(
    run: RunFolder, output: str, no_color: bool = False, quiet: bool = False, **choice: Any
) -> None:
    """Writes the chosen results of a run to stdout. Raises: StoreError; JobError for a bad
    condition."""
    table = results(run.folder, **choice)
    match output:
        case "table":
            left_out = summarise_dropped(run.folder)  # read before anything is printed: it may be
            terminal = console(no_color)  # damaged
            most = choice.get("top") or TABLE_ROWS
            print_table(table, terminal, most=most, digits=short_ids(run.folder))
            if "accept" in table["verdict"].to_pylist():
                print_claim(run, terminal)
            elif words := continued_words(run.info.continued):
                say(f"this run was {words}")
            for line in left_out:
                print_line(f"pairs: {line}", terminal)
        case "json":
            _print_list(table)
        case "jsonl":
            for row in Rows(table):
                emit_text(to_json(row))
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
    command, why = next_command(run, table)
    lead(command, quiet, why)


def next_command(run: RunFolder, table: pa.Table) -> tuple[str, str]:
    """Returns the command that goes on from these results of a run, and what is to be known before
    it is typed, if anything."""
    place = shell_path(run.place)
    if (state := run_state(run)) != "done":
        return f"raysearch {'status' if state == 'running' else 'resume'} {place}", ""
    verdicts = table["verdict"].to_pylist()
    if "accept" in verdicts:
        name = table["hypothesis"][verdicts.index("accept")].as_py()[: short_ids(run.folder)]
        return f"raysearch export {place} {name} --to intervention-{name}", ""
    if "failed" in verdicts:
        return f"raysearch resume {place} --retry-failed", ""
    return further(run) if "undecided" in verdicts else (f"raysearch view {place} --open", "")


def further(run: RunFolder) -> tuple[str, str]:
    """Returns the command that tests what is undecided on further pairs, and what it rests on; or,
    where the run cannot be continued, the one that shows it, and why."""
    place = shell_path(run.place)
    try:
        pairs = pairs_for_verdicts(run)
    except RaysearchError as e:
        return f"raysearch view {place} --open", f"no further pairs: {e}"
    drawn = read_job(run.folder).get("problem", {}).get("use")
    why = "if the problem still draws the same pairs" if drawn else ""
    return f"raysearch resume {place} --more-pairs {pairs}", why


def print_claim(run: RunFolder, console: Console) -> None:
    """Prints what an accept of the run says, and what it does not. Raises: StoreError."""
    console.print()
    print_line(read_claim(run.folder), console)


def print_controls(found: Sequence[ControlComparison], console: Console) -> None:
    """Prints each accepted hypothesis with its controls, and warns of each whose control does as
    well."""
    names = [name for name in (*COLUMNS, *JOB_CONTROLS) if any(name in b.iia for b in found)]
    names = sorted(names, key=lambda name: name in HOLDOUT_CONTROLS)  # beside the holdout's IIA
    names.insert(sum(name not in HOLDOUT_CONTROLS for name in names), "holdout")
    cells = []
    for b in sorted(found, key=lambda b: place_key(b.row)):
        known = {"holdout": b.row["holdout_iia"], **b.iia}
        figures = {"iia": b.row["iia"]} | {name: known.get(name) for name in names}
        shown = {name: "-" if v is None else f"{v:.3f}" for name, v in figures.items()}
        cells.append(place_cells(b.row) | shown)
    columns = used_columns(cells)
    same = {row["component"] for row in cells}
    said = ["right of holdout, on its pairs"] if "holdout" in columns else []
    if len(cells) > 1 and len(same) == 1 and "component" in columns:
        columns.remove("component")
        said.insert(0, f"component {same.pop()}")
    title = ": ".join(filter(None, ("Controls (IIA)", "; ".join(said))))
    right = ("layer", "head", "iia", *names)
    last = (*reversed(names), "subspace", "component")
    print_cells(cells, columns, console, title, right=right, last=last)
    for line in [b.warning for b in found if b.warning]:
        print_line(f"warning: {line}", console, "yellow")


def _print_list(table: pa.Table) -> None:
    """Prints a list as `json.dumps(rows, indent=2)` would, a row at a time."""
    before = "["
    for row in Rows(table):
        emit_text(before + "\n" + indent(to_json(row, 2), "  "), end="")
        before = ","
    emit_text("\n]" if table.num_rows else "[]")
