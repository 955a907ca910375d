"""Checks within seconds whether MLflow answers; creates nothing."""

import os
import threading
from pathlib import Path

from raysearch.errors import TrackingError
from raysearch.storage.uris import without_credentials
from raysearch.tracking.mlflow_client import THREAD, connect
from raysearch.tracking.mlflow_names import one_line

SECONDS = 60.0
"""Time limit; includes importing MLflow. Each request to a server has a limit of its own
(mlflow_client)."""


def reach(uri: str, seconds: float = SECONDS) -> str:
    """Describes the tracking server at `uri`. Raises: TrackingError if it cannot be used."""
    shown = without_credentials(uri)
    if uri.startswith("sqlite:////"):
        file = Path(uri.removeprefix("sqlite:///").partition("?")[0])
        if not file.exists() and not (file.parent.is_dir() and os.access(file.parent, os.W_OK)):
            raise TrackingError(
                f"MLflow at {shown}: {file.parent} is no folder that can be written; give "
                f"--tracking-uri another"
            )
        if file.exists() and not file.is_file():
            raise TrackingError(f"MLflow at {shown}: is no file; give --tracking-uri another")
        if not file.exists():
            return f"{shown}: is made by the first search"
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(_asked(uri)), name=THREAD, daemon=True)
    thread.start()
    thread.join(seconds)
    if not found:
        raise TrackingError(f"MLflow at {shown}: did not answer within {seconds:.0f} s; is it up?")
    if found[0]:
        raise TrackingError(
            f"MLflow at {shown}: {found[0]}; give --tracking-uri what is up "
            f"(MLFLOW_TRACKING_USERNAME and _PASSWORD where it asks)"
        )
    return f"{shown} answers"


def _asked(uri: str) -> str:
    """Returns what is wrong, or "". Runs in a thread, where an exception would be lost."""
    try:
        connect(uri).search_experiments(max_results=1)
    except Exception as e:  # noqa: BLE001  (MLflow raises anything; `reach` reports it)
        return one_line(e)
    return ""
