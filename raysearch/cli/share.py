"""Defines the commands `export` and `import`.

Invariants: `runner/` does the work; nothing heavy is imported before it is needed.
"""

import shlex
from pathlib import Path
from typing import Any, get_args

import click

from raysearch.cli import flags
from raysearch.core.option_names import ExportFormat
from raysearch.errors import JobError

IN_PYTHON = "in Python"
_to = click.option(
    "--to",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="The folder to write.",
)
_force = click.option("--force", is_flag=True, help="Write over what that folder has.")
_place = flags.flags(
    click.option("--variable", metavar="V", help="Pick the hypothesis of this variable,"),
    click.option("--layer", type=int, metavar="N", help="in this layer,"),
    click.option("--component", metavar="NAME", help="of this component,"),
    click.option("--head", type=int, metavar="N", help="of this head,"),
    click.option("--position", metavar="NAME", help="at this position,"),
    click.option("--subspace", metavar="WORDS", help='in this subspace: full, das, or "das 8",'),
    click.option(
        "--k",
        "features",
        type=int,
        metavar="N",
        help="of this many features. Of several: the only accepted one.",
    ),
    click.option(
        "--id", "prefix", metavar="ID", help="As HYPOTHESIS: the id, or the beginning of it."
    ),
)
_format = flags.flags(
    click.option(
        "--format",
        "form",
        type=click.Choice(get_args(ExportFormat)),
        default="raysearch",
        show_default=True,
        help="mib: a submission of MIB's causal-variable track, of the whole alignment where no "
        "HYPOTHESIS is named; "
        "pyvene: what pyvene 0.1.8 loads.",
    ),
    click.option(
        "--task",
        metavar="NAME",
        help="With mib: the task, as MIB calls it. Default: the job's problem.",
    ),
    click.option(
        "--model-name",
        metavar="NAME",
        help="With mib: the model's class, as MIB has it. Default: the model's folder.",
    ),
)
_hub = flags.flags(
    click.option(
        "--push-to-hub",
        metavar="OWNER/NAME",
        help="Put it on the Hugging Face hub too, in this repository.",
    ),
    click.option(
        "--private/--public",
        default=None,
        help="Of a repository that is made. Default: as its owner's settings say.",
    ),
)


@click.command()
@flags.run
@click.argument(
    "hypothesis",
    required=False,
    shell_complete=lambda ctx, _, text: flags.complete_hypotheses(ctx, text),
)
@_place
@_to
@_force
@_format
@_hub
@flags.output()
@flags.store
@flags.loudness
def export(
    run: str,
    hypothesis: str | None,
    prefix: str | None,
    to: Path,
    force: bool,
    form: Any,
    task: str | None,
    model_name: str | None,
    output: str,
    store: str,
    **given: Any,
) -> int:
    """Write the intervention of HYPOTHESIS (its id, or the beginning of it) in RUN to a folder that
    can be shared; --variable, --layer and the like pick one by its place."""
    if prefix is not None and hypothesis is not None:
        raise click.UsageError(f"--id {prefix} is HYPOTHESIS, and {hypothesis} is too; give one")
    hypothesis = prefix if hypothesis is None else hypothesis
    from raysearch.runner.stored_run.find_hypothesis import PLACE, find_hypothesis

    picked = {name: given[name] for name in PLACE if given[name] is not None}
    hub, private = given["push_to_hub"], given["private"]
    _check(form, hypothesis is None and not picked, task or model_name, hub, private)
    flags.set_verbosity(given)
    _refuse_full(to, force)
    from raysearch.cli.terminal import emit_or_tell
    from raysearch.runner.exports.export import push
    from raysearch.runner.exports.export_formats import export_as
    from raysearch.store.run_folder import find_run

    found = find_run(store, run)
    if hypothesis is not None or picked:
        hypothesis = find_hypothesis(found, hypothesis, picked)["hypothesis"]
    folders = [str(path) for path in export_as(form, found, hypothesis, to, task, model_name)]
    pushed = None if hub is None else f"{hub}@{push(to, hub, private)}"
    facts = {"run": found.place, "hypothesis": hypothesis, "format": form, "folders": folders}
    emit_or_tell(output, filter(None, [*folders, pushed]), "export", **facts, hub=pushed)
    _lead(form, to, given["quiet"])
    return 0


def _check(
    form: str,
    is_whole: bool,
    named: str | None,
    push_to_hub: str | None,
    private: bool | None,
) -> None:
    """Raises: UsageError for flags that do not go together."""
    if private is not None and push_to_hub is None:
        raise click.UsageError(
            "--private and --public are about --push-to-hub OWNER/NAME; give it too"
        )
    if form != "raysearch" and push_to_hub is not None:
        raise click.UsageError(
            "--push-to-hub puts one hypothesis there, in our own format; leave --format out"
        )
    if form != "mib" and named:
        raise click.UsageError("--task and --model-name are about --format mib; give it too")
    if form != "mib" and is_whole:
        raise click.UsageError(
            "Missing argument 'HYPOTHESIS': give its id, which `raysearch results RUN` has, or its "
            "place: --variable, --layer, --position, --subspace"
        )


def _refuse_full(to: Path, force: bool) -> None:
    """Raises: JobError where `to` has files and `force` does not say that they may go."""
    if not force and to.is_dir() and any(to.iterdir()):
        raise JobError(
            f"--to {to}: is not empty, and files of its own names would be written over; give "
            "another folder, or --force"
        )


def _lead(form: str, to: Path, quiet: bool) -> None:
    from raysearch.cli.terminal import lead

    back = f"raysearch import {shlex.quote(str(to))} --to {shlex.quote(f'{to}-read')}"
    ways = {
        "raysearch": (IN_PYTHON, _load(to)),
        "mib": ("to read it back", back),
        "pyvene": (
            "in Python, where `model` is the model that was searched",
            f"import pyvene; pyvene.IntervenableModel.load({str(to)!r}, model)",
        ),
    }
    why, command = ways[form]
    lead(command, quiet, why)


def _load(folder: object) -> str:
    return f"import raysearch; raysearch.load_intervention({str(folder)!r})"


@click.command("import")
@click.argument("folder", type=click.Path(path_type=Path))
@_to
@_force
@flags.output()
@flags.loudness
def import_(folder: Path, to: Path, force: bool, output: str, quiet: bool, **loud: Any) -> int:
    """Read a submission FOLDER of MIB's causal-variable track; each unit becomes a folder that
    raysearch loads."""
    from raysearch.cli.terminal import emit_or_tell, lead
    from raysearch.runner.exports.export_formats import import_mib

    flags.set_verbosity(loud)
    _refuse_full(to, force)
    folders = [str(path) for path in import_mib(folder, to)]
    emit_or_tell(output, folders, "import", folders=folders)
    if folders:
        lead(_load(folders[0]), quiet, IN_PYTHON)
    return 0
