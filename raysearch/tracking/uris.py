"""Tracking URIs: what each is to a driver on another machine, made absolute."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import parse_qs

from raysearch.store.locations import PlaceKind, kind_of

NO_TRACKER = "none"
"""The word in place of a URI for a run that is shown nowhere."""
_NAMES = ("databricks", "databricks-uc")
"""Words that MLflow takes in place of a URI."""
_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*:")
_SQLITE = re.compile(r"(sqlite(?:\+\w+)?:///)([^?]+)(.*)", re.S)


@dataclass(frozen=True, slots=True)
class SqliteUri:
    """A URI of SQLAlchemy that names a file of SQLite, with or without a Python driver
    (`sqlite+pysqlite`), in its three parts."""

    head: str
    path: str
    query: str

    def __str__(self) -> str:
        return f"{self.head}{self.path}{self.query}"


def read_sqlite_uri(uri: str) -> SqliteUri | None:
    """Returns the parts of a URI of SQLite; None for any other, for a database in memory, and for a
    path that SQLite itself takes as a URI (`file:x.db?uri=true`)."""
    found = _SQLITE.fullmatch(uri)
    if found is None or found[2] == ":memory:":
        return None
    if found[2].startswith("file:") and "uri" in parse_qs(found[3].removeprefix("?")):
        return None
    return SqliteUri(*found.groups())


def tracking_kind(uri: str) -> PlaceKind:
    """Returns what a tracking URI is to a driver, as `kind_of` of a store; "none" is no place, and
    so the same everywhere."""
    if re.match(r"sqlite[:+]", uri):
        file = read_sqlite_uri(uri)
        return "local" if file is not None and file.path.startswith("/") else "relative"
    return "remote" if uri in (NO_TRACKER, *_NAMES) else kind_of(uri)


def tracking_uri(uri: str, base: Path | None = None) -> str | None:
    """Returns `uri` with a relative SQLite file or folder made absolute, from `base` (default: the
    working directory); None for "none"."""
    base = base or Path.cwd()
    if uri == NO_TRACKER:
        return None
    if (file := read_sqlite_uri(uri)) is not None:
        return str(replace(file, path=str((base / file.path).absolute())))
    if _SCHEME.match(uri) or uri in _NAMES:
        return uri
    return str((base / uri).absolute())
