"""Opens a folder by its path or URI."""

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from raysearch.errors import StoreError
from raysearch.storage.folder import Folder
from raysearch.storage.local import LocalFolder
from raysearch.storage.uris import is_uri

if TYPE_CHECKING:
    from raysearch.storage.retries import RetryPolicy

FolderLike = str | Path | Folder
"""A folder, or its path or URI."""


def open_folder(place: FolderLike, retries: "RetryPolicy | None" = None) -> Folder:
    """Returns the folder of a path or URI; returns a folder unchanged.

    Args:
        retries: how long an object store that does not answer is tried.

    Raises:
        StoreError: there is no such store.
    """
    if not isinstance(place, str | Path):
        return place
    text = str(place)
    if not is_uri(text):
        return LocalFolder(Path(text))
    parts = urlsplit(text)
    if parts.scheme == "file":
        return LocalFolder(Path(unquote(parts.path)))
    if not parts.netloc:
        raise StoreError(f"{text}: names no bucket; give {parts.scheme}://BUCKET/PREFIX")
    from raysearch.storage.object_store import ObjectFolder, connect

    return ObjectFolder(connect(text, retries))
