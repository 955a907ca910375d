"""Files that are there whole or not at all: written under a temporary name, fsynced, renamed, their folder fsynced.

Invariants: a reader never sees half a file under its own name; temporary names start with a dot, which pyarrow's and
DuckDB's folder readers skip.
"""

import os
from collections.abc import Callable
from pathlib import Path

from raysearch.errors import StoreError

TEMPORARY = ".tmp"
"""How the name of a file that is being written ends."""


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Lets `write` fill a temporary file beside `path`, then puts it in its place. Raises: StoreError if it cannot."""
    temporary = path.with_name(f".{path.name}{TEMPORARY}")
    try:
        write(temporary)
        _fsync(temporary)
        os.replace(temporary, path)
        fsync_folder(path.parent)
    except OSError as e:
        raise StoreError(
            f"{path}: cannot be written ({e.strerror or e}); free the disk or choose another folder"
        ) from e


def write_text_whole(path: Path, text: str) -> None:
    """`path` holds `text`, in UTF-8. Raises: StoreError if it cannot be written."""
    write_whole(path, lambda temporary: _write_text(temporary, text))


def write_bytes_whole(path: Path, content: bytes) -> None:
    """`path` holds `content`. Raises: StoreError if it cannot be written."""
    write_whole(path, lambda temporary: _write_bytes(temporary, content))


def make_folder(path: Path) -> None:
    """A new folder at `path`, and its name durable. Raises: OSError, FileExistsError among them."""
    path.mkdir()
    fsync_folder(path.parent)


def fsync_folder(path: Path) -> None:
    """The names in `path` are durable. Raises: OSError."""
    _fsync(path)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
