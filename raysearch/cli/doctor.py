"""Defines the command `doctor`, which prints the checks of `runner/health_checks.py`."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from raysearch.cli.flags import no_color, store, tracking
from raysearch.runner.health_checks import CheckResult, health_checks
from raysearch.visible_text import visible


@click.command()
@click.option(
    "--address", envvar="RAYSEARCH_ADDRESS", help="The Ray cluster that `run` would join."
)
@click.option(
    "--job", type=click.Path(path_type=Path), help="A job: whether its model can be read."
)
@click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True
)
@store
@tracking
@no_color
def doctor(**flags: Any) -> int:
    """Try what a search needs here: versions, GPUs, Ray, the tracker, the store, room. Exits with 1
    if something is not well."""
    output, is_plain = flags.pop("output"), flags.pop("no_color")
    findings = []
    for finding in health_checks(**flags):
        findings.append(finding)
        if output == "text":
            _print(finding, is_plain)
    if output == "json":
        click.echo(json.dumps([asdict(f) for f in findings], indent=2))
    return 0 if all(f.ok for f in findings) else 1


def _print(finding: CheckResult, no_color: bool) -> None:
    shown = sys.stdout.isatty()
    mark = ("✓" if finding.ok else "✗") if shown else ("ok" if finding.ok else "WRONG")
    colour = ("green" if finding.ok else "red") if shown and not no_color else None
    click.echo(
        f"{click.style(f'{mark:<5}', fg=colour)} {finding.check:<10} {visible(finding.message)}"
    )
