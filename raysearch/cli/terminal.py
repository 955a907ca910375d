"""What the command line puts on a terminal: tables, lines of ours, lines of data.

Invariants: every text is literal (raysearch/visible_text.py): rich reads no markup, no emoji code
and no link in it, a terminal no escapes.
"""

import sys
from collections.abc import Iterable
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from raysearch.visible_text import for_stream, visible


def say(text: str) -> None:
    """A line of ours, on stderr."""
    print(line_of_ours(text), file=sys.stderr)


def line_of_ours(text: str) -> str:
    """Returns the line in which raysearch itself says `text`."""
    return f"raysearch: {visible(text)}"


def tell(text: str) -> None:
    """A line of data, on stdout: as it is for a program, with nothing that a terminal obeys."""
    click.echo(for_stream(text, sys.stdout))


def in_lines(lines: Iterable[str]) -> str:
    """Each of `lines` on one line."""
    return "\n".join(map(visible, lines))


def console(no_color: bool) -> Console:
    """For tables on stdout; where that is no terminal they are as wide as a wide one."""
    return Console(width=None if sys.stdout.isatty() else 160, no_color=no_color or None)


class PlainTable(Table):
    """A table without lines, whose cells are texts and nothing else."""

    def __init__(self, title: str | None = None) -> None:
        heading = None if title is None else Text(visible(title), style="table.title")
        super().__init__(
            title=heading, title_justify="left", box=None, pad_edge=False, header_style="bold"
        )

    def column(self, name: str, right: bool = False, no_wrap: bool = False) -> None:
        """One more; `right`: of numbers."""
        self.add_column(Text(visible(name)), justify="right" if right else "left", no_wrap=no_wrap)

    def row(self, cells: Iterable[Any], style: str = "") -> None:
        """One more, each of `cells` as it is."""
        self.add_row(*(Text(visible(cell)) for cell in cells), style=style)
