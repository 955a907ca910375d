"""`raysearch status`, `logs`, `stop`, `jobs`: the flags of what is asked about jobs on a cluster.

Invariants: what they do stands in `ray_jobs.py`; nothing heavy is imported before it is needed.
"""

from typing import Any

import click

from raysearch.cli import flags

_address = click.option(
    "--address",
    envvar="RAY_API_SERVER_ADDRESS",
    metavar="URL",
    default="http://127.0.0.1:8265",
    show_default=True,
    help="The cluster's job server.",
)
_output = click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)


def _complete(context: click.Context, _: Any, text: str) -> list[str]:
    from raysearch.cli.ray_jobs import job_ids

    return job_ids(context.params.get("address") or "http://127.0.0.1:8265", text)


_id = click.argument("id", metavar="ID", shell_complete=_complete)


@click.command()
@click.argument("id", metavar="[ID]", default="latest", shell_complete=_complete)
@_address
@_output
@flags.loudness
def status(id: str, address: str, output: str, **given: Any) -> int:
    """How the Ray job ID stands (the beginning of its id will do; default: the newest), and where its run is."""
    from raysearch.cli.ray_jobs import show_status

    flags.set_verbosity(given)
    return show_status(address, id, output)


@click.command()
@_id
@click.option("-f", "--follow", is_flag=True, help="Go on until it ends; the exit code is the driver's own.")
@_address
@flags.loudness
def logs(id: str, follow: bool, address: str, **given: Any) -> int:
    """What the driver of the Ray job ID has said, on stdout."""
    from raysearch.cli.ray_jobs import show_log

    flags.set_verbosity(given)
    return show_log(address, id, follow)


@click.command()
@_id
@_address
@flags.loudness
def stop(id: str, address: str, **given: Any) -> int:
    """Stop the Ray job ID, wait until its books are closed, and say how to go on."""
    from raysearch.cli.ray_jobs import stop_job

    flags.set_verbosity(given)
    return stop_job(address, id)


@click.command()
@_address
@_output
@flags.loudness
def jobs(address: str, output: str, **given: Any) -> int:
    """The Ray jobs of raysearch on a cluster, the newest first."""
    from raysearch.cli.ray_jobs import show_jobs

    flags.set_verbosity(given)
    return show_jobs(address, output, given["no_color"])
