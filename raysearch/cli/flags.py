"""Flags that several commands share; each is written once.

Invariants: nothing heavy is imported before a flag is used.
"""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from raysearch.errors import RaysearchError


def flags(*decorators: Callable[..., Any]) -> Callable[..., Any]:
    """Several decorators as one, in the order given."""

    def decorate(function: Any) -> Any:
        for flag in reversed(decorators):
            function = flag(function)
        return function

    return decorate


job = click.argument("job", type=click.Path(path_type=Path))
run = click.argument("run", metavar="RUN", shell_complete=lambda ctx, _, text: _complete_runs(ctx, text))
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
    default="./runs",
    show_default=True,
    metavar="URI",
    help="Where runs are kept: a folder, or s3://BUCKET/PREFIX, gs://..., abfs://....",
)
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
    envvar="RAYSEARCH_MLFLOW_CHILDREN",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    help="At most so many accepted hypotheses get an MLflow run of their own, below the search's.",
)
quiet = click.option("-q", "--quiet", is_flag=True, envvar="RAYSEARCH_QUIET", help="No progress, no summary.")
verbose = click.option(
    "-v", "--verbose", is_flag=True, envvar="RAYSEARCH_VERBOSE", help="Tell of every loss and retry."
)
no_color = click.option("--no-color", is_flag=True, envvar="RAYSEARCH_NO_COLOR", help="No colours.")
loudness = flags(quiet, verbose, no_color)
searching = flags(store, tracking, errors, children, loudness)


def set_verbosity(given: dict[str, Any]) -> None:
    """Takes `verbose` out of the flags that were given, and heeds it."""
    if given.pop("verbose"):
        logging.getLogger("raysearch").setLevel(logging.INFO)


def _complete_runs(context: click.Context, text: str) -> list[str]:
    from raysearch.folders.patience import Patience
    from raysearch.folders.where import folder_at
    from raysearch.store.run_folder import run_names

    store = context.params.get("store") or os.environ.get("RAYSEARCH_STORE") or "./runs"
    try:
        names = run_names(folder_at(store, Patience(seconds=0)))
    except RaysearchError:  # a shell that completes has no place to say it; the command itself will
        names = []
    return [n for n in [*names, "latest"] if n.startswith(text)]
