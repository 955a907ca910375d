"""A migrated MLflow database, made once: a new one costs its migrations each time."""

import shutil
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("raysearch", deadline=None)  # two cores are shared; time is for pytest-timeout to say
settings.load_profile("raysearch")


@pytest.fixture(scope="session")
def migrated_db(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def tracking(migrated_db: Path, tmp_path: Path) -> str:
    """The URI of an MLflow store of this test's own."""
    shutil.copy(migrated_db, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"
