"""Plans a job for the command line: checks it, and prints what it would do as text or JSON."""

import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from raysearch.cli.json_output import emit_text, to_json
from raysearch.cli.terminal import in_width, lead
from raysearch.job import Job
from raysearch.runner.plans.plan import plan
from raysearch.runner.plans.plan_report import PlanReport
from raysearch.runner.resolution.error_context import naming_file
from raysearch.runner.resolution.job_code import code_of
from raysearch.visible_text import visible


def show_plan(
    path: Path, sets: Sequence[str], output: str, with_trial: bool = False, quiet: bool = False
) -> None:
    """Prints the plan of a job, and names the command to go on with. Raises: as `make_plan`."""
    report = make_plan(path, sets, with_trial)
    text = plan_text(report, output)
    if output == "text" and sys.stdout.isatty():
        text = in_width(text, shutil.get_terminal_size().columns)
    emit_text(text)
    again = shlex.join([str(path), *(word for each in sets for word in ("--set", each))])
    if report.hopeless:
        why = "nothing can be accepted until the job is changed"
        lead(f"raysearch plan {again}", quiet, why)
    else:
        lead(f"raysearch submit {again}", quiet)


def make_plan(path: Path, sets: Sequence[str], with_trial: bool = False) -> PlanReport:
    """Plans a job; `with_trial` also measures how long it would take, on this machine.

    Raises: JobError, PairsError, ModelError in one line; SearchFailedError if the trial fails.
    """
    job = Job.load(path, sets)
    with naming_file(path, job):
        for line in code_of(job):
            click.echo(visible(line), err=True)
        return plan(job, with_trial=with_trial)


def plan_text(report: PlanReport, output: str) -> str:
    """Returns a plan as text or JSON."""
    return to_json(report.plain(), 2) if output == "json" else str(report)
