"""The run folder: made once, found again, worked on by one driver, and free of credentials."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from raysearch.errors import NotYetError, StoreError
from raysearch.store.places import store_path, tracking_uri, without_credentials
from raysearch.store.run_folder import RunFolder, find_run, run_names

NOON = datetime(2026, 11, 4, 12, 0, 0, tzinfo=UTC)


def make(store: Path | str, name: str = "capitals", tracking: str | None = None, at: datetime = NOON) -> RunFolder:
    return RunFolder.create(
        store,
        name=name,
        job_hash="0123456789abcdef",
        job_digest="89abcdef",
        job_text="a: 1\n",
        evidence_version=3,
        tracking_uri=tracking,
        now=lambda: at,
    )


def test_a_run_is_named_by_name_time_and_job_hash(tmp_path: Path) -> None:
    run = make(tmp_path / "deep" / "store")
    assert run.path.name == "capitals-20261104T120000Z-01234567"
    assert run.job_file.read_text() == "a: 1\n"
    raw = json.loads((run.path / "run.json").read_text())
    assert raw["id"] == run.path.name
    assert (raw["schema_version"], raw["evidence_version"]) == (1, 3)
    assert set(raw["versions"]) == {"raysearch", "torch", "transformers", "ray"}
    assert raw["store_uri"] == str(tmp_path / "deep" / "store")


def test_a_second_run_in_the_same_second_has_its_own_folder(tmp_path: Path) -> None:
    assert make(tmp_path).path != make(tmp_path).path


def test_what_run_json_says_comes_back(tmp_path: Path) -> None:
    run = make(tmp_path)
    run.update(model_digest="abc", mlflow_run_id="r1")
    assert RunFolder.open(run.path).info == run.info
    assert run.info.model_digest == "abc"
    assert sorted(p.name for p in run.path.iterdir()) == ["job.yaml", "run.json", "tables"]


def test_credentials_are_never_written_down(tmp_path: Path) -> None:
    run = make(tmp_path, tracking="postgresql://me:secret@db:5432/mlflow?sslmode=require")
    text = (run.path / "run.json").read_text()
    assert "secret" not in text
    assert "postgresql://db:5432/mlflow?sslmode=require" in text


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("https://u:p@host/x", "https://host/x"),
        ("https://host/x", "https://host/x"),
        ("sqlite:////a/b.db", "sqlite:////a/b.db"),
        ("databricks", "databricks"),
        ("http://u:p@ss@host:5000", "http://host:5000"),
    ],
)
def test_a_uri_is_shown_without_user_and_password(uri: str, shown: str) -> None:
    assert without_credentials(uri) == shown


def test_relative_places_are_made_absolute_once(tmp_path: Path) -> None:
    assert tracking_uri("sqlite:///mlflow.db", tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    assert tracking_uri("sqlite:////x/mlflow.db", tmp_path) == "sqlite:////x/mlflow.db"
    assert tracking_uri("http://host:5000", tmp_path) == "http://host:5000"
    assert store_path("file:///x/runs") == Path("/x/runs")
    assert store_path("runs").is_absolute()


@pytest.mark.parametrize("uri", ["s3://bucket/runs", "gs://bucket/runs"])
def test_object_stores_are_not_yet_there(uri: str) -> None:
    with pytest.raises(NotYetError, match=uri):
        make(uri)


def test_a_store_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written") as e:
        make(tmp_path / "file" / "store")
    assert "\n" not in str(e.value)


def test_a_folder_that_is_no_run_is_refused_with_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"run\.json is missing"):
        RunFolder.open(tmp_path)
    run = make(tmp_path)
    run.job_file.unlink()
    with pytest.raises(StoreError, match=r"job\.yaml is missing"):
        RunFolder.open(run.path)
    with pytest.raises(StoreError, match="no such folder"):
        RunFolder.open(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["{", "[]", '{"schema_version": 9}', '{"schema_version": 1}'])
def test_a_run_json_that_is_not_ours_is_refused(tmp_path: Path, text: str) -> None:
    run = make(tmp_path)
    (run.path / "run.json").write_text(text)
    with pytest.raises(StoreError, match=r"run\.json: "):
        RunFolder.open(run.path)


def test_a_run_is_found_by_path_by_name_and_as_the_latest(tmp_path: Path) -> None:
    new = make(tmp_path, "aaa", at=NOON.replace(hour=13))
    old = make(tmp_path, "zzz")
    assert find_run(tmp_path, old.path).path == old.path
    assert find_run(tmp_path, old.path.name).path == old.path
    assert find_run(tmp_path, "latest").path == new.path
    assert run_names(tmp_path) == [old.path.name, new.path.name]
    with pytest.raises(StoreError, match=f"did you mean '{old.path.name}'"):
        find_run(tmp_path, old.path.name[:-1])
    with pytest.raises(StoreError, match="holds no runs"):
        find_run(tmp_path / "empty", "latest")


def test_a_second_driver_is_refused_while_the_first_works(tmp_path: Path) -> None:
    run = make(tmp_path)
    with (
        run.lock(),
        pytest.raises(StoreError, match=f"process {os.getpid()} on .* works on it now"),
        RunFolder.open(run.path).lock(),
    ):
        pass
    with RunFolder.open(run.path).lock():
        pass


def test_a_killed_driver_leaves_no_lock_behind(tmp_path: Path) -> None:
    run = make(tmp_path)
    code = "import sys, os\nfrom raysearch.store.run_folder import RunFolder\n"
    code += "with RunFolder.open(sys.argv[1]).lock():\n    os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code, str(run.path)], check=False).returncode == -9
    with run.lock():
        pass
