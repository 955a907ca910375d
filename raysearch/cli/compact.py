"""`raysearch compact`: the tables of a finished run, each as one part."""

from typing import Any

import click

from raysearch.cli.flags import loudness, run, set_verbosity, store


@click.command()
@run
@store
@loudness
def compact(run: str, store: str, quiet: bool, **flags: Any) -> int:
    """Merge the parts of each table of RUN into one. Results stay the same; RUN must be done."""
    from raysearch.store.compact import compact as merge
    from raysearch.store.run_folder import find_run
    from raysearch.visible_text import visible

    set_verbosity(flags)
    found = find_run(store, run)
    with found.lock():
        for merged in merge(found):
            if not quiet:
                click.echo(
                    f"{visible(merged.table):<13} {merged.rows} rows: {merged.before} -> 1 part",
                    err=True,
                )
    return 0
