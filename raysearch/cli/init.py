"""Defines `raysearch init`, which writes a problem and a job to begin with, by questions or flags.

Invariants: nothing that is there already is written over, and nothing is written unless all is.
"""

import os
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from raysearch.cli.flags import output
from raysearch.errors import JobError

if TYPE_CHECKING:
    from raysearch.runner.starter_files import PairsFacts

_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
KINDS = {
    "causal-model": "texts that a causal model of yours draws",
    "network": "a torch network of your own, and a causal model of it",
    "pairs": "a file of pairs: base, source, answers and counterfactuals",
}
"""The starters: a folder of runner/starters each, and what it is."""


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default=".")
@click.option(
    "--from",
    "kind",
    type=click.Choice(tuple(KINDS)),
    help="What to begin from: " + "; ".join(f"{k}, {what}" for k, what in KINDS.items()) + ".",
)
@click.option(
    "--pairs",
    type=click.Path(exists=True, path_type=Path),
    help="The file of pairs; means --from pairs.",
)
@click.option(
    "--model",
    metavar="PATH",
    help="A folder that save_pretrained wrote, a .gguf file or a hub id. Default: a small model "
    "that comes with raysearch and adds three digits.",
)
@click.option("--name", help="The job's name. Default: the folder's.")
@output()
def init(
    folder: Path,
    kind: str | None,
    pairs: Path | None,
    model: str | None,
    name: str | None,
    output: str,
) -> int:
    """Write a problem and a job of your own to begin with, into FOLDER (default: this one); both
    run as they are.

    On a terminal it asks for what is not given.
    """
    from raysearch.cli.terminal import emit_or_tell, lead, say
    from raysearch.runner.starter_files import JOB, job_name, pairs_facts, starter_files

    if sys.stdin.isatty() and kind is None and pairs is None and output != "json":
        kind, pairs, model = _asked(model)
    kind = kind or ("pairs" if pairs else next(iter(KINDS)))
    _check(kind, pairs, model)
    facts = None if pairs is None else pairs_facts(pairs)
    files = starter_files(kind, folder, name or job_name(folder), _place(model, folder), facts)
    _write(folder, files)
    tops = dict.fromkeys(str(folder / Path(place).parts[0]) for place in files)
    written = [str(folder / place) for place in files]
    emit_or_tell(output, tops, "init", job=str(folder / JOB), files=written)
    for line in _said(model, facts):
        say(line)
    lead(f"raysearch plan {shlex.quote(str(folder / JOB))}")
    return 0


def _asked(model: str | None) -> tuple[str, Path | None, str | None]:
    """Asks for the kind, its file of pairs and its model; returns them."""
    kind = _asked_kind()
    pairs = None
    if kind == "pairs":
        path = click.Path(exists=True, path_type=Path)
        pairs = click.prompt("file of pairs", type=path, err=True)
    if kind != "network" and model is None:
        words, small = "model: a folder, a .gguf file or a hub id", "a small one"
        model = click.prompt(words, default=small, err=True)
        model = None if model == small else model
    return kind, pairs, model


def _check(kind: str, pairs: Path | None, model: str | None) -> None:
    """Raises: JobError for flags that do not go together."""
    if kind == "pairs" and pairs is None:
        raise JobError("--from pairs: no file is given; give --pairs FILE")
    if kind != "pairs" and pairs is not None:
        raise JobError(f"--pairs: a search from a {kind} takes no file of pairs; give one of both")
    if kind == "network" and model is not None:
        raise JobError("--model: the network is written in network.py; leave it out")


def _place(model: str | None, folder: Path) -> str | None:
    """Returns a model as a job in `folder` names it. Raises: JobError for one that is not there."""
    if model is not None and os.path.exists(model):
        return os.path.relpath(model, folder)
    if model is not None and not _HUB_ID.fullmatch(model):
        raise JobError(
            f"--model: there is no {model}; give a folder with a model, a .gguf file or a hub id "
            "(owner/name)"
        )
    return model


def _said(model: str | None, facts: "PairsFacts | None") -> list[str]:
    """Returns what is to be known of a model that was not looked up, and of the file's pairs."""
    from raysearch.runner.starter_files import TO_DECIDE

    said = []
    if model is not None and not os.path.exists(model):
        said.append(
            f"model {model} is no path here, so it is taken as a hub id and not looked up: it is "
            "loaded when the job runs; check the spelling, and that this machine reaches the hub "
            "(with HF_TOKEN where the model is gated)"
        )
    if facts is not None:
        test, holdout = (facts.given.get(split, 0) for split in ("test", "holdout"))
        held = f"{holdout} held out" if holdout else "none held out"
        if not holdout and facts.pairs <= TO_DECIDE:
            held = "none held out (of so few, an estimate on other pairs says little)"
        said.append(
            f"{facts.pairs} pairs: {test} to decide on, {held}; `plan` says whether they can "
            "decide anything"
        )
    return said


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Writes all files. Raises: JobError where one is there already."""
    from raysearch.storage.atomic_write import os_errors_in_one_line, write_below

    for place in files:
        if os.path.lexists(folder / place):
            raise JobError(f"{folder / place}: is there already; give another folder")
    with os_errors_in_one_line(f"{folder}: cannot be made", "give another folder"):
        folder.mkdir(parents=True, exist_ok=True)
    for place, content in files.items():
        write_below(folder, Path(place).parts, content)


def _asked_kind() -> str:
    for kind in KINDS:
        click.echo(f"  {kind:<13} {KINDS[kind]}", err=True)
    chosen: str = click.prompt(
        "begin from", type=click.Choice(tuple(KINDS)), default=next(iter(KINDS)), err=True
    )
    return chosen
