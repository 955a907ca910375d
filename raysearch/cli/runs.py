"""Defines `raysearch runs`, which lists the runs of a store."""

import shlex
from typing import Any

import click

from raysearch.cli import flags
from raysearch.store.locations import DEFAULT_STORE


@click.command()
@flags.in_store
@flags.output("table", "json")
@flags.loudness
def runs(
    place: str | None, store: str, output: str, quiet: bool, no_color: bool, **given: Any
) -> int:
    """List the runs of STORE, the newest first: state, verdicts so far, chance of a false
    accept."""
    from raysearch.cli.hypothesis_table import print_cells
    from raysearch.cli.json_output import JSON_KEYS, emit_value
    from raysearch.cli.terminal import console, lead, say
    from raysearch.store.run_folder import run_names
    from raysearch.viewer.run_state import run_line

    flags.set_verbosity(given)
    folder, store = flags.store_of(place, store), place or store
    lines = [run_line(folder, name) for name in reversed(run_names(folder))]
    keys = JSON_KEYS["runs"][1]
    rows = [{key: line.get(key) for key in keys} for line in lines]
    if output == "json":
        emit_value(rows)
    elif rows:
        numbers = ("accepted", "rejected", "undecided", "failed", "alive")
        cells = [{k: "-" if row[k] is None else str(row[k]) for k in keys} for row in rows]
        columns = ["id", "state", *numbers, "level", "model"]
        shown = [c for c in columns if c != "failed" or any(row[c] for row in rows)]
        last = ("model", "level", *reversed(numbers), "state")
        print_cells(cells, shown, console(no_color), right=(*numbers, "level"), last=last)
        for line in lines:
            if "error" in line:
                say(f"{line['id']}: {line['error']}")
    else:
        say(f"store {folder.place}: holds no runs yet")
    here = "" if store == DEFAULT_STORE else f" --store {shlex.quote(store)}"
    lead(f"raysearch results latest{here}" if rows else "raysearch submit JOB.yaml", quiet)
    return 0
