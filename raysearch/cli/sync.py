"""`raysearch sync`: a run once more into its tracker, by its journal."""

from typing import Any

import click

from raysearch.cli.flags import children, loudness, run, set_verbosity, store
from raysearch.errors import TrackingError
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
    from raysearch.tracking.uris import tracking_uri as absolute

    set_verbosity(flags)
    found = find_run(store, run)
    uri = found.info.tracking_uri if tracking_uri is None else absolute(tracking_uri)
    if uri is None:
        raise TrackingError(
            f"run {found.info.id}: no tracker was told of it; give --tracking-uri where it is to go"
        )
    with found.lock():
        said = sync_run(found, uri, tracked_children)
    if not quiet:
        click.echo(visible(said), err=True)
    return 0
