"""Defines the command `raysearch` with the commands of a search; others are in the files beside it.

Invariants: data on stdout, everything else on stderr; a user's mistake is one line and an exit
code, ours a full traceback; nothing heavy is imported before it is needed.
"""

import io
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

import click

from raysearch._version import __version__
from raysearch.cli import flags
from raysearch.cli import jobs as watching
from raysearch.cli import share as sharing
from raysearch.cli.compact import compact
from raysearch.cli.deploy import deploy
from raysearch.cli.doctor import doctor
from raysearch.cli.example import example
from raysearch.cli.init import init
from raysearch.cli.repair import repair
from raysearch.cli.report import report
from raysearch.cli.runs import runs
from raysearch.cli.schema import schema
from raysearch.cli.streams import NAMES, fault, missing_package_line, open_streams
from raysearch.cli.sync import sync
from raysearch.cli.view import view
from raysearch.errors import RaysearchError
from raysearch.runner.session.interrupt import INTERRUPTED
from raysearch.visible_text import OneLine, one_line, visible_lines

CONTEXT = {
    "help_option_names": ["-h", "--help"],
    "max_content_width": 110,
    "auto_envvar_prefix": "RAYSEARCH",
}
"""Every flag is also a variable, such as RAYSEARCH_RESULTS_TOP; --set alone is not, for no variable
may change an answer."""


COMPLETE = "_RAYSEARCH_COMPLETE"
"""The variable by which a shell asks click for completions."""


def main() -> None:
    """Runs the command, and turns exceptions into one line and an exit code."""
    handler = logging.StreamHandler()
    handler.setFormatter(OneLine("raysearch: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with open_streams():
            code = cli.main(prog_name="raysearch", standalone_mode=False)
    except BaseException as e:
        code = _exit_code(e)
        if code is None:
            raise
    sys.exit(code or 0)


def _exit_code(error: BaseException) -> int | None:
    """Says in one line what ended the command, and returns its exit code; None for a fault of
    ours."""
    match error:
        case RaysearchError():
            for line in (f"raysearch: {error}", *getattr(error, "__notes__", ())):
                click.echo(line, err=True)
            return error.exit_code
        case click.exceptions.Exit():  # of a broken pipe: `raysearch ... | head`
            return error.exit_code
        case click.ClickException():
            shown = io.StringIO()  # holds the typed text, which a script may have from anywhere
            error.show(shown)
            click.echo(visible_lines(shown.getvalue()), err=True, nl=False)
            return error.exit_code
        case click.exceptions.Abort() | KeyboardInterrupt():
            # Before a search has begun; later, interrupt.py handles it between steps.
            line, code = "interrupted", INTERRUPTED
        case ModuleNotFoundError() if not (error.name or "").startswith("raysearch"):
            line, code = missing_package_line(error), 1
        case SystemExit() if COMPLETE not in os.environ:  # click ends so after completing a word
            said = "code that the job names called sys.exit"
            line, code = f"{said}({error.code!r}); it must return or raise", 1
        case MemoryError() | OSError() if (text := fault(error)) is not None:
            line, code = text, 2 if getattr(error, "errno", None) in NAMES else 1
        case Exception() | SystemExit():
            return None
        case _:
            said = f"code that the job names raised {type(error).__name__}: {one_line(error)}"
            line, code = f"{said}; it must raise an Exception", 1
    click.echo(f"raysearch: {visible_lines(line)}", err=True)
    return code


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@click.group(context_settings=CONTEXT)
@click.version_option(__version__, prog_name="raysearch")
def cli() -> None:
    """Finds where in a network a causal variable lives: alignment search with error control.

    Begin with `raysearch plan JOB.yaml`, then `raysearch submit JOB.yaml`; `raysearch example`
    writes a job to try, `raysearch init` a problem and a job of your own to begin with.

    Every flag is also a variable, such as RAYSEARCH_STORE, or RAYSEARCH_RESULTS_TOP for one
    command; --set alone is not.

    Exit codes: 0 done; 1 failed; 2 usage or job file; 3 done, but too many hypotheses failed; 4
    cannot connect, or not allowed; 5 the cluster cannot give the resources; 130 interrupted:
    `raysearch resume` goes on.
    """


@cli.command()
@flags.job
@flags.sets
@click.option(
    "--address",
    envvar="RAY_API_SERVER_ADDRESS",
    metavar="URL",
    help="A Ray cluster's job server, http://HEAD:8265. Default: a Ray of its own, on this "
    "machine.",
)
@flags.sent
@click.option(
    "--include",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Of a Ray job: send this file or folder too, which the job's own code reads. Repeatable.",
)
@click.option(
    "--on-nodes",
    multiple=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Of a Ray job: the nodes have this folder at this path; what the job names in it is not "
    "sent. Repeatable.",
)
@flags.output()
@flags.searching
def submit(
    job: Path,
    sets: tuple[str, ...],
    address: str | None,
    include: tuple[Path, ...],
    on_nodes: tuple[Path, ...],
    output: str,
    **given: Any,
) -> int:
    """Run a search on this machine, on a Ray of its own, or as a job of a Ray cluster, and follow
    it to its end."""
    if address:
        from raysearch.cli.job_output import follow_submission
        from raysearch.cli.terminal import say
        from raysearch.runner.submission.submit import Submission, submit_job

        wait = given.pop("wait")
        sending = Submission(address=address, say=say, **given)
        return follow_submission(*submit_job(job, sets, include, on_nodes, sending), wait, output)
    given = flags.without_job(given)
    from raysearch.cli.run import CommandOptions, start

    flags.set_verbosity(given)
    where = CommandOptions(pool="ray", address=None, output=output, command="submit", **given)
    return start(job, sets, where)


@cli.command()
@flags.job
@flags.sets
@click.option(
    "--address",
    envvar="RAYSEARCH_ADDRESS",
    help="The Ray cluster to use. Default: the one this stands in, else its own.",
)
@flags.pool
@flags.output()
@flags.searching
def run(job: Path, sets: tuple[str, ...], address: str | None, pool: str, **given: Any) -> int:
    """Run the driver itself, in the foreground."""
    from raysearch.cli.run import CommandOptions, start

    if pool == "local" and address:
        raise click.UsageError(
            f"--pool local uses no Ray, so --address {address} has no meaning; give one of the two"
        )
    flags.set_verbosity(given)
    return start(
        job,
        sets,
        CommandOptions(pool=pool, address=address or os.environ.get("RAY_ADDRESS"), **given),
    )


@cli.command()
@flags.run
@click.option(
    "--address",
    envvar="RAYSEARCH_ADDRESS",
    help="The Ray cluster to use; http://HEAD:8265 makes it a Ray job there. Default: the one this "
    "stands in, else its own.",
)
@flags.pool
@flags.sent
@click.option(
    "--tracking-uri",
    envvar="RAYSEARCH_TRACKING_URI",
    help="Credentials for the run's own tracking server, which run.json does not keep: its URI "
    "with user:password@.",
)
@click.option(
    "--retry-failed",
    is_flag=True,
    help="Try the hypotheses that failed again; whatever else was seen stays as it is.",
)
@click.option(
    "--more-pairs",
    type=click.IntRange(min=1),
    metavar="N",
    help="Continue a run that is done: what is undecided is tested on up to N further pairs.",
)
@flags.output()
@flags.store
@flags.errors
@flags.children
@flags.loudness
def resume(
    run: str,
    address: str | None,
    pool: str,
    tracking_uri: str | None,
    retry_failed: bool,
    more_pairs: int | None,
    output: str,
    **given: Any,
) -> int:
    """Go on where the journal of RUN ends. RUN is a folder or URI, "latest" (or "latest~1", the one
    before), the name of a job, or the beginning of a run's name in the store."""
    if address and address.startswith(("http://", "https://")):
        from raysearch.cli.job_output import follow_submission
        from raysearch.cli.terminal import say
        from raysearch.runner.submission.submit import Submission, resume_job

        wait = given.pop("wait")
        sending = Submission(address=address, tracking_uri=tracking_uri, say=say, **given)
        return follow_submission(*resume_job(run, sending, retry_failed, more_pairs), wait, output)
    given = flags.without_job(given)
    from raysearch.cli.run import CommandOptions, resume

    flags.set_verbosity(given)
    where = CommandOptions(
        pool=pool,
        address=address or os.environ.get("RAY_ADDRESS"),
        tracking_uri=tracking_uri or "",
        output=output,
        command="resume",
        **given,
    )
    return resume(run, where, retry_failed, more_pairs)


@cli.command()
@flags.job
@flags.sets
@flags.output()
@click.option(
    "--calibrate",
    is_flag=True,
    help="Load the model here, time a few tasks, and say how long the search would take.",
)
@flags.loudness
def plan(job: Path, sets: tuple[str, ...], output: str, calibrate: bool, **given: Any) -> int:
    """Check a job and say what it would do: hypotheses, expected pairs, chances, memory. Runs no
    search."""
    from raysearch.cli.plan import show_plan

    flags.set_verbosity(given)
    show_plan(job, sets, output, calibrate, given["quiet"])
    return 0


@cli.command()
@flags.run
@flags.store
@click.option("--accepted", is_flag=True, help="Only the alignment: accepted hypotheses.")
@click.option("--variable", metavar="V", help="Only this variable.")
@click.option(
    "--where", metavar="EXPR", help='A condition in SQL, such as "layer > 10 and iia >= 0.9".'
)
@click.option(
    "--top",
    type=click.IntRange(min=1),
    metavar="N",
    help="N rows alone: the accepted first, then by IIA.",
)
@click.option("--controls", is_flag=True, help="Controls too.")
@click.option("--sets", is_flag=True, help="A row for each set of pairs of a hypothesis.")
@flags.output("table", "json", "jsonl", "csv", "parquet")
@flags.loudness
def results(
    run: str, store: str, output: str, quiet: bool, verbose: bool, no_color: bool, **choice: Any
) -> int:
    """The hypotheses of RUN and their verdicts, on stdout."""
    from raysearch.cli.results import show_results
    from raysearch.store.run_folder import find_run

    flags.set_verbosity({"verbose": verbose})
    show_results(find_run(store, run), output, no_color, quiet, **choice)
    return 0


for command in (
    *(runs, watching.status, watching.logs, watching.stop, watching.jobs),
    *(
        report,
        view,
        sharing.export,
        sharing.import_,
        compact,
        repair,
        sync,
        deploy,
        doctor,
        schema,
        example,
        init,
    ),
):
    cli.add_command(command)
