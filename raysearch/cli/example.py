"""Defines `raysearch example`, which writes a job to begin with, and the small model that it
searches.

Invariants: nothing that is there already is written over.
"""

import os
import shlex
from pathlib import Path

import click

from raysearch.cli.flags import output

EXAMPLES = Path(__file__).parents[1] / "examples"
"""The examples: links to files in jobs/ in a checkout, the files in a wheel. A job's model lies
beside it."""


@click.command()
@click.argument(
    "name",
    type=click.Choice(sorted(path.stem for path in EXAMPLES.glob("*.yaml"))),
    default="quickstart",
)
@click.option(
    "--to",
    type=click.Path(file_okay=False, path_type=Path),
    default=".",
    help="The folder to write to. Default: this one.",
)
@output()
def example(name: str, to: Path, output: str) -> int:
    """Write a job file to begin with, and the model that it searches."""
    from raysearch.cli.terminal import emit_or_tell, lead
    from raysearch.errors import JobError
    from raysearch.job import Job
    from raysearch.storage.atomic_write import os_errors_in_one_line, write_below

    job = EXAMPLES / f"{name}.yaml"
    model = EXAMPLES / Path(Job.load(job).model.path).relative_to(job.resolve().parent)
    places = [path.relative_to(EXAMPLES) for path in (job, model)]
    for place in places:
        if os.path.lexists(to / place):
            raise JobError(f"{to / place}: is there already; give --to another folder")
    with os_errors_in_one_line(f"{to}: cannot be made", "give --to another folder"):
        to.mkdir(parents=True, exist_ok=True)
    for path in (*sorted(model.iterdir()), job):
        write_below(to, path.relative_to(EXAMPLES).parts, path.read_bytes())
    written = [str(to / place) for place in places]
    emit_or_tell(output, written, "example", job=written[0], files=written)
    lead(f"raysearch submit {shlex.quote(written[0])}")
    return 0
