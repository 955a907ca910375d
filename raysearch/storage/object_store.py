"""A folder on an object store, through pyarrow.fs: S3, Google Cloud Storage, Azure, any that
`FileSystem.from_uri` takes.

Invariants:

- a file is built in memory and written by one PUT, which makes it complete; no file is appended to;
- a log has one object for each batch, so that readers see acknowledged batches and no part of one;
- every request goes through one RetryPolicy; an error of the store becomes a StoreError of one
  line.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import SplitResult, urlsplit, urlunsplit

import pyarrow as pa
from pyarrow import fs

from raysearch.errors import StoreError, check_memory
from raysearch.storage.retries import RetryPolicy, is_permanent, short_message
from raysearch.storage.uris import without_credentials

T = TypeVar("T")
READERS = 16
"""Files read at once: a GET takes some tens of milliseconds of waiting."""
_AHEAD = 4 * READERS
_ONE_PUT = "allow_delayed_open=true"
"""Without it pyarrow writes even the smallest file to S3 as a multipart upload, in three requests
(apache/arrow#45957).
"""


@dataclass(frozen=True, slots=True)
class Connection:
    """A store, and the path in it that its URI named; `shown` is the URI without credentials."""

    files: Any
    path: str
    shown: SplitResult
    retries: RetryPolicy


def connect(uri: str, retries: RetryPolicy | None = None) -> Connection:
    """Returns a connection to the store of a URI, with credentials from the URI or the environment.

    Raises:
        StoreError: there is no such store.
    """
    shown = without_credentials(uri)
    try:
        files, path = fs.FileSystem.from_uri(_for_pyarrow(uri))
    except (pa.ArrowException, OSError, ValueError) as e:
        why = " ".join(str(e).split()).replace(_for_pyarrow(uri), shown)
        raise StoreError(
            f"store {shown}: is none ({why}); give a folder, s3://BUCKET/PREFIX, gs:// or abfs://"
        ) from e
    return Connection(
        files, path.rstrip("/"), urlsplit(shown.rstrip("/")), retries or RetryPolicy()
    )


class ObjectFolder:
    """The prefix `inner` below the path of a connection."""

    def __init__(self, connection: Connection, inner: str = "") -> None:
        self._connection = connection
        self._inner = inner
        self._path = f"{connection.path}/{inner}" if inner else connection.path

    @property
    def place(self) -> str:
        return self._uri("", self._connection.shown.query)

    @property
    def name(self) -> str:
        return self._path.rpartition("/")[2]

    def shown(self, name: str) -> str:
        return self._uri(name, query="")

    def at(self, name: str) -> "ObjectFolder":
        return ObjectFolder(self._connection, f"{self._inner}/{name}" if self._inner else name)

    def read(self, name: str) -> bytes:
        def get() -> bytes:
            with self._connection.files.open_input_stream(
                f"{self._path}/{name}", compression=None
            ) as file:
                return bytes(file.read())

        return self._request(name, "read", get)

    def read_each(self, names: Sequence[str]) -> Iterator[bytes]:
        pool = ThreadPoolExecutor(READERS)
        try:
            ahead: deque[Future[bytes]] = deque()
            for name in names:
                ahead.append(pool.submit(self.read, name))
                if len(ahead) == _AHEAD:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def write(self, name: str, content: bytes) -> None:
        def put() -> None:
            with self._connection.files.open_output_stream(
                f"{self._path}/{name}", compression=None
            ) as file:
                file.write(content)

        self._request(name, "written", put)

    def delete(self, name: str) -> None:
        self._request(
            name, "removed", lambda: self._connection.files.delete_file(f"{self._path}/{name}")
        )

    def exists(self, name: str) -> bool:
        def check() -> bool:
            return bool(
                self._connection.files.get_file_info(f"{self._path}/{name}").type
                == fs.FileType.File
            )

        return self._request(name, "read", check)

    def names(self) -> list[str]:
        return self._list(fs.FileType.File)

    def folders(self) -> list[str]:
        return self._list(fs.FileType.Directory)

    def claim(self, name: str) -> "ObjectFolder | None":
        folder = self.at(name)
        return None if folder.names() or folder.folders() else folder

    def log(self, max_bytes: int) -> "SegmentLog":
        return SegmentLog(self)

    @contextmanager
    def lock(self, what: str) -> Iterator[None]:
        """Does nothing: an object store cannot lock, and drivers exclude each other
        (store/journal.py).
        """
        yield

    def sweep(self) -> None:
        """Does nothing: a PUT leaves no incomplete file."""

    def _list(self, kind: fs.FileType) -> list[str]:
        selector = fs.FileSelector(self._path, allow_not_found=True)
        found = self._request("", "listed", lambda: self._connection.files.get_file_info(selector))
        return sorted(info.base_name for info in found if info.type == kind)

    def _request(self, name: str, done: str, call: Callable[[], T]) -> T:
        try:
            return self._connection.retries.call(self.place, call)
        except FileNotFoundError as e:
            raise StoreError(
                f"{self.shown(name)}: cannot be {done} (there is no such object)"
            ) from e
        except (OSError, pa.ArrowException) as e:
            check_memory(e, self.shown(name))
            what = f"{self.shown(name)}: cannot be {done} ({short_message(e)})"
            if isinstance(e, OSError) and not is_permanent(e):
                waited = f"{self._connection.retries.seconds:.0f} s long"
                raise StoreError(f"{what}, {waited}; when the store answers again, `resume`") from e
            raise StoreError(f"{what}; check bucket, rights and credentials") from e

    def _uri(self, name: str, query: str) -> str:
        base = self._connection.shown
        path = "/".join(part for part in (base.path.rstrip("/"), self._inner, name) if part)
        return urlunsplit(base._replace(path=path, query=query))


class SegmentLog:
    """A log with one object for each append."""

    def __init__(self, folder: ObjectFolder) -> None:
        self._folder = folder
        self._segments = 0

    def append(self, content: bytes) -> None:
        self._folder.write(f"{self._segments:08d}.jsonl", content)
        self._segments += 1

    def close(self) -> None:
        """Does nothing: no file is open."""


def _for_pyarrow(uri: str) -> str:
    parts = urlsplit(uri)
    if parts.scheme != "s3" or "allow_delayed_open" in parts.query:
        return uri
    return urlunsplit(parts._replace(query="&".join(q for q in (parts.query, _ONE_PUT) if q)))
