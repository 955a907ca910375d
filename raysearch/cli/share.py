"""Defines the commands `export` and `import`.

Invariants: `runner/` does the work; nothing heavy is imported before it is needed.
"""

from pathlib import Path
from typing import Any, get_args

import click

from raysearch.cli import flags
from raysearch.core.choices import ExportFormat


@click.command()
@flags.run
@click.argument("hypothesis", required=False)
@click.option(
    "--to",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="The folder to write.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(get_args(ExportFormat)),
    default="raysearch",
    show_default=True,
    help="mib: a submission of MIB's causal-variable track, of the whole alignment where no "
    "HYPOTHESIS is named; "
    "pyvene: what pyvene 0.1.8 loads.",
)
@click.option(
    "--task",
    metavar="NAME",
    help="With mib: the task, as MIB calls it. Default: the job's problem.",
)
@click.option(
    "--model-name",
    metavar="NAME",
    help="With mib: the model's class, as MIB has it. Default: the model's folder.",
)
@click.option(
    "--push-to-hub",
    metavar="OWNER/NAME",
    help="Put it on the Hugging Face hub too, in this repository.",
)
@click.option(
    "--private/--public",
    default=None,
    help="Of a repository that is made. Default: as its owner's settings say.",
)
@flags.store
@flags.loudness
def export(
    run: str,
    hypothesis: str | None,
    to: Path,
    form: Any,
    task: str | None,
    model_name: str | None,
    push_to_hub: str | None,
    private: bool | None,
    store: str,
    **loud: Any,
) -> int:
    """Write the intervention of HYPOTHESIS (its id, or the beginning of it) in RUN to a folder that
    can be shared."""
    if private is not None and push_to_hub is None:
        raise click.UsageError(
            "--private and --public are about --push-to-hub OWNER/NAME; give it too"
        )
    if form != "raysearch" and push_to_hub is not None:
        raise click.UsageError(
            "--push-to-hub puts one hypothesis there, in our own format; leave --format out"
        )
    if form != "mib" and (task or model_name):
        raise click.UsageError("--task and --model-name are about --format mib; give it too")
    if form != "mib" and hypothesis is None:
        raise click.UsageError(
            "Missing argument 'HYPOTHESIS': `raysearch results RUN -o json` has their ids"
        )
    from raysearch.cli.terminal import tell
    from raysearch.store.run_folder import find_run

    flags.set_verbosity(loud)
    from raysearch.runner.export import push
    from raysearch.runner.export_mib import export_as

    for folder in export_as(form, find_run(store, run), hypothesis, to, task, model_name):
        tell(str(folder))
    if push_to_hub is not None:
        tell(f"{push_to_hub}@{push(to, push_to_hub, private)}")
    return 0


@click.command("import")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--to",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="The folder to write.",
)
@flags.loudness
def import_(folder: Path, to: Path, **loud: Any) -> int:
    """Read a submission FOLDER of MIB's causal-variable track; each unit becomes a folder that
    raysearch loads."""
    from raysearch.cli.terminal import tell
    from raysearch.runner.export_mib import import_mib

    flags.set_verbosity(loud)
    for path in import_mib(folder, to):
        tell(str(path))
    return 0
