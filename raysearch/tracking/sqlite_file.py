"""Finds the SQLite file of a tracking URI, and says at once what keeps it from being used.

MLflow tries to open a file that cannot be made for two minutes (mlflow 3.17: ten attempts, each
wait twice the one before).

Invariants: no file is left behind, and no content is changed; a search that writes to the same file
is not held up, since nothing here locks it for writing.
"""

import os
import sqlite3
import tempfile
from pathlib import Path
from urllib.parse import quote

from raysearch.errors import TrackingError
from raysearch.tracking.uris import is_in_memory, read_sqlite_uri

_SECONDS = 1.0
"""Time limit for a lock that another process holds: that one passes."""


def sqlite_file(uri: str) -> Path | None:
    """Returns the file of a SQLite URI with an absolute path; None for any other URI."""
    found = read_sqlite_uri(uri)
    return Path(found[1]) if found and found[1].startswith("/") else None


def check_uri(uri: str) -> None:
    """Checks that a tracking URI, if it is one of SQLite, names a database that can keep a run.

    Raises: TrackingError, as `check_sqlite`.
    """
    if is_in_memory(uri):
        raise TrackingError("is a database in memory, which ends with the run")
    if (file := sqlite_file(uri)) is not None:
        check_sqlite(file)


def check_sqlite(file: Path) -> None:
    """Raises: TrackingError if a SQLite file can neither be written nor made; the text begins with
    what is wrong, and does not repeat the file, which the URI names."""
    try:
        there = file.exists()
        folder = file.resolve().parent  # where a link leads
        file.with_name(f"{file.name}-journal").exists()  # SQLite writes it; too long a name raises
        _check_folder(folder)
        if there:
            _check_file(file)
    except (OSError, ValueError, RuntimeError, sqlite3.Error) as e:
        why = getattr(e, "strerror", None) or e
        raise TrackingError(f"cannot be written ({why})") from e


def _check_folder(folder: Path) -> None:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return
    except OSError as e:
        raise TrackingError(f"{folder} is no folder that can be written ({e.strerror})") from e


def _check_file(file: Path) -> None:
    if not file.is_file():
        raise TrackingError("is no file")
    if not os.access(file, os.W_OK):  # SQLite would open it to be read
        raise OSError("it may only be read")
    where = f"file:{quote(str(file))}?mode=rw"
    connection = sqlite3.connect(where, uri=True, timeout=_SECONDS, isolation_level=None)
    try:
        connection.execute("PRAGMA schema_version")  # reads the first page, and no more
    except sqlite3.OperationalError as e:
        if "locked" not in str(e):
            raise
    finally:
        connection.close()
