"""Checks within seconds whether MLflow answers; creates nothing."""

import threading

from raysearch.errors import TrackingError
from raysearch.storage.uris import without_credentials
from raysearch.tracking.mlflow_client import THREAD, connect
from raysearch.tracking.mlflow_names import one_line
from raysearch.tracking.sqlite_file import check_uri, sqlite_file

SECONDS = 60.0
"""Time limit; includes importing MLflow. Each request to a server has a limit of its own
(mlflow_client)."""


def reach(uri: str, seconds: float = SECONDS) -> str:
    """Describes the tracking server at `uri`. Raises: TrackingError if it cannot be used."""
    shown = without_credentials(uri)
    try:
        check_uri(uri)
    except TrackingError as e:
        raise TrackingError(f"MLflow at {shown}: {e}; give --tracking-uri another") from e
    if (file := sqlite_file(uri)) is not None and not file.exists():
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
