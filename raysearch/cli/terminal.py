"""Prints tables, messages and data on a terminal.

Invariants: every text is literal (raysearch/visible_text.py): rich interprets no markup, emoji code
or link in it, a terminal no escapes.
"""

import os
import re
import shlex
import sys
import textwrap
from collections.abc import Iterable
from typing import Any

import click
from rich.console import Console, OverflowMethod
from rich.table import Table
from rich.text import Text

from raysearch.cli.json_output import emit
from raysearch.visible_text import for_stream, shows_escapes, visible

_LABEL = re.compile(r" *\S+( \S+)*  +(?=\S)")
"""The beginning of a line: words, and two spaces or more."""


def say(text: str) -> None:
    """Prints a message on stderr."""
    print(line_of_ours(text), file=sys.stderr)


def line_of_ours(text: str) -> str:
    """Returns the line in which raysearch itself says `text`."""
    return f"raysearch: {visible(text)}"


def lead(command: str, quiet: bool = False, why: str = "") -> None:
    """Names the command to go on with, on stderr, as it can be pasted; `why` stands before it."""
    if not quiet:
        say(f"{why}{'; ' if why else ''}go on with: {command}")


def shell_path(place: str) -> str:
    """Returns the path or URI of a run as a shell takes it here."""
    here = os.path.relpath(place) if os.path.isabs(place) else place
    return shlex.quote(place if here.startswith("..") else here)


def tell(text: str) -> None:
    """Prints a line of data on stdout, unchanged for a program, escaped for a terminal."""
    click.echo(for_stream(text, sys.stdout))


def emit_or_tell(output: str, lines: Iterable[str], command: str, /, **values: Any) -> None:
    """Prints what a command found: its document where `output` is json, else lines of data."""
    if output == "json":
        emit(command, **values)
    else:
        for line in lines:
            tell(line)


def in_lines(lines: Iterable[str]) -> str:
    """Joins `lines`, each kept on one line."""
    return "\n".join(map(visible, lines))


def console(no_color: bool) -> Console:
    """Returns a console for tables on stdout; a pipe gets a wide one."""
    is_plain = not shows_escapes(sys.stdout, no_color)
    return Console(
        width=None if sys.stdout.isatty() else 160,
        color_system=None if is_plain else "auto",
        highlight=False,
    )


def in_width(text: str, width: int) -> str:
    """Breaks lines that are wider than a terminal between words; what follows is indented as the
    value after the label of the line, or one step further than the line."""
    return "\n".join(
        line if len(line) <= width else _hanging(line, width) for line in text.split("\n")
    )


def _hanging(line: str, width: int) -> str:
    label = _LABEL.match(line)
    value = label.end() if label else 0
    indent = value if 0 < value <= width // 2 else len(line) - len(line.lstrip()) + 2
    return textwrap.fill(
        line,
        width,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


class PlainTable(Table):
    """A table without borders, whose cells are literal text."""

    def __init__(self, header: bool = True) -> None:
        super().__init__(box=None, pad_edge=False, header_style="bold", show_header=header)

    def column(
        self,
        name: str,
        right: bool = False,
        no_wrap: bool = False,
        overflow: OverflowMethod = "ellipsis",
        width: int | None = None,
    ) -> None:
        """Adds a column. `right`: align right, for numbers; `width`: in characters."""
        self.add_column(
            Text(visible(name)),
            justify="right" if right else "left",
            no_wrap=no_wrap,
            overflow=overflow,
            width=width,
        )

    def row(self, cells: Iterable[Any], style: str = "") -> None:
        """Adds a row of literal cells."""
        self.add_row(*(Text(visible(cell)) for cell in cells), style=style)
