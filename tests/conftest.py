"""What is costly and made once: finished searches, a migrated MLflow database, an S3 server."""

import gc
import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from raysearch.storage.folder import Folder
from raysearch.storage.local import LocalFolder
from raysearch.storage.open_folder import open_folder
from tests.command import HEATMAPS, REMEMBERED, remember_environment
from tests.engine import shapes
from tests.once import Once
from tests.s3 import S3, s3_server

# What a worker imports and collects is no garbage; pytest_collection_finish lets it collect again.
if "PYTEST_XDIST_WORKER" in os.environ:
    gc.disable()

# Ray runs workers at niceness 15: beside other tests on two cores they would starve. Before any Ray
# starts; for those of commands too.
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  (Ray reads it so)

# Small models are slower with more, and two workers have two cores. Before torch is imported; for
# commands too.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["RAYSEARCH_CACHE"] = "off"  # a test that remembers names a folder of its own
MADE_HERE = None if REMEMBERED in os.environ else tempfile.mkdtemp(prefix="raysearch-tests-")
if MADE_HERE is not None:  # not by a worker of pytest-xdist, which has that of the whole session
    os.environ[REMEMBERED] = MADE_HERE
os.environ[HEATMAPS] = "off"  # half of a small run's end; tests of pictures switch them on
remember_environment()

# Tensors are held against the shapes of their annotations (beartype). Before the engine is
# imported.
assert not any(name.startswith("raysearch.engine.") for name in sys.modules)
shapes.check_on_import(shapes.modules("raysearch.engine"))

pytest_plugins = ["tests.scheduling", "tests.timing", "tests.root_logger"]

# Two cores are shared: that an example or its making takes long is for pytest-timeout to say. 15
# examples in each run of the tests, where a test asks for no other number; `make fuzz` has 1,000.
UNTIMED = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("raysearch", UNTIMED)
settings.register_profile("fuzz", UNTIMED, max_examples=1000)  # make fuzz
settings.load_profile("raysearch")


def pytest_collection_finish() -> None:
    """What is imported stays: the garbage collector need not look at it in each test."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    gc.unfreeze()  # modules of C++ complain of what is left at the very end
    if MADE_HERE is not None:
        shutil.rmtree(MADE_HERE, ignore_errors=True)


def pytest_runtest_setup() -> None:
    shapes.begin_test()


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Makes what is costly once for all workers: `once.searched(job, *flags)` is the folder of a
    finished run, to be read or copied."""
    return Once.of_session(tmp_path_factory, workers="PYTEST_XDIST_WORKER" in os.environ)


@pytest.fixture(scope="session")
def migrated_db(once: Once) -> Path:
    """An empty MLflow database; to be copied."""

    def migrate(folder: Path) -> None:
        from mlflow import MlflowClient

        MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}").search_experiments()

    return once("mlflow", migrate) / "mlflow.db"


@pytest.fixture
def tracking(migrated_db: Path, tmp_path: Path) -> str:
    """The URI of an MLflow store of this test's own."""
    shutil.copy(migrated_db, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    """An S3 server with a bucket; each test takes a prefix of its own."""
    with s3_server() as server:
        yield server


@pytest.fixture(params=["disk", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    """An empty store of each kind: what is said of one holds for the other."""
    if request.param == "disk":
        return LocalFolder(tmp_path / "store")
    return open_folder(request.getfixturevalue("s3").uri(f"test-{uuid.uuid4().hex}"))
