"""Files that are there whole or not at all: written under a temporary name, fsynced, renamed, their
folder fsynced.

Invariants: a reader never sees half a file under its own name; temporary names start with a dot,
which pyarrow's and DuckDB's folder readers skip. No link is followed below the folder that was
named: whoever may write there could have put it, and let us write (or read) another file of the one
who runs this. So folders are walked by their handles, one after the other, and files are made anew.
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
"""How the name of a file that is being written ends."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NO_LINK = os.O_NOFOLLOW | os.O_CLOEXEC
_NONBLOCK = os.O_NONBLOCK
"""A pipe that was put where a file should be is opened at once, and then refused."""


def write_text_whole(path: Path, text: str) -> None:
    """`path` holds `text`, in UTF-8. Raises: StoreError if it cannot be written."""
    write_bytes_whole(path, text.encode())


def write_bytes_whole(path: Path, content: bytes) -> None:
    """`path` holds `content`; its folder is the one that was named. Raises: StoreError if it cannot
    be written."""
    write_below(path.parent, (path.name,), content)


def write_below(root: Path, place: Sequence[str], content: bytes) -> None:
    """The file `place` below `root` holds `content`; folders on the way are made. Raises:
    StoreError if it cannot be written."""
    path = root.joinpath(*place)
    try:
        with opened_folder(root, place[:-1], make=True) as folder:
            _write(folder, place[-1], content)
    except OSError as e:
        raise StoreError(
            f"{path}: cannot be written ({why(e)}); free the disk or choose another folder"
        ) from e


def read_below(root: Path, place: Sequence[str]) -> bytes:
    """The content of the file `place` below `root`. Raises: OSError, for a link and for what is no
    plain file too."""
    with (
        opened_folder(root, place[:-1]) as folder,
        os.fdopen(open_plain(folder, place[-1], os.O_RDONLY), "rb") as file,
    ):
        return file.read()


@contextmanager
def opened_folder(root: Path, place: Sequence[str] = (), make: bool = False) -> Iterator[int]:
    """A handle of the folder `place` below `root`, while inside. `make`: folders below `root` that
    are not there are made.

    Raises: OSError; for a link below `root` it says so.
    """
    handle = os.open(root, _FOLDER)
    try:
        for name in place:
            assert name not in ("", ".", ".."), name
            assert "/" not in name, name
            if make:
                _make(handle, name)
            handle, above = _below(handle, name), handle
            os.close(above)
        yield handle
    finally:
        os.close(handle)


def open_plain(folder: int, name: str, flags: int, mode: int = 0o666) -> int:
    """A handle of the file `name` in `folder`. Raises: OSError, for a link and for what is no plain
    file too."""
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


def make_folder(path: Path) -> None:
    """A new folder at `path`, and its name durable. Raises: OSError, FileExistsError among them."""
    path.mkdir()
    fsync_folder(path.parent)


def fsync_folder(path: Path) -> None:
    """The names in `path` are durable. Raises: OSError."""
    handle = os.open(path, _FOLDER)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def why(e: OSError) -> str:
    """What the system, or we, say of it."""
    return str(e.strerror or e)


def _write(folder: int, name: str, content: bytes) -> None:
    temporary = f".{name}.{secrets.token_hex(4)}{TEMPORARY}"  # one of its own: two that write a file at once are both whole
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
        return  # what it is shows when it is opened
    os.fsync(folder)


def _below(folder: int, name: str) -> int:
    try:
        return os.open(name, _FOLDER | _NO_LINK, dir_fd=folder)
    except OSError as e:
        raise _as_link(e, folder, name) from e


def _as_link(e: OSError, folder: int, name: str) -> OSError:
    """The error, in words where it is of a link."""
    try:
        is_link = stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except OSError:
        return e
    said = f"{name} is a link, and none is followed here; put what it leads to in its place"
    return OSError(errno.ELOOP, said) if is_link else e
