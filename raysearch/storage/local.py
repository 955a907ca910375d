"""A folder on local disk: files are written under a temporary name, fsynced and renamed; logs are
appended to.

Invariants: those of `atomic_write.py`, in particular that no link is followed below the folder that
was named; folders that it makes are durable, with their names. A link is listed nevertheless, so
that reading it raises an error instead of being skipped.
"""

import fcntl
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from raysearch.errors import StoreError
from raysearch.storage.atomic_write import (
    TEMPORARY,
    make_folder,
    open_plain,
    opened_folder,
    os_errors_in_one_line,
    read_below,
    write_below,
)

_GIVE_ANOTHER = "free the disk, or give --store a folder that you may write"
_FREE_THE_DISK = "free the disk, then `resume`"
_LOCAL_STORE = "give --store a local folder"
_LOCK = "lock"
_LOOK = 0.1
"""Seconds within which a look at the lock has ended (`LocalFolder.holder`)."""


class LocalFolder:
    """The folder at `path`, or `inside` it; what is inside is never reached through a link."""

    def __init__(self, path: Path, inside: tuple[str, ...] = ()) -> None:
        self._root = path.expanduser().absolute()
        self._inside = inside
        self.path = self._root.joinpath(*inside)

    @property
    def place(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        return self.path.name

    def shown(self, name: str) -> str:
        return str(self.path / name)

    def at(self, name: str) -> "LocalFolder":
        return LocalFolder(self._root, (*self._inside, *name.split("/")))

    def read(self, name: str) -> bytes:
        with os_errors_in_one_line(f"{self.path / name}: cannot be read"):
            return read_below(self._root, (*self._inside, name))

    def check_plain(self, name: str) -> Path:
        """Returns the path of a file, for callers that open it themselves.

        Raises:
            StoreError: it is a link, or no plain file.
        """
        with os_errors_in_one_line(f"{self.path / name}: cannot be read"), self._opened() as folder:
            os.close(open_plain(folder, name, os.O_RDONLY))
        return self.path / name

    def read_each(self, names: Sequence[str]) -> Iterator[bytes]:
        return (self.read(name) for name in names)

    def write(self, name: str, content: bytes) -> None:
        _make(self._root)
        write_below(self._root, (*self._inside, name), content)

    def delete(self, name: str) -> None:
        path = self.path / name
        way_out = "the driver must be able to write there"
        with os_errors_in_one_line(f"{path}: cannot be removed", way_out), self._opened() as folder:
            os.unlink(name, dir_fd=folder)

    def exists(self, name: str) -> bool:
        return (self.path / name).is_file()

    def names(self) -> list[str]:
        return sorted(
            p.name for p in self._entries() if not p.is_dir() and not p.name.startswith(".")
        )

    def folders(self) -> list[str]:
        return sorted(p.name for p in self._entries() if p.is_dir())

    def claim(self, name: str) -> "LocalFolder | None":
        _make(self._root)
        with os_errors_in_one_line(f"{self.path / name}: cannot be made", _GIVE_ANOTHER):
            try:
                with self._opened(make=True) as folder:
                    os.mkdir(name, dir_fd=folder)
                    os.fsync(folder)
            except FileExistsError:
                return None
        return self.at(name)

    def log(self, max_bytes: int) -> "AppendedLog":
        _make(self._root)
        with (
            os_errors_in_one_line(f"{self.path}: cannot be made", _GIVE_ANOTHER),
            self._opened(make=True),
        ):
            pass
        return AppendedLog(self._root, self._inside, max_bytes)

    @contextmanager
    def lock(self, what: str) -> Iterator[None]:
        path = self.path / _LOCK
        way_out = "a driver must be able to write the run folder"
        with os_errors_in_one_line(f"{path}: cannot be opened", way_out), self._opened() as folder:
            handle = open_plain(folder, _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _take(handle, path, what)
            yield
        finally:
            os.close(handle)  # this releases the lock, as the kernel does for a process that dies

    def holder(self) -> str | None:
        """Describes the process that holds the lock now; None if nobody does. It shares
        the lock for a moment, so that whoever takes it must try twice (`_take`)."""
        path = self.path / _LOCK
        with os_errors_in_one_line(f"{path}: cannot be read", "check its rights"):
            try:
                with self._opened() as folder:
                    handle = open_plain(folder, _LOCK, os.O_RDONLY)
            except FileNotFoundError:
                return None
        try:
            with os_errors_in_one_line(
                f"{path}: this file system cannot lock", _LOCAL_STORE, BlockingIOError
            ):
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _holder(handle)
        finally:
            os.close(handle)
        return None

    def sweep(self) -> None:
        for path in self._entries():
            if path.name.startswith(".") and path.name.endswith(TEMPORARY) and not path.is_dir():
                self.delete(path.name)

    def _opened(self, make: bool = False) -> AbstractContextManager[int]:
        """Opens a handle of the folder, for the duration of a `with` block.

        Raises:
            OSError: it cannot be opened.
        """
        return opened_folder(self._root, self._inside, make)

    def _entries(self) -> list[Path]:
        with os_errors_in_one_line(f"{self.path}: cannot be listed", "check its rights"):
            return list(self.path.iterdir()) if self.path.is_dir() else []


class AppendedLog:
    """A log whose files are appended to, each until it has `max_bytes`."""

    def __init__(self, root: Path, inside: tuple[str, ...], max_bytes: int) -> None:
        self._place = root, inside
        self._max_bytes = max_bytes
        self._files = 0
        self._handle: int | None = None

    def append(self, content: bytes) -> None:
        root, inside = self._place
        with os_errors_in_one_line(f"{root.joinpath(*inside)}: cannot be written", _FREE_THE_DISK):
            self._write(content)

    def close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _write(self, content: bytes) -> None:
        if self._handle is not None and os.fstat(self._handle).st_size >= self._max_bytes:
            self.close()
        if self._handle is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
            with opened_folder(*self._place) as folder:
                self._handle = open_plain(folder, f"{self._files:08d}.jsonl", flags, 0o644)
                self._files += 1
                os.fsync(folder)
        view = memoryview(content)
        while view:
            view = view[os.write(self._handle, view) :]
        os.fsync(self._handle)


def _make(path: Path) -> None:
    """Makes `path` and the folders above it, durably."""
    if path.is_dir():
        return
    if path.parent != path:
        _make(path.parent)
    with os_errors_in_one_line(f"{path}: cannot be made", _GIVE_ANOTHER):
        try:
            make_folder(path)
        except FileExistsError:
            if not path.is_dir():  # otherwise another process was quicker
                raise


def this_process() -> str:
    """Returns the words by which a lock says that this process holds it."""
    return f"process {os.getpid()} on {socket.gethostname()}"


def _take(handle: int, path: Path, what: str) -> None:
    try:
        with os_errors_in_one_line(
            f"{path}: this file system cannot lock", _LOCAL_STORE, BlockingIOError
        ):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(_LOOK)
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as e:
        raise StoreError(
            f"{what}: {_holder(handle)} works on it now; wait for its end or stop it, then `resume`"
        ) from e
    with os_errors_in_one_line(f"{path}: cannot be written", _FREE_THE_DISK):
        os.ftruncate(handle, 0)
        os.write(handle, this_process().encode())


def _holder(handle: int) -> str:
    return os.read(handle, 200).decode(errors="replace").strip() or "another driver"
