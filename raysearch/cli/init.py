"""`raysearch init`: a problem and a job of one's own to begin with, by questions or flags.

Invariants: nothing that is there already is written over, and nothing is written unless all is.
"""

import os
import re
import shlex
import sys
from pathlib import Path

import click

from raysearch.cli.flags import output

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
    from raysearch.cli.json_output import emit
    from raysearch.cli.terminal import lead, tell
    from raysearch.errors import JobError
    from raysearch.runner.starter import JOB, job_name, pairs_facts, starter_files
    from raysearch.storage.atomic_write import refused, write_below

    ask = sys.stdin.isatty() and kind is None and pairs is None and output != "json"
    kind = kind or ("pairs" if pairs else _asked_kind() if ask else next(iter(KINDS)))
    if kind == "pairs" and pairs is None and ask:
        pairs = click.prompt(
            "file of pairs", type=click.Path(exists=True, path_type=Path), err=True
        )
    if kind == "pairs" and pairs is None:
        raise JobError("--from pairs: no file is given; give --pairs FILE")
    if kind != "pairs" and pairs is not None:
        raise JobError(f"--pairs: a search from a {kind} takes no file of pairs; give one of both")
    if kind == "network" and model is not None:
        raise JobError("--model: the network is written in network.py; leave it out")
    if ask and kind != "network" and model is None:
        words = "model: a folder, a .gguf file or a hub id"
        model = click.prompt(words, default="a small one", err=True)
        model = None if model == "a small one" else model
    facts = None if pairs is None else pairs_facts(pairs)
    if model is not None and os.path.exists(model):
        model = os.path.relpath(model, folder)
    elif model is not None and not _HUB_ID.fullmatch(model):
        raise JobError(
            f"--model: there is no {model}; give a folder with a model, a .gguf file or a hub id "
            "(owner/name)"
        )
    files = starter_files(kind, folder, name or job_name(folder), model, facts)
    for place in files:
        if os.path.lexists(folder / place):
            raise JobError(f"{folder / place}: is there already; give another folder")
    with refused(f"{folder}: cannot be made", "give another folder"):
        folder.mkdir(parents=True, exist_ok=True)
    for place, content in files.items():
        write_below(folder, Path(place).parts, content)
    if output == "json":
        written = [str(folder / place) for place in files]
        emit("init", job=str(folder / JOB), files=written)
    else:
        for place in dict.fromkeys(Path(place).parts[0] for place in files):
            tell(str(folder / place))
    lead(f"raysearch plan {shlex.quote(str(folder / JOB))}")
    return 0


def _asked_kind() -> str:
    for kind in KINDS:
        click.echo(f"  {kind:<13} {KINDS[kind]}", err=True)
    chosen: str = click.prompt(
        "begin from", type=click.Choice(tuple(KINDS)), default=next(iter(KINDS)), err=True
    )
    return chosen
