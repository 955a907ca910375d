"""Tries again what fails in MLflow only for a while: a database that another process is making.

MLflow migrates a new SQLite file without a lock, so two searches that begin at once meet each
other's half-made tables (mlflow 3.7).

Invariants: on one machine the first connections to a file come one after the other; a server that
does not answer is not asked again.
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

from raysearch.tracking.sqlite_file import sqlite_file

T = TypeVar("T")

WAITS = (0.5, 2.0, 5.0, 10.0)
"""Seconds before each further attempt."""
_PASSING = (
    "already exists",
    "already_exists",
    "database is locked",
    "out-of-date",
    "duplicate column",
    "no such table",
    "no such column",
    "unique constraint",
    "deleted",
)
"""Parts of error texts that say that another process is at work, or that what is gone may be
restored."""


def patiently(uri: str, do: Callable[[], T], wait: Callable[[float], bool]) -> T:
    """Returns `do()`, tried again while its error may pass.

    `wait`: waits so many seconds; returns True to give up.
    """
    for seconds in WAITS:
        try:
            with _alone(uri):
                return do()
        except Exception as e:
            if not any(part in str(e).lower() for part in _PASSING) or wait(seconds):
                raise
    with _alone(uri):
        return do()


@contextmanager
def _alone(uri: str) -> Iterator[None]:
    """Holds the folder of a SQLite file, where its file system has locks."""
    file = sqlite_file(uri)
    if file is None or not file.parent.is_dir():
        yield
        return
    handle = os.open(file.parent, os.O_RDONLY)
    try:
        with suppress(OSError):  # no locks there: the attempts remain
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
