"""A folder by its path or URI; and URIs without what must not be seen.

Invariants: what is shown or written down has no user, no password, and no query value that is a secret by its name.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit, urlunsplit

from raysearch.folders.folder import Folder
from raysearch.folders.local import LocalFolder

if TYPE_CHECKING:
    from raysearch.folders.patience import Patience

Place = str | Path | Folder
"""A folder, or its path or URI."""
_SECRET = re.compile(r"secret|password|passwd|token|(^|[_-])sig(nature)?$|(access|account|api)[_-]?key", re.I)


def folder_at(place: Place, patience: "Patience | None" = None) -> Folder:
    """The folder of a path or URI (a folder stays what it is). `patience`: with an object store that does not answer.

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
    from raysearch.folders.objects import ObjectFolder, connect

    return ObjectFolder(connect(text, patience))


def is_uri(place: str | Path) -> bool:
    """Whether it names its scheme, as s3://bucket/runs does."""
    return isinstance(place, str) and re.match(r"^[A-Za-z][A-Za-z0-9+.-]*://", place) is not None


def without_credentials(uri: str) -> str:
    """`uri` without user:password@ and without secrets in its query, to be written down or shown."""
    if "://" not in uri:
        return uri
    parts = urlsplit(uri)
    kept = [pair for pair in parts.query.split("&") if not _SECRET.search(pair.partition("=")[0])]
    if "@" not in parts.netloc and "&".join(kept) == parts.query:
        return uri  # not put together again: sqlite:////a has more slashes than urlunsplit would give it
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="&".join(kept)))
