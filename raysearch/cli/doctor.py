"""Defines the command `doctor`, which prints the checks of `runner/health_checks.py`."""

import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from raysearch.cli.flags import no_color, output, store, tracking
from raysearch.cli.json_output import emit_value
from raysearch.cli.terminal import lead
from raysearch.runner.health_checks import CheckResult, health_checks
from raysearch.visible_text import shows_escapes, visible


@click.command()
@click.option(
    "--address", envvar="RAYSEARCH_ADDRESS", help="The Ray cluster that `run` would join."
)
@click.option(
    "--job", type=click.Path(path_type=Path), help="A job: whether its model can be read."
)
@output()
@store
@tracking
@no_color
def doctor(output: str, **flags: Any) -> int:
    """Try what a search needs here: versions, GPUs, Ray, the tracker, the store, room. Exits with 1
    if something is not well."""
    is_plain = flags.pop("no_color")
    findings = []
    for finding in health_checks(**flags):
        findings.append(finding)
        if output == "text":
            _print(finding, is_plain)
    if output == "json":
        emit_value([asdict(f) for f in findings])
    is_well = all(f.ok for f in findings)
    given = None if (job := flags["job"]) is None else shlex.quote(str(job))
    if is_well:
        lead("raysearch example" if given is None else f"raysearch plan {given}")
    else:
        lead(shlex.join(["raysearch", "doctor", *_typed(flags)]), why="mend that")
    return 0 if is_well else 1


def _typed(flags: Mapping[str, Any]) -> list[str]:
    """Returns the flags that were typed, as they were."""
    source = click.get_current_context().get_parameter_source
    typed = [name for name in flags if source(name) is ParameterSource.COMMANDLINE]
    return [w for name in typed for w in (f"--{name.replace('_', '-')}", str(flags[name]))]


def _print(finding: CheckResult, no_color: bool) -> None:
    shown = shows_escapes(sys.stdout, no_color)
    mark = ("✓" if finding.ok else "✗") if shown else ("ok" if finding.ok else "WRONG")
    colour = ("green" if finding.ok else "red") if shown else None
    click.echo(
        f"{click.style(f'{mark:<5}', fg=colour)} {finding.check:<10} {visible(finding.message)}"
    )
