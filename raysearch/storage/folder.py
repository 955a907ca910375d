"""The protocols Folder and Log: what a run needs of its storage.

Invariants: a file exists completely or not at all; it is durable when `write` or `append` returns;
names are plain file names, not paths.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol


class Log(Protocol):
    """The files 00000000.jsonl, 00000001.jsonl, ... of a folder, written in order by one writer."""

    def append(self, content: bytes) -> None:
        """Makes `content` durable before it returns.

        Raises:
            StoreError: the storage refuses; part of it may be written then, so nothing may follow.
        """
        ...

    def close(self) -> None:
        """Closes open files. May be called twice."""
        ...


class Folder(Protocol):
    """A folder, which is made by the first file in it.

    Raises:
        StoreError: the storage refuses; any method may raise it.
    """

    @property
    def place(self) -> str:
        """Absolute path or URI without credentials, to be shown, stored, and opened again by
        `open_folder`.
        """
        ...

    @property
    def name(self) -> str:
        """Last part of its place."""
        ...

    def shown(self, name: str) -> str:
        """Returns the place of a file in it, to be shown."""
        ...

    def at(self, name: str) -> "Folder":
        """Returns the folder `name` in it."""
        ...

    def read(self, name: str) -> bytes:
        """Returns the content of a file, which must exist."""
        ...

    def read_each(self, names: Sequence[str]) -> Iterator[bytes]:
        """Yields the contents of files, in their order; reads ahead where that is faster."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Replaces the file's content as a whole."""
        ...

    def delete(self, name: str) -> None:
        """Deletes the file."""
        ...

    def exists(self, name: str) -> bool:
        """Says whether there is such a file."""
        ...

    def names(self) -> list[str]:
        """Returns the files in it, sorted; empty if it does not exist."""
        ...

    def folders(self) -> list[str]:
        """Returns the folders in it, sorted; empty if it does not exist."""
        ...

    def claim(self, name: str) -> "Folder | None":
        """Makes a new folder in it; returns None if there is one of that name.

        On an object store, two callers at the same instant both get it.
        """
        ...

    def log(self, max_bytes: int) -> Log:
        """Makes a new log in it, with files of about `max_bytes`."""
        ...

    def lock(self, what: str) -> AbstractContextManager[None]:
        """Locks it for the duration of a `with` block, if the storage can lock.

        Args:
            what: the name of the locked thing, for the error if another process holds it.
        """
        ...

    def sweep(self) -> None:
        """Deletes incomplete files of writers that died."""
        ...
