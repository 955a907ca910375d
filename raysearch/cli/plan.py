"""`raysearch plan`: a job checked, and what it would do, as text or JSON."""

import shlex
from collections.abc import Sequence
from pathlib import Path

import click

from raysearch.cli.json_output import emit_value
from raysearch.cli.terminal import lead
from raysearch.job import Job
from raysearch.runner.error_context import named
from raysearch.runner.job_code import code_of
from raysearch.runner.plan import plan
from raysearch.visible_text import visible


def plan_job(
    path: Path, sets: Sequence[str], output: str, with_trial: bool = False, quiet: bool = False
) -> None:
    """Plans a job and prints the plan; `with_trial` also measures how long it would take, on this
    machine.

    Raises: JobError, PairsError, ModelError in one line; SearchFailedError if the trial fails.
    """
    job = Job.load(path, sets)
    with named(path, job):
        for line in code_of(job):
            click.echo(visible(line), err=True)
        report = plan(job, with_trial=with_trial)
    if output == "json":
        emit_value(report.plain())
    else:
        click.echo(str(report))
    again = shlex.join([str(path), *(word for each in sets for word in ("--set", each))])
    if report.hopeless:
        lead(
            f"raysearch plan {again}, with the job changed: nothing can be accepted as it is", quiet
        )
    else:
        lead(f"raysearch submit {again}", quiet)
