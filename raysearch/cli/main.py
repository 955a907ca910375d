"""`raysearch`: the commands and their flags. What they do stands in the files beside; nothing heavy is imported before it is needed.

Invariants: data on stdout, everything else on stderr; a user's mistake is one line and an exit code, ours a full traceback.
"""

import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

import click

from raysearch import __version__
from raysearch.cli.compact import compact
from raysearch.cli.deploy import deploy
from raysearch.cli.doctor import doctor
from raysearch.cli.flags import children as _children
from raysearch.cli.flags import errors as _errors
from raysearch.cli.flags import job as _job
from raysearch.cli.flags import no_color as _no_color
from raysearch.cli.flags import quiet as _quiet
from raysearch.cli.flags import run as _run
from raysearch.cli.flags import searching as _searching
from raysearch.cli.flags import set_verbosity
from raysearch.cli.flags import sets as _sets
from raysearch.cli.flags import store as _store
from raysearch.cli.flags import verbose as _verbose
from raysearch.cli.interrupt import INTERRUPTED
from raysearch.cli.schema import schema
from raysearch.cli.sync import sync
from raysearch.errors import RaysearchError

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110, "auto_envvar_prefix": "RAYSEARCH"}
"""Every flag is also a variable, such as RAYSEARCH_RESULTS_TOP; --set alone is not, for no variable may change an answer."""


def main() -> None:
    """The entry point: runs the command and turns what is raised into one line and an exit code."""
    logging.basicConfig(format="raysearch: %(message)s", level=logging.WARNING)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = cli.main(prog_name="raysearch", standalone_mode=False)
    except RaysearchError as e:
        click.echo(f"raysearch: {e}", err=True)
        code = e.exit_code
    except click.exceptions.Abort:  # what click makes of Ctrl-C before a search has begun
        click.echo("raysearch: interrupted", err=True)
        code = INTERRUPTED
    except click.ClickException as e:
        e.show()
        code = e.exit_code
    except KeyboardInterrupt:  # before a search has begun; later it is asked for between turns (interrupt.py)
        click.echo("raysearch: interrupted", err=True)
        code = INTERRUPTED
    sys.exit(code or 0)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@click.group(context_settings=CONTEXT)
@click.version_option(__version__, prog_name="raysearch")
def cli() -> None:
    """Where in this network does that variable live? Alignment search with error control.

    Begin with `raysearch plan JOB.yaml`, then `raysearch submit JOB.yaml`.
    """


@cli.command()
@_job
@_sets
@click.option("--address", envvar="RAY_API_SERVER_ADDRESS", help="A Ray cluster's job server (not yet supported).")
@_searching
def submit(job: Path, sets: tuple[str, ...], address: str | None, **flags: Any) -> int:
    """Run a search on this machine, on a Ray of its own, and follow it to its end."""
    from raysearch.cli.run import Where, begin
    from raysearch.errors import NotYetError

    if address:
        raise NotYetError(
            f"--address {address}: submitting to a cluster is not yet supported by this version; "
            "leave it out (and unset RAY_API_SERVER_ADDRESS) to search on this machine, or use `raysearch run --address`"
        )
    set_verbosity(flags)
    return begin(job, sets, Where(pool="ray", address=None, **flags))


@cli.command()
@_job
@_sets
@click.option(
    "--address",
    envvar="RAYSEARCH_ADDRESS",
    help="The Ray cluster to use. Default: the one this stands in, else its own.",
)
@click.option(
    "--pool",
    type=click.Choice(["ray", "local"]),
    envvar="RAYSEARCH_POOL",
    default="ray",
    show_default=True,
    help="ray: actors; local: one replica in this process, without Ray.",
)
@_searching
def run(job: Path, sets: tuple[str, ...], address: str | None, pool: str, **flags: Any) -> int:
    """Run the driver itself, in the foreground."""
    from raysearch.cli.run import Where, begin

    if pool == "local" and address:
        raise click.UsageError(f"--pool local uses no Ray, so --address {address} has no meaning; give one of the two")
    set_verbosity(flags)
    return begin(job, sets, Where(pool=pool, address=address or os.environ.get("RAY_ADDRESS"), **flags))


@cli.command()
@_run
@click.option(
    "--address",
    envvar="RAYSEARCH_ADDRESS",
    help="The Ray cluster to use. Default: the one this stands in, else its own.",
)
@click.option("--pool", type=click.Choice(["ray", "local"]), envvar="RAYSEARCH_POOL", default="ray", show_default=True)
@click.option(
    "--tracking-uri",
    envvar="RAYSEARCH_TRACKING_URI",
    help="Credentials for the run's own tracking server, which run.json does not keep: its URI with user:password@.",
)
@click.option("--retry-failed", is_flag=True, help="Try failed hypotheses again (not yet supported).")
@_store
@_errors
@_children
@_quiet
@_verbose
@_no_color
def resume(run: str, address: str | None, pool: str, tracking_uri: str | None, retry_failed: bool, **flags: Any) -> int:
    """Go on where the journal of RUN ends (a folder or URI, its name in the store, or "latest")."""
    from raysearch.errors import NotYetError

    if retry_failed:
        raise NotYetError("--retry-failed: not yet supported by this version; submit the job again")
    from raysearch.cli.run import Where, go_on

    set_verbosity(flags)
    where = Where(pool=pool, address=address or os.environ.get("RAY_ADDRESS"), tracking_uri=tracking_uri or "", **flags)
    return go_on(run, where)


@cli.command()
@_job
@_sets
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@_quiet
@_verbose
@_no_color
def plan(job: Path, sets: tuple[str, ...], output: str, **flags: Any) -> int:
    """Check a job and say what it would do: hypotheses, expected pairs, chances. Runs no search."""
    from raysearch.cli.plan import plan_job

    set_verbosity(flags)
    click.echo(plan_job(job, sets, output))
    return 0


@cli.command()
@_run
@_store
@click.option("--accepted", is_flag=True, help="Only the alignment: accepted hypotheses.")
@click.option("--variable", metavar="V", help="Only this variable.")
@click.option("--where", metavar="EXPR", help='A condition in SQL, such as "layer > 10 and iia >= 0.9".')
@click.option("--top", type=click.IntRange(min=1), metavar="N", help="The first N.")
@click.option("--controls", is_flag=True, help="Controls too.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json", "jsonl", "csv", "parquet"]),
    default="table",
    show_default=True,
)
@_quiet
@_verbose
@_no_color
def results(run: str, store: str, output: str, quiet: bool, verbose: bool, no_color: bool, **choice: Any) -> int:
    """The hypotheses of RUN and their verdicts, on stdout."""
    from raysearch.cli.show import show_results

    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `results ... | head` ends as other tools of the shell do
    from raysearch.store.run_folder import find_run

    set_verbosity({"verbose": verbose})
    show_results(find_run(store, run).folder, output, no_color, **choice)
    return 0


@cli.command()
@_run
@click.argument("hypothesis", required=False)
@click.option("--to", type=click.Path(path_type=Path, file_okay=False), required=True, help="The folder to write.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["raysearch", "mib", "pyvene"]),
    default="raysearch",
    show_default=True,
    help="mib: a submission of MIB's causal-variable track, of the whole alignment where no HYPOTHESIS is named; "
    "pyvene: what pyvene 0.1.8 loads.",
)
@click.option("--task", metavar="NAME", help="With mib: the task, as MIB calls it. Default: the job's problem.")
@click.option(
    "--model-name", metavar="NAME", help="With mib: the model's class, as MIB has it. Default: the model's folder."
)
@click.option("--push-to-hub", metavar="OWNER/NAME", help="Put it on the Hugging Face hub too, in this repository.")
@click.option(
    "--private/--public", default=None, help="Of a repository that is made. Default: as its owner's settings say."
)
@_store
@_quiet
@_verbose
@_no_color
def export(
    run: str,
    hypothesis: str | None,
    to: Path,
    form: str,
    task: str | None,
    model_name: str | None,
    push_to_hub: str | None,
    private: bool | None,
    store: str,
    **flags: Any,
) -> int:
    """Write the intervention of HYPOTHESIS (its id, or the beginning of it) in RUN to a folder that can be shared."""
    if private is not None and push_to_hub is None:
        raise click.UsageError("--private and --public are about --push-to-hub OWNER/NAME; give it too")
    if form != "raysearch" and push_to_hub is not None:
        raise click.UsageError("--push-to-hub puts one hypothesis there, in our own format; leave --format out")
    if form != "mib" and (task or model_name):
        raise click.UsageError("--task and --model-name are about --format mib; give it too")
    if form != "mib" and hypothesis is None:
        raise click.UsageError("Missing argument 'HYPOTHESIS': `raysearch results RUN -o json` has their ids")
    from raysearch.store.run_folder import find_run

    set_verbosity(flags)
    if form == "mib":
        from raysearch.cli.export_mib import export_mib

        for unit in export_mib(find_run(store, run), hypothesis, to, task, model_name):
            click.echo(str(to / unit))
        return 0
    from raysearch.cli.export import export as write
    from raysearch.cli.export import push
    from raysearch.cli.export_mib import export_pyvene

    assert hypothesis is not None
    if form == "pyvene":
        export_pyvene(find_run(store, run), hypothesis, to)
    else:
        write(find_run(store, run), hypothesis, to)
    click.echo(str(to))
    if push_to_hub is not None:
        click.echo(f"{push_to_hub}@{push(to, push_to_hub, private)}")
    return 0


@cli.command("import")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--to", type=click.Path(path_type=Path, file_okay=False), required=True, help="The folder to write.")
@_quiet
@_verbose
@_no_color
def import_(folder: Path, to: Path, **flags: Any) -> int:
    """Read a submission FOLDER of MIB's causal-variable track; each unit becomes a folder that raysearch loads."""
    from raysearch.cli.export_mib import import_mib

    set_verbosity(flags)
    for path in import_mib(folder, to):
        click.echo(str(path))
    return 0


cli.add_command(compact)
cli.add_command(deploy)
cli.add_command(doctor)
cli.add_command(schema)
cli.add_command(sync)
