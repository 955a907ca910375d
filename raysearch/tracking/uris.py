"""Tracking URIs: what each is to a driver on another machine, made absolute."""

import re
from pathlib import Path
from urllib.parse import parse_qs

from raysearch.store.locations import PlaceKind, kind_of

NO_TRACKER = "none"
"""The word in place of a URI for a run that is shown nowhere."""
_NAMES = ("databricks", "databricks-uc")
"""Words that MLflow takes in place of a URI."""
_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*:")
_SQLITE = re.compile(r"(sqlite(?:\+\w+)?:///)([^?]+)(.*)")


def read_sqlite_uri(uri: str) -> tuple[str, str, str] | None:
    """Returns (what stands before, path, query) of a URI of SQLite, with or without a Python driver
    (`sqlite+pysqlite`); None for any other, for a database in memory, and for a path that SQLite
    itself takes as a URI (`file:x.db?uri=true`)."""
    found = _SQLITE.fullmatch(uri)
    if not found or found[2] == ":memory:":
        return None
    if found[2].startswith("file:") and "uri" in parse_qs(found[3][1:]):
        return None
    return found[1], found[2], found[3]


def is_in_memory(uri: str) -> bool:
    """Says whether a URI names a SQLite database in memory, which ends with its process."""
    return re.fullmatch(r"sqlite(\+\w+)?:/{0,3}((file:)?:memory:)?([?].*)?", uri) is not None


def tracking_kind(uri: str) -> PlaceKind:
    """Returns what a tracking URI is to a driver, as `kind_of` of a store; "none" is no place, and
    so the same everywhere."""
    if re.match(r"sqlite[:+]", uri):
        file = read_sqlite_uri(uri)
        return "local" if file and file[1].startswith("/") else "relative"
    return "remote" if uri in (NO_TRACKER, *_NAMES) else kind_of(uri)


def tracking_uri(uri: str, base: Path | None = None) -> str | None:
    """Returns `uri` with a relative SQLite file or folder made absolute, from `base` (default: the
    working directory); None for "none"."""
    base = base or Path.cwd()
    if uri == NO_TRACKER:
        return None
    if file := read_sqlite_uri(uri):
        return f"{file[0]}{(base / file[1]).absolute()}{file[2]}"
    if _SCHEME.match(uri) or uri in _NAMES:
        return uri
    return str((base / uri).absolute())
