"""A folder on local disk: files under a temporary name, fsynced, renamed; a log is appended to, one fsync for each batch.

Invariants: of `whole_file`; the folders that it makes are durable, with their names.
"""

import fcntl
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from raysearch.errors import StoreError
from raysearch.whole_file import TEMPORARY, fsync_folder, make_folder, write_bytes_whole

_LOCK = "lock"


class LocalFolder:
    """The folder at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().absolute()

    @property
    def place(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        return self.path.name

    def shown(self, name: str) -> str:
        return str(self.path / name)

    def at(self, name: str) -> "LocalFolder":
        return LocalFolder(self.path / name)

    def read(self, name: str) -> bytes:
        path = self.path / name
        try:
            return path.read_bytes()
        except OSError as e:
            raise StoreError(f"{path}: cannot be read ({e.strerror or e})") from e

    def each(self, names: Sequence[str]) -> Iterator[bytes]:
        return (self.read(name) for name in names)

    def write(self, name: str, content: bytes) -> None:
        _make(self.path)
        write_bytes_whole(self.path / name, content)

    def delete(self, name: str) -> None:
        path = self.path / name
        try:
            path.unlink()
        except OSError as e:
            raise StoreError(
                f"{path}: cannot be removed ({e.strerror or e}); the driver must be able to write there"
            ) from e

    def exists(self, name: str) -> bool:
        return (self.path / name).is_file()

    def names(self) -> list[str]:
        return sorted(p.name for p in self._entries() if p.is_file() and not p.name.startswith("."))

    def folders(self) -> list[str]:
        return sorted(p.name for p in self._entries() if p.is_dir())

    def claim(self, name: str) -> "LocalFolder | None":
        _make(self.path)
        path = self.path / name
        try:
            make_folder(path)
        except FileExistsError:
            return None
        except OSError as e:
            raise _unwritable(path, e) from e
        return LocalFolder(path)

    def log(self, max_bytes: int) -> "AppendedLog":
        _make(self.path)
        return AppendedLog(self.path, max_bytes)

    @contextmanager
    def lock(self, what: str) -> Iterator[None]:
        path = self.path / _LOCK
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as e:
            raise StoreError(
                f"{path}: cannot be opened ({e.strerror or e}); a driver must be able to write the run folder"
            ) from e
        try:
            _take(handle, path, what)
            yield
        finally:
            os.close(handle)  # which lets go of the lock, as the kernel does for a process that dies

    def holder(self) -> str | None:
        """Who holds the lock now, in words; None where nobody does. Takes it from nobody."""
        path = self.path / _LOCK
        try:
            handle = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        except OSError as e:
            raise StoreError(f"{path}: cannot be read ({e.strerror or e}); check its rights") from e
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _holder(handle)
        except OSError as e:
            raise StoreError(
                f"{path}: this file system cannot lock ({e.strerror or e}); give --store a local folder"
            ) from e
        finally:
            os.close(handle)
        return None

    def sweep(self) -> None:
        for path in self._entries():
            if path.name.startswith(".") and path.name.endswith(TEMPORARY):
                self.delete(path.name)

    def _entries(self) -> list[Path]:
        try:
            return list(self.path.iterdir()) if self.path.is_dir() else []
        except OSError as e:
            raise StoreError(f"{self.path}: cannot be listed ({e.strerror or e}); check its rights") from e


class AppendedLog:
    """Files of `folder` that are appended to, each until it has `max_bytes`."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._files = 0
        self._handle: int | None = None

    def append(self, content: bytes) -> None:
        try:
            self._write(content)
        except OSError as e:
            raise StoreError(
                f"{self._folder}: cannot be written ({e.strerror or e}); free the disk, then `resume`"
            ) from e

    def close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _write(self, content: bytes) -> None:
        if self._handle is not None and os.fstat(self._handle).st_size >= self._max_bytes:
            self.close()
        if self._handle is None:
            path = self._folder / f"{self._files:08d}.jsonl"
            self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
            self._files += 1
            fsync_folder(self._folder)
        view = memoryview(content)
        while view:
            view = view[os.write(self._handle, view) :]
        os.fsync(self._handle)


def _make(path: Path) -> None:
    """`path` and the folders above it are there, and their names durable."""
    if path.is_dir():
        return
    if path.parent != path:
        _make(path.parent)
    try:
        make_folder(path)
    except FileExistsError as e:
        if not path.is_dir():  # else another one was quicker
            raise _unwritable(path, e) from e
    except OSError as e:
        raise _unwritable(path, e) from e


def _unwritable(path: Path, e: OSError) -> StoreError:
    return StoreError(
        f"{path}: cannot be made ({e.strerror or e}); free the disk, or give --store a folder that you may write"
    )


def _take(handle: int, path: Path, what: str) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as e:
        raise StoreError(
            f"{what}: {_holder(handle)} works on it now; wait for its end or stop it, then `resume`"
        ) from e
    except OSError as e:
        raise StoreError(
            f"{path}: this file system cannot lock ({e.strerror or e}); give --store a local folder"
        ) from e
    try:
        os.ftruncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
    except OSError as e:
        raise StoreError(f"{path}: cannot be written ({e.strerror or e}); free the disk, then `resume`") from e


def _holder(handle: int) -> str:
    return os.read(handle, 200).decode(errors="replace").strip() or "another driver"
