"""The client of an MLflow server or database, as a tracker needs it: quiet, and impatient.

Invariants: mlflow is imported when a client is made (2.7 s), and only its client is used, never the
fluent globals.
"""

import logging
import os
from typing import Any

_ENVIRONMENT = {
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # stdout is for data
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # the default, 7, holds a dead server for minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
}
THREAD = "mlflow-mirror"
"""Of the threads that ask MLflow: what its libraries log there is not ours to show."""


def connect(uri: str) -> Any:
    """A client of the MLflow at `uri`, which nothing is asked of yet; it is quiet, and does not
    wait for a dead server for long."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    for chatty in ("mlflow.store.db.utils", "alembic", "alembic.runtime.migration"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    logging.getLogger("urllib3.connectionpool").addFilter(
        _not_ours
    )  # the same one each time: added once
    return MlflowClient(tracking_uri=uri)


def _not_ours(record: logging.LogRecord) -> bool:
    """For urllib3's log: its word on each retry of ours would say twice what is said once."""
    return record.threadName != THREAD
