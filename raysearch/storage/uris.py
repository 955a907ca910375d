"""URIs of object stores: which places are URIs, and URIs without their credentials.

Invariants: what is shown or written down has no user, no password, and no query value that is a
secret by its name.
"""

import re
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

_SECRET = re.compile(
    r"secret|password|passwd|token|(^|[_-])sig(nature)?$|(access|account|api)[_-]?key", re.I
)


def without_credentials(uri: str) -> str:
    """`uri` without user:password@ and without secrets in its query, to be written down or shown."""
    if "://" not in uri:
        return uri
    parts = urlsplit(uri)
    kept = [pair for pair in parts.query.split("&") if not _SECRET.search(pair.partition("=")[0])]
    if "@" not in parts.netloc and "&".join(kept) == parts.query:
        return uri  # not put together again: sqlite:////a has more slashes than urlunsplit would give it
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="&".join(kept)))


def is_uri(place: str | Path) -> bool:
    """Whether it names its scheme, as s3://bucket/runs does."""
    return isinstance(place, str) and re.match(r"^[A-Za-z][A-Za-z0-9+.-]*://", place) is not None
