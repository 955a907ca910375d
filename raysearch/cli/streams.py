"""Ends a command properly where its output is closed or full, memory runs out, or a package is
missing.

Invariants: no file that is opened later gets the number of a closed stream, so nothing that is
printed lands in it; what could not be printed is said on stderr, with exit code 1, except where its
reader has ended, such as `head`: then the command ends without a word.
"""

import errno
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from raysearch.errors import is_out_of_memory
from raysearch.visible_text import one_line, shorten

NAMES = (errno.ENAMETOOLONG, errno.ELOOP)
"""Errors of a name that can be no file's."""
_OF_PLACES = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EIO,
    errno.ESTALE,
    errno.EMFILE,
    errno.ENFILE,
    *NAMES,
)
"""Errors of a file that come of its place or its name, and never of a program."""
_UNWRITABLE = (errno.EBADF, errno.ENOSPC, errno.EIO)
BROKEN_PIPE = 141
"""The exit code that a shell sees of a program whose reader has ended: 128 and SIGPIPE."""


@contextmanager
def open_streams() -> Iterator[None]:
    """Makes stdin, stdout and stderr usable, and writes out stdout at the end.

    Raises: Exit with BROKEN_PIPE where the reader of stdout or stderr has ended.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # Takes the lowest free number: this one. A write to stdout then fails as it should.
            os.open(os.devnull, os.O_WRONLY if number == 2 else os.O_RDONLY)
    if sys.stdin is None:
        sys.stdin = open(os.devnull)  # noqa: SIM115  lives as long as the process
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    try:
        yield
        sys.stdout.flush()
    except (SystemExit, BrokenPipeError) as e:
        if not _reader_ended(e):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # takes what waits in sys.stdout
        raise click.exceptions.Exit(BROKEN_PIPE) from None


def _reader_ended(error: BaseException) -> bool:
    """Returns whether `error` comes of a stdout or stderr that is a pipe without a reader.

    click and rich make a SystemExit of that; rich sends stdout to the null device first.
    """
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    raiser = "" if frame is None else str(frame.tb_frame.f_globals.get("__name__"))
    package = raiser.partition(".")[0]
    if isinstance(error, SystemExit) and package != "click":
        return package == "rich"
    asked = select.poll()
    for number in (1, 2):
        asked.register(number, 0)
    return any(seen & (select.POLLERR | select.POLLHUP) for _, seen in asked.poll(0))


def fault(error: MemoryError | OSError) -> str | None:
    """Returns the line for an error that is not raysearch's own; None for one that may be."""
    if is_out_of_memory(error):
        return f"memory is full ({type(error).__name__}); end what else uses it, or ask for less"
    assert isinstance(error, OSError)
    if error.filename is not None and error.errno in _OF_PLACES:
        return f"{shorten(error.filename, 200)}: {error.strerror}; give another place"
    if error.filename is not None or error.errno not in _UNWRITABLE:
        return None
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115  what waits in the old one is not tried again
    return f"stdout cannot be written ({one_line(error.strerror or error)}); give it another place"


def missing_package_line(error: ModuleNotFoundError) -> str:
    """Returns the line for a package that this Python lacks."""
    name = (error.name or str(error)).partition(".")[0]
    return (
        f"the package {name} is not installed in {sys.prefix}, and this needs it; `raysearch "
        f"doctor` says what else is missing"
    )
