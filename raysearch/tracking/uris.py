"""Tracking URIs: what each is to a driver on another machine, made absolute."""

import re
from pathlib import Path

from raysearch.store.locations import PlaceKind, kind_of

NO_TRACKER = "none"
"""The word in place of a URI for a run that is shown nowhere."""
_NAMES = ("databricks", "databricks-uc")
"""Words that MLflow takes in place of a URI."""
_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*:")


def tracking_kind(uri: str) -> PlaceKind:
    """Returns what a tracking URI is to a driver, as `kind_of` of a store; "none" is no place, and
    so the same everywhere."""
    if uri.startswith("sqlite:"):
        return "local" if uri.startswith("sqlite:////") else "relative"
    return "remote" if uri in (NO_TRACKER, *_NAMES) else kind_of(uri)


def tracking_uri(uri: str, base: Path | None = None) -> str | None:
    """Returns `uri` with a relative SQLite file or folder made absolute, from `base` (default: the
    working directory); None for "none"."""
    base = base or Path.cwd()
    if uri == NO_TRACKER:
        return None
    if uri.startswith("sqlite:///") and not uri.startswith("sqlite:////"):
        path, mark, query = uri.removeprefix("sqlite:///").partition("?")
        return (
            f"sqlite:///{(base / path).absolute()}{mark}{query}"
            if path not in ("", ":memory:")
            else uri
        )
    if _SCHEME.match(uri) or uri in _NAMES:
        return uri
    return str((base / uri).absolute())
