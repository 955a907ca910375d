"""Whether MLflow answers, within seconds, and what a search would find there; nothing is made."""

import os
import threading
from pathlib import Path

from raysearch.errors import TrackingError
from raysearch.storage.uris import without_credentials
from raysearch.tracking.mlflow_client import THREAD, connect
from raysearch.tracking.mlflow_names import one_line

SECONDS = 60.0
"""Importing MLflow alone takes some of them; each request to a server has a limit of its own
(mlflow_client)."""


def reach(uri: str, seconds: float = SECONDS) -> str:
    """Of the tracking URI, in words. Raises: TrackingError where it cannot be used."""
    shown = without_credentials(uri)
    if uri.startswith("sqlite:////"):
        file = Path(uri.removeprefix("sqlite:///").partition("?")[0])
        if not file.exists() and not (file.parent.is_dir() and os.access(file.parent, os.W_OK)):
            raise TrackingError(
                f"MLflow at {shown}: {file.parent} is no folder that can be written; give "
                f"--tracking-uri another"
            )
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
    """What is wrong with it; empty where nothing is. In a thread, where an exception would be told
    to nobody."""
    try:
        connect(uri).search_experiments(max_results=1)
    except Exception as e:  # noqa: BLE001  (MLflow raises what its stores and requests raise; told by who asked)
        return one_line(e)
    return ""
