"""A SQLite file that cannot be is told at once, before MLflow tries to open it for two minutes."""

import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from raysearch.errors import TrackingError
from raysearch.tracking.mlflow import MlflowTracker
from raysearch.tracking.mlflow_check import reach
from raysearch.tracking.sqlite_file import check_sqlite, sqlite_file
from raysearch.tracking.tracker import TrackedRun
from raysearch.tracking.uris import tracking_kind, tracking_uri

NO_FOLDER, NOT_WRITTEN = "is no folder that can be written", "cannot be written"


def _link(to: str) -> Callable[[Path], object]:
    return lambda file: file.symlink_to(to)


@pytest.mark.parametrize(
    ("file", "make", "says"),
    [
        ("/proc/mlflow.db", None, NO_FOLDER),
        ("/proc/version", None, NO_FOLDER),
        ("nowhere/mlflow.db", None, NO_FOLDER),
        ("to_nowhere.db", _link("nowhere/mlflow.db"), NO_FOLDER),
        ("to_itself.db", _link("to_itself.db"), NOT_WRITTEN),
        ("folder", Path.mkdir, "is no file"),
        ("pipe", os.mkfifo, "is no file"),
        ("/dev/zero", None, "is no file"),
        ("text.db", lambda file: file.write_text(100 * "no database "), "file is not a database"),
        (250 * "a", None, "File name too long"),
        ("a\0b", None, "null"),
        (".", None, "is no file"),
    ],
)
def test_it_is_said_at_once_what_is_wrong(
    tmp_path: Path, file: str, make: Callable[[Path], object] | None, says: str
) -> None:
    at = tmp_path / file
    if make is not None:
        make(at)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(TrackingError, match=says) as raised:
        reach(f"sqlite:///{at}")
    assert str(raised.value).startswith("MLflow at sqlite:////")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    "uri",
    ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite+pysqlite:///:memory:", "sqlite:///?timeout=3",
     "sqlite:///file::memory:?uri=true"],
)  # fmt: skip
def test_a_database_in_memory_is_told_to_keep_nothing(uri: str) -> None:
    with pytest.raises(TrackingError, match="ends with the run"):
        reach(uri)


def test_a_file_that_can_be_made_or_is_in_use_is_not_refused(tmp_path: Path) -> None:
    check_sqlite(tmp_path / "new.db")
    assert not list(tmp_path.iterdir())
    (tmp_path / "empty.db").touch()
    check_sqlite(tmp_path / "empty.db")
    writes = sqlite3.connect(tmp_path / "locked.db", isolation_level=None)
    writes.execute("CREATE TABLE one (a)")
    writes.execute("BEGIN EXCLUSIVE")
    check_sqlite(tmp_path / "locked.db")
    writes.close()


def test_a_file_that_another_search_writes_to_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raysearch.tracking.sqlite_file._SECONDS", 20.0)
    writes = sqlite3.connect(tmp_path / "busy.db", isolation_level=None)
    writes.execute("CREATE TABLE one (a)")
    writes.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    check_sqlite(tmp_path / "busy.db")
    assert time.monotonic() - began < 10
    writes.close()


def test_a_file_that_may_only_be_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sqlite3.connect(tmp_path / "read.db").execute("CREATE TABLE one (a)")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write to any file
    with pytest.raises(TrackingError, match=r"^cannot be written \(it may only be read\)$"):
        check_sqlite(tmp_path / "read.db")


def test_the_mirror_of_a_search_gives_up_at_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[Path] = []

    def look(file: Path) -> None:
        looked.append(file)
        check_sqlite(file)

    monkeypatch.setattr("raysearch.tracking.sqlite_file.check_sqlite", look)
    began = time.monotonic()
    tags = {"raysearch.run": "one"}
    tracker = MlflowTracker(TrackedRun("sqlite:////proc/mlflow.db", "raysearch/x", {}, tags))
    assert not tracker.close("done", timeout=30)
    assert time.monotonic() - began < 10
    assert len(looked) == 1
    assert tracker.why is not None
    assert tracker.why.endswith(
        "/proc is no folder that can be written (No such file or directory)"
    )
    (line,) = caplog.messages
    assert line.endswith("`raysearch sync one` sends it everything")


def test_the_file_of_a_uri() -> None:
    for uri in ("sqlite:////a/b.db", "sqlite+pysqlite:////a/b.db", "sqlite:////a/b.db?x=1"):
        assert sqlite_file(uri) == Path("/a/b.db")
    for uri in ("sqlite:///b.db", "sqlite://", "http://a//b.db", "postgresql:////a/b.db", "/a"):
        assert sqlite_file(uri) is None


@pytest.mark.parametrize(
    ("uri", "absolute", "kind"),
    [
        ("sqlite:///b.db", "sqlite:////w/b.db", "relative"),
        ("sqlite+pysqlite:///b.db?x=1", "sqlite+pysqlite:////w/b.db?x=1", "relative"),
        ("sqlite+pysqlite:////a/b.db", "sqlite+pysqlite:////a/b.db", "local"),
        ("sqlite:///file:b.db?uri=true", "sqlite:///file:b.db?uri=true", "relative"),
        ("sqlite:///file:b.db", "sqlite:////w/file:b.db", "relative"),
        ("sqlite:///:memory:", "sqlite:///:memory:", "relative"),
        ("sqlite://", "sqlite://", "relative"),
    ],
)
def test_a_relative_file_is_made_absolute_with_and_without_a_driver(
    uri: str, absolute: str, kind: str
) -> None:
    assert tracking_uri(uri, Path("/w")) == absolute
    assert tracking_kind(uri) == kind
