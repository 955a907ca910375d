"""The store of a run: its URI made absolute, classified, and written without credentials.

Invariants: a relative path is resolved once, when a run starts, so that `resume` finds it from any
folder.
"""

import os
import socket
from pathlib import Path
from typing import Literal

from raysearch.errors import StoreError
from raysearch.storage.folder import Folder
from raysearch.storage.open_folder import open_folder
from raysearch.storage.uris import is_uri, without_credentials

__all__ = [
    "DEFAULT_STORE",
    "kind_of",
    "without_credentials",
    "writable_store",
]

DEFAULT_STORE = "./runs"
PlaceKind = Literal["relative", "local", "remote"]
"""The kinds of places, as seen by a driver that may run on another machine."""
IN_A_RAY_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Environment variable that Ray sets for a job's entrypoint; Ray's constant of this name has this
value.
"""


def kind_of(store: str | Path) -> PlaceKind:
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
