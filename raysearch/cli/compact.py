"""Defines `raysearch compact`, which merges each table of a finished run into one part."""

from dataclasses import asdict
from typing import Any

import click

from raysearch.cli.flags import loudness, output, run, set_verbosity, store


@click.command()
@run
@output()
@store
@loudness
def compact(run: str, output: str, store: str, quiet: bool, **flags: Any) -> int:
    """Merge the parts of each table of RUN into one. Results stay the same; RUN must be done."""
    from raysearch.cli.json_output import emit
    from raysearch.cli.terminal import lead, shell_path
    from raysearch.store.compact import compact as merge
    from raysearch.store.run_folder import find_run
    from raysearch.visible_text import visible

    set_verbosity(flags)
    found = find_run(store, run)
    tables = []
    with found.lock():
        for merged in merge(found):
            tables.append(asdict(merged))
            if not quiet:
                click.echo(
                    f"{visible(merged.table):<13} {merged.rows} rows: {merged.before} -> 1 part",
                    err=True,
                )
    if output == "json":
        emit("compact", run=found.place, tables=tables)
    lead(f"raysearch results {shell_path(found.place)}", quiet)
    return 0
