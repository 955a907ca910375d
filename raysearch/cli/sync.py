"""Defines `raysearch sync`, which sends a run to its tracker once more, from its journal."""

from dataclasses import asdict
from typing import Any

import click

from raysearch.cli.flags import children, loudness, output, run, set_verbosity, store
from raysearch.visible_text import visible


@click.command()
@run
@click.option(
    "--tracking-uri",
    envvar="RAYSEARCH_TRACKING_URI",
    help="The tracking URI. Default: the run's own.",
)
@output()
@store
@children
@loudness
def sync(
    run: str,
    tracking_uri: str | None,
    output: str,
    store: str,
    tracked_children: int,
    quiet: bool,
    **flags: Any,
) -> int:
    """Replay RUN into its tracker, when that was down or was kept out. Needs no model; says nothing
    twice."""
    from raysearch.cli.json_output import emit
    from raysearch.cli.terminal import lead, shell_path
    from raysearch.runner.session.sync import sync_run
    from raysearch.store.run_folder import find_run

    set_verbosity(flags)
    found = find_run(store, run)
    synced = sync_run(found, tracking_uri, tracked_children)
    if output == "json":
        emit("sync", run=found.place, **asdict(synced))
    elif not quiet:
        click.echo(visible(synced), err=True)
    lead(f"raysearch results {shell_path(found.place)}", quiet)
    return 0
