"""Opens a folder by its path or URI."""

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from raysearch.storage.folder import Folder
from raysearch.storage.local import LocalFolder
from raysearch.storage.uris import is_uri

if TYPE_CHECKING:
    from raysearch.storage.retries import RetryPolicy

FolderLike = str | Path | Folder
"""A folder, or its path or URI."""


def open_folder(place: FolderLike, patience: "RetryPolicy | None" = None) -> Folder:
    """The folder of a path or URI (a folder stays what it is). `patience`: with an object store
    that does not answer.

    Raises: StoreError where no such store is known.
    """
    if not isinstance(place, str | Path):
        return place
    text = str(place)
    if not is_uri(text):
        return LocalFolder(Path(text))
    parts = urlsplit(text)
    if parts.scheme == "file":
        return LocalFolder(Path(unquote(parts.path)))
    from raysearch.storage.object_store import ObjectFolder, connect

    return ObjectFolder(connect(text, patience))
