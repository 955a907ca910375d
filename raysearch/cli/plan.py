"""`raysearch plan`: a job checked, and what it would do, as text or JSON."""

import json
from collections.abc import Sequence
from pathlib import Path

import click

from raysearch.job import Job
from raysearch.runner.error_context import named
from raysearch.runner.job_code import code_of
from raysearch.runner.plan import plan
from raysearch.visible_text import visible


def plan_job(path: Path, sets: Sequence[str], output: str, with_trial: bool = False) -> str:
    """Plans a job; `with_trial` also measures how long it would take, on this machine.

    Raises: JobError, PairsError, ModelError in one line; SearchFailedError if the trial fails.
    """
    job = Job.load(path, sets)
    with named(path, job):
        for line in code_of(job):
            click.echo(visible(line), err=True)
        report = plan(job, with_trial=with_trial)
    return json.dumps(report.plain(), indent=2) if output == "json" else str(report)
