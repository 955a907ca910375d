"""Defines `raysearch deploy render`, with a command for each launcher.

Invariants: commands and flags come from `deploy/launchers.py`; nothing heavy is imported to show
them.
"""

import shlex
from collections.abc import Iterator
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import click

from raysearch.cli.flags import job, output
from raysearch.deploy.launchers import LAUNCHERS, Launcher


@click.group()
def deploy() -> None:
    """Run on a real cluster."""


@deploy.group()
def render() -> None:
    """Write the files that run a job on a cluster. They hold no secret; the README in deploy/ says
    where those go."""


_to = click.option(
    "--to",
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder to write, in a folder named for the place. Default: standard output, each "
    "file behind its name.",
)


def _add(name: str, launcher: Launcher) -> None:
    """Adds the command of a launcher."""

    def command(job: Path, to: Path | None, output: str, **flags: Any) -> int:
        return _write(name, launcher, job, to, output, flags)

    for flag in (*reversed(list(_flags(launcher))), output(), _to, job):
        command = flag(command)
    render.command(name, help=launcher.help)(command)


def _flags(launcher: Launcher) -> Iterator[Any]:
    for option in fields(launcher.options):
        if option.metadata:
            yield _flag(option)


def _flag(option: Field[Any]) -> Any:
    """Returns the flag of an option; its default is in the dataclass, not click's."""
    about, default = option.metadata, option.default
    shown = f" Default: {default}." if default and not isinstance(default, tuple) else ""
    return click.option(
        f"--{_option_name(option)}",
        option.name,
        multiple=isinstance(default, tuple),
        type=click.IntRange(min=about["least"]) if "least" in about else str,
        metavar=about.get("metavar"),
        help=f"{about['help']}{shown}",
        allow_from_autoenv=option.name != "sets",
    )


def _write(
    name: str,
    launcher: Launcher,
    job: Path,
    to: Path | None,
    output: str,
    flags: dict[str, Any],
) -> int:
    """Writes the files below `to`, or to standard output."""
    from raysearch.cli.terminal import emit_or_tell, lead
    from raysearch.deploy import settings
    from raysearch.deploy.render import render as rendered
    from raysearch.deploy.render import write
    from raysearch.deploy.wheel import write_wheel

    given = {flag: value for flag, value in flags.items() if value not in (None, ())}
    files = rendered(getattr(settings, f"for_{name}")(job, launcher.options(**given), to), name)
    if to is not None:
        written = write(files, to)
        if launcher.wheel:
            written.append(write_wheel(to / name / "wheels"))
        paths = [str(path) for path in written]
        documents = [{"path": path, "text": None} for path in paths]
        emit_or_tell(output, paths, "deploy render", files=documents)
        lead(launcher.next.format(folder=shlex.quote(str(to / name))), why=launcher.why)
        return 0
    files = {file: text for file, text in files.items() if "/wheels/" not in file}
    _print(output, files)
    words = ["raysearch", "deploy", "render", name, str(job), *_typed(launcher, given)]
    lead(shlex.join([*words, "--to", "deployed"]), why="to write the files")
    return 0


def _print(output: str, files: dict[str, str]) -> None:
    """Writes files to standard output, each of several behind its name."""
    from raysearch.cli.json_output import emit

    if output == "json":
        emit("deploy render", files=[{"path": p, "text": text} for p, text in files.items()])
    elif len(files) == 1:
        click.echo(next(iter(files.values())), nl=False)
    else:
        for file, text in files.items():
            click.echo(f"# ---- {file}\n{text}")


def _typed(launcher: Launcher, given: dict[str, Any]) -> Iterator[str]:
    """Yields the flags that were given, as they are typed."""
    for option in fields(launcher.options):
        if option.name in given:
            value = given[option.name]
            for each in value if isinstance(value, tuple) else (value,):
                yield f"--{_option_name(option)}"
                yield str(each)


def _option_name(option: Field[Any]) -> str:
    return str(option.metadata.get("flag", option.name.replace("_", "-")))


for _name, _launcher in LAUNCHERS.items():
    _add(_name, _launcher)
