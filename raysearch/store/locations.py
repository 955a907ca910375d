"""Store and tracking URIs: made absolute, classified, and written without credentials.

Invariants: a relative path is resolved once, when a run starts, so that `resume` finds it from any
folder.
"""

import os
import re
import socket
from pathlib import Path
from typing import Literal

from raysearch.errors import StoreError
from raysearch.storage.folder import Folder
from raysearch.storage.open import open_folder
from raysearch.storage.uris import is_uri, without_credentials

__all__ = [
    "DEFAULT_STORE",
    "kind_of",
    "tracking_kind",
    "tracking_uri",
    "without_credentials",
    "writable_store",
]

DEFAULT_STORE = "./runs"
IN_A_RAY_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Environment variable that Ray sets for a job's entrypoint; Ray's constant of this name has this
value.
"""
_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*:")


def kind_of(store: str | Path) -> Literal["relative", "local", "remote"]:
    """Classifies a store as seen by a driver that may run on another machine.

    - "relative": a folder below the driver's working directory, which in a Ray job is deleted with
      the job's own folder.
    - "local": an absolute path (or file://), which outlives a job, and is another folder on another
      machine unless the disk is shared.
    - "remote": an object store, the same from everywhere.
    """
    if is_uri(store):
        return "local" if str(store).startswith("file://") else "remote"
    return "local" if Path(store).expanduser().is_absolute() else "relative"


def writable_store(store: str) -> Folder:
    """Returns the store's folder after writing a file there.

    Raises:
        StoreError: nothing can be written, or the folder would be deleted with a Ray job.
    """
    if IN_A_RAY_JOB in os.environ and kind_of(store) == "relative":
        raise StoreError(
            f"store {store}: is relative, and this driver is a Ray job, whose folder Ray removes "
            f"with all that is in it; "
            "give --store s3://... or the absolute path of a disk that outlives the job"
        )
    root = open_folder(store)
    probe = f"raysearch-probe-{socket.gethostname()}-{os.getpid()}"
    try:
        root.write(probe, b"")
        root.delete(probe)
    except StoreError as e:
        raise StoreError(
            f"store {root.place}: cannot be written: {e}; give --store a place that you may write"
        ) from e
    return root


def tracking_kind(uri: str) -> Literal["relative", "local", "remote"]:
    """Classifies a tracking URI in the same way; "none" is the same everywhere, hence "remote"."""
    if uri.startswith("sqlite:"):
        return "local" if uri.startswith("sqlite:////") else "relative"
    return "remote" if uri in ("none", "databricks", "databricks-uc") else kind_of(uri)


def tracking_uri(uri: str, base: Path | None = None) -> str:
    """Makes a relative SQLite file or folder in `uri` absolute, from `base` (default: the working
    directory).
    """
    base = base or Path.cwd()
    if uri.startswith("sqlite:///") and not uri.startswith("sqlite:////"):
        path, mark, query = uri.removeprefix("sqlite:///").partition("?")
        return (
            f"sqlite:///{(base / path).absolute()}{mark}{query}"
            if path not in ("", ":memory:")
            else uri
        )
    if _SCHEME.match(uri) or uri in ("databricks", "databricks-uc"):
        return uri
    return str((base / uri).absolute())
