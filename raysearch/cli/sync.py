"""`raysearch sync`: a run once more into its tracker, by its journal."""

from typing import Any

import click

from raysearch.cli.flags import children, loudness, run, set_verbosity, store
from raysearch.visible_text import visible


@click.command()
@run
@click.option(
    "--tracking-uri",
    envvar="RAYSEARCH_TRACKING_URI",
    help="The tracking URI. Default: the run's own.",
)
@store
@children
@loudness
def sync(
    run: str, tracking_uri: str | None, store: str, tracked_children: int, quiet: bool, **flags: Any
) -> int:
    """Replay RUN into its tracker, when that was down or was kept out. Needs no model; says nothing
    twice."""
    from raysearch.runner.sync import sync_run
    from raysearch.store.run_folder import find_run

    set_verbosity(flags)
    line = sync_run(find_run(store, run), tracking_uri, tracked_children)
    if not quiet:
        click.echo(visible(line), err=True)
    return 0
