"""Writes files atomically: under a temporary name, fsynced, renamed, with their folder fsynced.

Invariants: a reader never sees an incomplete file under its own name; temporary names start with a
dot, which pyarrow and DuckDB skip. No link is followed below the folder that was named, because
anyone who may write there could place one and make us write or read another of the user's files. So
folders are opened one below the other by handle, and files are created new.
"""

import errno
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from raysearch.errors import StoreError

TEMPORARY = ".tmp"
"""Suffix of a file that is being written."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NO_LINK = os.O_NOFOLLOW | os.O_CLOEXEC
_NONBLOCK = os.O_NONBLOCK
"""Opens a pipe in a file's place at once, so that it can be refused."""


def write_text_whole(path: Path, text: str) -> None:
    """Writes `text` to `path`, in UTF-8.

    Raises:
        StoreError: it cannot be written.
    """
    write_bytes_whole(path, text.encode())


def write_bytes_whole(path: Path, content: bytes) -> None:
    """Writes `content` to `path`, whose folder must exist.

    Raises:
        StoreError: it cannot be written.
    """
    write_below(path.parent, (path.name,), content)


def write_below(root: Path, place: Sequence[str], content: bytes) -> None:
    """Writes `content` to the file `place` below `root`, and makes folders on the way.

    Raises:
        StoreError: it cannot be written.
    """
    path = root.joinpath(*place)
    with (
        os_errors_in_one_line(
            f"{path}: cannot be written", "free the disk or choose another folder"
        ),
        opened_folder(root, place[:-1], make=True) as folder,
    ):
        _write(folder, place[-1], content)


def read_below(root: Path, place: Sequence[str]) -> bytes:
    """Returns the content of the file `place` below `root`.

    Raises:
        OSError: it cannot be read, is a link, or is no plain file.
    """
    with (
        opened_folder(root, place[:-1]) as folder,
        os.fdopen(open_plain(folder, place[-1], os.O_RDONLY), "rb") as file,
    ):
        return file.read()


@contextmanager
def opened_folder(root: Path, place: Sequence[str] = (), make: bool = False) -> Iterator[int]:
    """Opens a handle of the folder `place` below `root`, for the duration of a `with` block.

    Args:
        make: whether missing folders below `root` are made.

    Raises:
        OSError: it cannot be opened; the text says so if it is a link.
    """
    handle = os.open(root, _FOLDER)
    try:
        for name in place:
            assert name not in ("", ".", ".."), name
            assert "/" not in name, name
            if make:
                _make(handle, name)
            handle, above = _open_subfolder(handle, name), handle
            os.close(above)
        yield handle
    finally:
        os.close(handle)


def open_plain(folder: int, name: str, flags: int, mode: int = 0o666) -> int:
    """Returns a handle of the file `name` in `folder`.

    Raises:
        OSError: it cannot be opened, is a link, or is no plain file.
    """
    try:
        handle = os.open(name, flags | _NO_LINK | _NONBLOCK, mode, dir_fd=folder)
    except OSError as e:
        raise _as_link(e, folder, name) from e
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "it is no plain file; remove it")
    if flags & (os.O_WRONLY | os.O_RDWR) and found.st_nlink > 1:
        os.close(handle)
        raise OSError(errno.EMLINK, "it is another file's second name; remove it")
    return handle


def writable_folder(path: Path) -> None:
    """Makes the folder that a user names, and those that it lies in; it may be there.

    Raises:
        StoreError: it cannot be made.
    """
    with os_errors_in_one_line(f"{path}: cannot be made", "name a folder that you may write"):
        path.mkdir(parents=True, exist_ok=True)


def make_folder(path: Path) -> None:
    """Makes a folder at `path`, durably.

    Raises:
        OSError: it cannot be made; FileExistsError if it exists.
    """
    path.mkdir()
    fsync_folder(path.parent)


def fsync_folder(path: Path) -> None:
    """Makes the names in `path` durable.

    Raises:
        OSError: the system refuses.
    """
    handle = os.open(path, _FOLDER)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def os_errors_in_one_line(
    what: str, way_out: str = "", but: type[OSError] | None = None
) -> Iterator[None]:
    """Turns an OSError of its block into one line: `what`, the reason, and what would do.

    Args:
        but: an error that passes as it is.

    Raises:
        StoreError: that line.
    """
    try:
        yield
    except OSError as e:
        if but is not None and isinstance(e, but):
            raise
        raise StoreError(f"{what} ({e.strerror or e}){way_out and f'; {way_out}'}") from e


def _write(folder: int, name: str, content: bytes) -> None:
    # A random name, so that two writers at once do not mix.
    temporary = f".{name}.{secrets.token_hex(4)}{TEMPORARY}"
    handle = open_plain(folder, temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(handle)
        os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        os.unlink(temporary, dir_fd=folder)
        raise
    os.fsync(folder)


def _make(folder: int, name: str) -> None:
    try:
        os.mkdir(name, dir_fd=folder)
    except FileExistsError:
        return  # opening it shows whether it is a folder
    os.fsync(folder)


def _open_subfolder(folder: int, name: str) -> int:
    try:
        return os.open(name, _FOLDER | _NO_LINK, dir_fd=folder)
    except OSError as e:
        raise _as_link(e, folder, name) from e


def _as_link(e: OSError, folder: int, name: str) -> OSError:
    """Returns the error, with a clearer text if it is about a link."""
    try:
        is_link = stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except OSError:
        return e
    text = f"{name} is a link, and none is followed here; put what it leads to in its place"
    return OSError(errno.ELOOP, text) if is_link else e
