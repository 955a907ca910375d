"""Connects to an MLflow server or database, without its log output and with short time limits.

Invariants: mlflow is imported only when a client is made (2.7 s); only its client is used, never
the fluent globals.
"""

import logging
import os
from typing import Any

_ENVIRONMENT = {
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # stdout is for data
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # the default, 7, waits minutes for a dead server
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
}
THREAD = "mlflow-mirror"
"""Name of our threads that call MLflow; their library log lines are filtered."""


def connect(uri: str) -> Any:
    """Returns a client of the MLflow at `uri`, without a request yet."""
    quiet()
    from mlflow import MlflowClient

    logging.getLogger("urllib3.connectionpool").addFilter(
        _not_ours
    )  # the same function each time is added once
    return MlflowClient(tracking_uri=uri)


def quiet() -> None:
    """Imports MLflow so that it writes nothing to this process's output."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import mlflow.store.db.utils  # noqa: F401  (sets the levels of its loggers)

    for chatty in ("mlflow.store.db.utils", "alembic", "alembic.runtime.migration"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def _not_ours(record: logging.LogRecord) -> bool:
    """Filters urllib3's log of retries, which our own warning repeats."""
    return record.threadName != THREAD
