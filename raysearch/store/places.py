"""Where a run lives: store and tracking URIs, made absolute, and without credentials where they are written down.

Invariants: a relative place is resolved once, when a run starts, so that `resume` finds it from any folder.
"""

import re
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

from raysearch.errors import NotYetError

_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*:")


def store_path(uri: str | Path) -> Path:
    """The absolute folder that a store URI names. Raises: NotYetError for object stores and other schemes."""
    text = str(uri)
    if text.startswith("file://"):
        text = urlsplit(text).path
    elif match := _SCHEME.match(text):
        shown = without_credentials(text)
        raise NotYetError(f"store {shown}: this version keeps runs on local disk, not on {match[0]}//; give a folder")
    return Path(text).expanduser().absolute()


def kind_of(store: str | Path) -> Literal["relative", "local", "remote"]:
    """What a store is to a driver that may stand on another machine.

    relative: a folder below wherever the driver stands, so that in a Ray job it dies with the job's own folder; local: an absolute path
    (or file://), which outlives a job and is another folder on another machine, unless the disk is shared; remote: an object store.
    """
    if _SCHEME.match(str(store)):
        return "local" if str(store).startswith("file:") else "remote"
    return "local" if Path(store).expanduser().is_absolute() else "relative"


def tracking_kind(uri: str) -> Literal["relative", "local", "remote"]:
    """The same of a tracking URI; "none" is no place, and so the same everywhere."""
    if uri.startswith("sqlite:"):
        return "local" if uri.startswith("sqlite:////") else "relative"
    return "remote" if uri in ("none", "databricks", "databricks-uc") else kind_of(uri)


def tracking_uri(uri: str, base: Path | None = None) -> str:
    """`uri` with a relative SQLite file or folder made absolute, from `base` (default: the working directory)."""
    base = base or Path.cwd()
    if uri.startswith("sqlite:///") and not uri.startswith("sqlite:////"):
        path, mark, query = uri.removeprefix("sqlite:///").partition("?")
        return f"sqlite:///{(base / path).absolute()}{mark}{query}" if path not in ("", ":memory:") else uri
    if _SCHEME.match(uri) or uri in ("databricks", "databricks-uc"):
        return uri
    return str((base / uri).absolute())


def without_credentials(uri: str) -> str:
    """`uri` without user:password@, to be written down or shown."""
    if "://" not in uri:
        return uri
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else uri
