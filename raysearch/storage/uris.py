"""URIs of object stores: recognising them, and removing their credentials.

Invariants: a URI that is shown or stored has no password, no query value whose name marks a secret,
and no user, which may be a token; of Azure (abfs://) a container or an account stands there.
"""

import re
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

_SECRET = re.compile(
    r"secret|password|passwd|token|(^|[_-])sig(nature)?$|(access|account|api)[_-]?key", re.I
)
_AZURE = ("abfs", "abfss")


def without_credentials(uri: str) -> str:
    """Returns `uri` without user:password@ and without secrets in its query, to be stored or
    shown; abfs://CONTAINER:PASSWORD@ACCOUNT keeps its container.
    """
    if "://" not in uri:
        return uri
    parts = urlsplit(uri)
    query = [pair for pair in parts.query.split("&") if not _SECRET.search(pair.partition("=")[0])]
    user, _, host = parts.netloc.rpartition("@")
    name = user.partition(":")[0] if parts.scheme in _AZURE else ""
    netloc = f"{name}@{host}" if name else host
    if netloc == parts.netloc and "&".join(query) == parts.query:
        return uri  # unchanged, since urlunsplit would drop slashes of sqlite:////a
    return urlunsplit(parts._replace(netloc=netloc, query="&".join(query)))


def is_uri(place: str | Path) -> bool:
    """Says whether a place names its scheme, as s3://bucket/runs does."""
    return isinstance(place, str) and re.match(r"^[A-Za-z][A-Za-z0-9+.-]*://", place) is not None
