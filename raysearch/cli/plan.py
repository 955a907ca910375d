"""`raysearch plan`: a job checked, and what it would do, as text or JSON."""

import shlex
from collections.abc import Sequence
from pathlib import Path

import click

from raysearch.cli.json_output import to_json
from raysearch.cli.terminal import lead
from raysearch.job import Job
from raysearch.runner.error_context import named
from raysearch.runner.job_code import code_of
from raysearch.runner.plan import plan
from raysearch.visible_text import visible


def plan_job(
    path: Path, sets: Sequence[str], output: str, with_trial: bool = False, quiet: bool = False
) -> str:
    """Returns the plan of a job, and names the command to go on with; `with_trial` also measures
    how long the search would take, on this machine.

    Raises: JobError, PairsError, ModelError in one line; SearchFailedError if the trial fails.
    """
    job = Job.load(path, sets)
    with named(path, job):
        for line in code_of(job):
            click.echo(visible(line), err=True)
        report = plan(job, with_trial=with_trial)
    again = shlex.join([str(path), *(word for each in sets for word in ("--set", each))])
    why = ", once the job is changed: nothing can be accepted as it is"
    lead(f"raysearch plan {again}{why}" if report.hopeless else f"raysearch submit {again}", quiet)
    return to_json(report.plain(), 2) if output == "json" else str(report)
