"""Defines `raysearch repair`, which writes damaged or lost files of a run anew from its journal."""

from typing import Any

import click

from raysearch.cli.flags import loudness, output, run, set_verbosity, store


@click.command()
@run
@output()
@store
@loudness
def repair(run: str, output: str, store: str, quiet: bool, **flags: Any) -> int:
    """Write what is damaged or lost of the tables of RUN anew from its journal. Needs no model,
    runs no code of the run."""
    from raysearch.cli.json_output import emit
    from raysearch.cli.terminal import lead, shell_path
    from raysearch.runner.stored_run.repair import repair as write_anew
    from raysearch.store.run_folder import find_run
    from raysearch.store.run_history import last_driver
    from raysearch.visible_text import visible

    set_verbosity(flags)
    found = find_run(store, run)
    with found.lock():
        repaired = write_anew(found)
    if not quiet:
        for file in repaired.files:
            click.echo(visible(f"repaired  {file}"), err=True)
        line = (
            f"run       {found.place}: {repaired.among} files with digests, all as they were "
            "written"
        )
        click.echo(visible(line), err=True)
    if output == "json":
        emit("repair", run=found.place, files=list(repaired.files), among=repaired.among)
    done = (last := last_driver(found)) is not None and last.ended == "done"
    lead(
        f"raysearch {'results' if done else 'resume'} {shell_path(found.place)}",
        quiet,
    )
    return 0
