"""What a run asks of the place where it is kept: the protocols Folder and Log.

Invariants: a file is there whole or not at all; what `write` and `append` returned from is durable;
names are plain file names, no path.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol


class Log(Protocol):
    """The files 00000000.jsonl, 00000001.jsonl, ... of a folder, written by one writer alone, in
    order."""

    def append(self, content: bytes) -> None:
        """`content` is durable when this returns. Raises: StoreError; part of it may be there then,
        so that nothing may follow."""
        ...

    def close(self) -> None:
        """Lets go of what is open. Harmless twice."""
        ...


class Folder(Protocol):
    """A folder. It need not be there: it is made by the first file in it. Every method raises
    StoreError where the place refuses."""

    @property
    def place(self) -> str:
        """Its absolute path or URI, without credentials: to be shown, written down and given to
        `folder_at` again."""
        ...

    @property
    def name(self) -> str:
        """The last part of its place."""
        ...

    def shown(self, name: str) -> str:
        """The place of a file in it, to be shown."""
        ...

    def at(self, name: str) -> "Folder":
        """The folder `name` in it."""
        ...

    def read(self, name: str) -> bytes:
        """The content of a file, which must be there."""
        ...

    def each(self, names: Sequence[str]) -> Iterator[bytes]:
        """The contents of files, in their order; some are read ahead where that is faster."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """The file holds `content`, whole, whatever it held before."""
        ...

    def delete(self, name: str) -> None:
        """The file is not there any more."""
        ...

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""
        ...

    def names(self) -> list[str]:
        """The files in it, sorted; none where it is not there."""
        ...

    def folders(self) -> list[str]:
        """The folders in it, sorted; none where it is not there."""
        ...

    def claim(self, name: str) -> "Folder | None":
        """A new folder in it, None if there is one of that name. On an object store two that claim
        at the same instant both get it."""
        ...

    def log(self, max_bytes: int) -> Log:
        """A new log in it. `max_bytes`: of a file, roughly."""
        ...

    def lock(self, what: str) -> AbstractContextManager[None]:
        """Nobody else holds it while inside, where the place can lock at all. `what`: named if
        somebody does."""
        ...

    def sweep(self) -> None:
        """Removes halves of files that writers who died have left."""
        ...
