"""Defines the flags that several commands share.

Invariants: nothing heavy is imported before a flag is used.
"""

import logging
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click
from click.core import ParameterSource

from raysearch.cli.json_output import data_alone
from raysearch.core.option_names import PoolName
from raysearch.errors import RaysearchError
from raysearch.store.locations import DEFAULT_STORE

if TYPE_CHECKING:
    from raysearch.storage.folder import Folder

LOCAL_SERVER = "http://127.0.0.1:8265"
"""The job server that is asked where no --address is given."""

_WORD = re.compile(r"[\w.][\w.~-]*")


def flags(*decorators: Callable[..., Any]) -> Callable[..., Any]:
    """Combines several decorators, in the order given."""

    def decorate(function: Any) -> Any:
        for flag in reversed(decorators):
            function = flag(function)
        return function

    return decorate


job = click.argument("job", type=click.Path(path_type=Path))
run = click.argument(
    "run", metavar="RUN", shell_complete=lambda ctx, _, text: _complete_runs(ctx, text)
)
sets = click.option(
    "--set",
    "sets",
    multiple=True,
    allow_from_autoenv=False,
    metavar="KEY=VALUE",
    help="Set a key of the job, typed as YAML. Repeatable.",
)
store = click.option(
    "--store",
    envvar="RAYSEARCH_STORE",
    default=DEFAULT_STORE,
    show_default=True,
    metavar="URI",
    help="Where runs are kept: a folder, or s3://BUCKET/PREFIX, gs://..., abfs://....",
)
in_store = flags(
    click.argument("place", required=False, metavar="[STORE]"),
    store,
)
"""A store as an argument or as --store; `store_of` says which."""
tracking = click.option(
    "--tracking-uri",
    envvar="RAYSEARCH_TRACKING_URI",
    default="sqlite:///mlflow.db",
    show_default=True,
    help='MLflow tracking URI; "none" keeps MLflow out.',
)
errors = click.option(
    "--fail-on-error",
    envvar="RAYSEARCH_FAIL_ON_ERROR",
    type=click.FloatRange(0, 1),
    default=0.05,
    show_default=True,
    help="Exit with 3 if more than this share of the hypotheses failed.",
)
children = click.option(
    "--mlflow-children",
    "tracked_children",
    envvar="RAYSEARCH_MLFLOW_CHILDREN",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    help="At most so many accepted hypotheses get an MLflow run of their own, below the search's.",
)
quiet = click.option(
    "-q", "--quiet", is_flag=True, envvar="RAYSEARCH_QUIET", help="No progress, no summary."
)
verbose = click.option(
    "-v",
    "--verbose",
    is_flag=True,
    envvar="RAYSEARCH_VERBOSE",
    help="Tell of every loss and retry.",
)
no_color = click.option("--no-color", is_flag=True, envvar="RAYSEARCH_NO_COLOR", help="No colours.")
loudness = flags(quiet, verbose, no_color)


def output(*choices: str) -> Callable[..., Any]:
    """Returns the flag that chooses how data is written, the first of `choices` by default."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(choices or ("text", "json")),
        default=(choices or ("text",))[0],
        show_default=True,
        callback=data_alone,
        help="json: for scripts, JSON alone on stdout and all else on stderr.",
    )


searching = flags(store, tracking, errors, children, loudness)
pool = click.option(
    "--pool",
    type=click.Choice(get_args(PoolName)),
    envvar="RAYSEARCH_POOL",
    default="ray",
    show_default=True,
    help="ray: actors; local: one replica in this process, without Ray.",
)
wait = click.option(
    "--wait/--no-wait",
    default=True,
    show_default=True,
    help="Of a Ray job: follow its log to its end.",
)
sent = flags(
    wait,
    click.option(
        "--python",
        envvar="RAYSEARCH_PYTHON",
        metavar="PATH",
        help="Of a Ray job: the interpreter of its driver, as the head has it. Default: the one "
        "that runs the cluster's Ray.",
    ),
    click.option(
        "--runtime",
        type=click.Choice(["tree", "installed", "pip"]),
        envvar="RAYSEARCH_RUNTIME",
        default="tree",
        show_default=True,
        help="Of a Ray job: the raysearch that it runs. tree: this one, sent along; installed: "
        "what the nodes have; "
        "pip: this one too, and what it needs of others is installed there.",
    ),
    click.option(
        "--env",
        multiple=True,
        metavar="NAME",
        help="Of a Ray job: hand this variable of the environment on. Whoever may read the job can "
        "read it. Repeatable.",
    ),
)


def set_verbosity(given: dict[str, Any]) -> None:
    """Removes `verbose` from the flags and sets the log level."""
    if given.pop("verbose"):
        logging.getLogger("raysearch").setLevel(logging.INFO)


def is_given(name: str) -> bool:
    """Returns whether a flag or argument was given, by the command line or the environment."""
    source = click.get_current_context().get_parameter_source(name)
    return source not in (ParameterSource.DEFAULT, None)


def store_of(place: str | None, store: str) -> "Folder":
    """Returns the folder of a store that is given as an argument or as --store.

    Raises: UsageError where both are; RaysearchError where a folder is given that is not there.
    """
    from raysearch.storage.local import LocalFolder
    from raysearch.storage.open_folder import open_folder

    source = click.get_current_context().get_parameter_source("store")
    if place is not None and source is ParameterSource.COMMANDLINE:
        raise click.UsageError(f"STORE {place} and --store {store} are the same; give one of both")
    folder = open_folder(store if place is None else place)
    is_default = place is None and not is_given("store")
    if isinstance(folder, LocalFolder) and not folder.path.is_dir() and not is_default:
        raise RaysearchError(
            f"there is no store {folder.place}; give the folder that holds the runs, or the store "
            "that `raysearch submit --store` was given"
        )
    return folder


def without_job(given: dict[str, Any]) -> dict[str, Any]:
    """Returns the flags without those of a Ray job. Raises: UsageError if one was given without a
    job."""
    context = click.get_current_context()
    of_a_job = ("wait", "runtime", "env", "python", "include", "on_nodes")
    for name in of_a_job:
        if (
            name in context.params
            and context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        ):
            flag = "no-wait" if name == "wait" else name.replace("_", "-")
            raise click.UsageError(
                f"--{flag} is about a Ray job; give --address http://HEAD:8265 too, or leave it out"
            )
    return {name: value for name, value in given.items() if name not in of_a_job}


def _complete_runs(context: click.Context, text: str) -> list[str]:
    from raysearch.storage.open_folder import open_folder
    from raysearch.storage.retries import RetryPolicy
    from raysearch.store.run_folder import run_names

    store = context.params.get("store") or os.environ.get("RAYSEARCH_STORE") or DEFAULT_STORE
    try:
        names = run_names(open_folder(store, RetryPolicy(seconds=0)))
    except RaysearchError:  # shell completion cannot show errors; the command itself will
        names = []
    older = [f"latest~{n}" for n in range(1, len(names))] if text.startswith("latest") else []
    return completions([*names, "latest", *older], text)


def complete_hypotheses(context: click.Context, text: str) -> list[str]:
    """Returns the ids of a run that begin with `text`."""
    from raysearch.report.results_table import read_table
    from raysearch.store.run_folder import find_run

    store = context.params.get("store") or os.environ.get("RAYSEARCH_STORE") or DEFAULT_STORE
    try:
        run = find_run(store, context.params.get("run") or "latest")
        ids = read_table(run.folder, "hypotheses", ("hypothesis",))["hypothesis"].to_pylist()
    except RaysearchError:  # as above
        ids = []
    return completions(ids, text)


def completions(names: Iterable[str], text: str) -> list[str]:
    """Returns the names that begin with `text`, except those that a shell would interpret."""
    return [n for n in names if n.startswith(text) and _WORD.fullmatch(n)]
