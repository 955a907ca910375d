"""Makes a new MLflow database from a template: an empty one, migrated once on this machine.

MLflow builds a new SQLite file by some seventy migrations, a second or two of work. The result
depends on installed versions alone, so it is kept with this user's remembered files
(`user_cache`) and copied.

Invariants: a file that exists is never touched; the template has tables and no rows of a user or a
place, which MLflow adds itself; where no template can be made, MLflow makes the file as usual.
"""

import logging
import os
import secrets
import tempfile
from importlib.metadata import version
from pathlib import Path

from raysearch.tracking.mlflow_client import quiet
from raysearch.tracking.mlflow_names import one_line
from raysearch.tracking.sqlite_file import sqlite_file
from raysearch.user_cache import recall_bytes, remember_bytes

KIND = "mlflow"
_PACKAGES = ("mlflow", "sqlalchemy", "alembic")
_log = logging.getLogger(__name__)


def make_from_template(uri: str) -> None:
    """Makes the SQLite file of `uri` if it is missing; does nothing for other URIs.

    The caller holds the lock of its folder (`mlflow_retries`).
    """
    file = sqlite_file(uri)
    if file is None or file.exists() or not file.parent.is_dir():
        return
    key = {package: version(package) for package in _PACKAGES}
    content = recall_bytes(KIND, key)
    if content is None:
        content = _migrated()
        if content is None:
            return
        remember_bytes(KIND, key, content)
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        temporary.write_bytes(content)
        os.link(temporary, file)  # fails where another process has made it
    except OSError as e:
        _log.debug("%s: not made from the template: %s", file, e)
    finally:
        temporary.unlink(missing_ok=True)


def _migrated() -> bytes | None:
    """Returns an empty migrated database; None where this version of MLflow makes it otherwise."""
    try:
        quiet()
        # As MLflow itself does before it migrates: its store configures its mappers when it is
        # imported. Else a migration does, and what warns of them (SQLAlchemy 2.1 of `noload`) has
        # the name of no module of MLflow; as an error it leaves them broken in this process.
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
        from mlflow.store.db import utils

        with tempfile.TemporaryDirectory(prefix="raysearch-") as folder:
            file = Path(folder) / "mlflow.db"
            engine = utils.create_sqlalchemy_engine(f"sqlite:///{file}")
            try:
                utils._initialize_tables(engine)
            finally:
                engine.dispose()
            whole = not list(file.parent.glob(f"{file.name}-*"))  # no journal that is still open
            return file.read_bytes() if whole else None
    except Exception as e:  # noqa: BLE001  (not MLflow's public interface; MLflow does it then)
        _log.debug("no template: %s", one_line(e))
        return None
