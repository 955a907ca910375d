"""Defines the commands `status`, `logs`, `stop` and `jobs`.

Invariants: `job_output.py` prints; nothing heavy is imported before it is needed.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from raysearch.cli import flags
from raysearch.storage.uris import is_uri

if TYPE_CHECKING:
    from raysearch.store.run_folder import RunFolder

_address = click.option(
    "--address",
    envvar="RAY_API_SERVER_ADDRESS",
    metavar="URL",
    default=flags.LOCAL_SERVER,
    show_default=True,
    help="The cluster's job server.",
)
_output = flags.output("table", "json")


def _complete(context: click.Context, _: Any, text: str) -> list[str]:
    from raysearch.cli.job_output import job_ids

    return job_ids(context.params.get("address") or flags.LOCAL_SERVER, text)


_id = click.argument("id", metavar="ID", shell_complete=_complete)


@click.command()
@click.argument("id", metavar="[ID]", default="latest", shell_complete=_complete)
@_address
@flags.store
@_output
@flags.loudness
def status(id: str, address: str, store: str, output: str, **given: Any) -> int:
    """Show the status of the Ray job ID (a beginning of its id will do; default: the newest), and
    where its run is.

    Without an --address, ID may be a run of this machine too: a folder or URI, its name in the
    store, or "latest".
    """
    flags.set_verbosity(given)
    run = None if flags.is_given("address") else _run(id, store)
    if run is not None:
        from raysearch.cli.json_output import emit
        from raysearch.cli.terminal import in_lines, lead
        from raysearch.runner.session.status import (
            RESUMABLE,
            local_facts,
            local_status,
            next_command,
        )

        facts = local_facts(run)
        if output == "json":
            emit("status", **facts)
        else:
            click.echo(in_lines(local_status(run)))
        said = output != "json" and facts["state"] in RESUMABLE
        lead(next_command(run), given["quiet"] or said)
        return 0
    from raysearch.cli.job_output import show_status
    from raysearch.errors import ClusterError

    try:
        return show_status(address, id, output, given["quiet"])
    except ClusterError as e:
        if flags.is_given("address"):
            raise
        raise ClusterError(
            f"there is no run {id!r}, neither as a path nor in store {store}; and of jobs: {e}"
        ) from e


def _run(name: str, store: str) -> "RunFolder | None":
    """Returns the run of that name, or None."""
    from raysearch.store.run_folder import find_run, run_names, runs_named

    known = is_uri(name) or Path(name).is_dir() or runs_named(name, run_names(store))
    return find_run(store, name) if known else None


@click.command()
@_id
@click.option(
    "-f", "--follow", is_flag=True, help="Go on until it ends; the exit code is the driver's own."
)
@_address
@flags.output()
@flags.loudness
def logs(id: str, follow: bool, address: str, output: str, **given: Any) -> int:
    """Print what the driver of the Ray job ID has said."""
    from raysearch.cli.job_output import show_log

    flags.set_verbosity(given)
    return show_log(address, id, follow, output, given["quiet"])


@click.command()
@_id
@_address
@flags.output()
@flags.loudness
def stop(id: str, address: str, output: str, **given: Any) -> int:
    """Stop the Ray job ID, wait until its books are closed, and say how to go on."""
    from raysearch.cli import job_output

    flags.set_verbosity(given)
    return job_output.stop(address, id, output)


@click.command()
@_address
@_output
@flags.loudness
def jobs(address: str, output: str, **given: Any) -> int:
    """The Ray jobs of raysearch on a cluster, the newest first."""
    from raysearch.cli.job_output import show_jobs

    flags.set_verbosity(given)
    return show_jobs(address, output, given["no_color"], given["quiet"])
