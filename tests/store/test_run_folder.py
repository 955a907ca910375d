"""The run folder: made once, found again, worked on by one driver, and free of credentials."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from raysearch.errors import StoreError
from raysearch.storage.folder import Folder
from raysearch.storage.open_folder import open_folder
from raysearch.storage.uris import without_credentials
from raysearch.store.locations import IN_A_RAY_JOB, kind_of, writable_store
from raysearch.store.run_folder import RunFolder, find_run, run_names
from raysearch.tracking.uris import tracking_uri
from tests.s3 import BUCKET, S3, SECRET

NOON = datetime(2026, 11, 4, 12, 0, 0, tzinfo=UTC)


def make(
    store: Folder | Path | str,
    name: str = "capitals",
    tracking: str | None = None,
    at: datetime = NOON,
) -> RunFolder:
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


def test_a_run_is_named_by_name_time_and_job_hash(store: Folder) -> None:
    run = make(store.at("deep").at("store"))
    assert run.folder.name == "capitals-20261104T120000Z-01234567"
    assert run.job_text == "a: 1\n"
    raw = json.loads(run.folder.read("run.json"))
    assert raw["id"] == run.folder.name
    assert (raw["schema_version"], raw["evidence_version"]) == (1, 3)
    assert set(raw["versions"]) - {"commit"} == {"raysearch", "torch", "transformers", "ray"}
    assert raw["store_uri"] == store.at("deep").at("store").place


def test_a_second_run_in_the_same_second_has_its_own_folder(store: Folder) -> None:
    assert make(store).place != make(store).place


def test_what_run_json_says_comes_back(store: Folder) -> None:
    run = make(store)
    run.update(model_digest="abc", tracking_run_id="r1")
    assert RunFolder.open(run.folder).info == run.info
    assert run.info.model_digest == "abc"
    assert run.folder.names() == ["job.yaml", "run.json"]


def test_credentials_are_never_written_down(s3: S3) -> None:
    run = make(
        s3.uri("credentials"), tracking="postgresql://me:secret@db:5432/mlflow?sslmode=require"
    )
    text = run.folder.read("run.json").decode()
    assert "secret" not in text
    assert SECRET not in text + run.place
    assert run.info.store_uri == s3.uri("credentials", credentials="")
    assert "postgresql://db:5432/mlflow?sslmode=require" in text


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("https://u:p@host/x", "https://host/x"),
        ("https://host/x", "https://host/x"),
        ("sqlite:////a/b.db", "sqlite:////a/b.db"),
        ("databricks", "databricks"),
        ("http://u:p@ss@host:5000", "http://host:5000"),
        (
            "s3://key:secret@bucket/runs?region=eu&scheme=http",
            "s3://bucket/runs?region=eu&scheme=http",
        ),
        (
            "abfs://account/runs?client_secret=x&tenant_id=t&sig=s",
            "abfs://account/runs?tenant_id=t",
        ),
        ("abfs://box:secret@a.dfs.core.windows.net/x", "abfs://box@a.dfs.core.windows.net/x"),
        ("abfss://box@a.dfs.core.windows.net/x", "abfss://box@a.dfs.core.windows.net/x"),
        ("abfs://:secret@a.blob.core.windows.net/x", "abfs://a.blob.core.windows.net/x"),
    ],
)
def test_a_uri_is_shown_without_user_and_password(uri: str, shown: str) -> None:
    assert without_credentials(uri) == shown


def test_relative_places_are_made_absolute_once(tmp_path: Path) -> None:
    assert tracking_uri("sqlite:///mlflow.db", tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    assert tracking_uri("sqlite:////x/mlflow.db", tmp_path) == "sqlite:////x/mlflow.db"
    assert tracking_uri("http://host:5000", tmp_path) == "http://host:5000"


def test_a_folder_is_found_by_path_or_uri(tmp_path: Path, s3: S3) -> None:
    assert open_folder("file:///x/runs%20here").place == "/x/runs here"
    assert Path(open_folder("runs").place).is_absolute()
    assert open_folder(f"{tmp_path}/a:b").place == f"{tmp_path}/a:b"
    assert open_folder(s3.uri("runs/")).at("x").place == s3.uri("runs/x", credentials="")
    assert open_folder(s3.uri("runs")).shown("run.json") == f"s3://{BUCKET}/runs/run.json"


@pytest.mark.parametrize(
    ("store", "kind"),
    [
        ("./runs", "relative"),
        ("runs", "relative"),
        ("/data/runs", "local"),
        ("~/runs", "local"),
        ("file:///data/runs", "local"),
        ("s3://bucket/runs", "remote"),
        ("gs://bucket", "remote"),
        ("abfs://account/runs", "remote"),
    ],
)
def test_a_store_is_relative_local_or_remote(store: str, kind: str) -> None:
    assert kind_of(store) == kind


@pytest.mark.parametrize(
    "uri", [f"ftp://me:{SECRET}@host/runs", f"s3://me:{SECRET}@bucket/runs?colour=red"]
)
def test_a_store_that_nobody_knows_is_one_clear_line_without_credentials(uri: str) -> None:
    with pytest.raises(StoreError, match="s3://BUCKET/PREFIX") as e:
        make(uri)
    assert SECRET not in str(e.value)
    assert "\n" not in str(e.value)


def test_a_bucket_that_is_not_there_is_said_at_once(s3: S3) -> None:
    with pytest.raises(
        StoreError, match=r"NO_SUCH_BUCKET.*check bucket, rights and credentials"
    ) as e:
        make(s3.uri("runs").replace(BUCKET, "nobody"))
    assert SECRET not in str(e.value)


def test_a_store_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be made") as e:
        make(tmp_path / "file" / "store")
    assert "\n" not in str(e.value)


def test_a_folder_that_is_no_run_is_refused_with_what_is_missing(store: Folder) -> None:
    run = make(store)
    with pytest.raises(StoreError, match=r"run\.json is missing"):
        RunFolder.open(store)
    run.folder.delete("job.yaml")
    with pytest.raises(StoreError, match=r"job\.yaml is missing"):
        RunFolder.open(run.folder)
    with pytest.raises(StoreError, match="no such folder"):
        RunFolder.open(store.at("nowhere"))


@pytest.mark.parametrize("text", ["{", "[]", '{"schema_version": 9}', '{"schema_version": 1}'])
def test_a_run_json_that_is_not_ours_is_refused(store: Folder, text: str) -> None:
    run = make(store)
    run.folder.write("run.json", text.encode())
    with pytest.raises(StoreError, match=r"run\.json.*: "):
        RunFolder.open(run.folder)


def test_a_run_is_found_by_place_by_name_and_as_the_latest(store: Folder) -> None:
    new = make(store, "aaa", at=NOON.replace(hour=13))
    old = make(store, "zzz")
    assert find_run(store, old.folder.name).place == old.place
    assert find_run(store, "latest").place == new.place
    assert run_names(store) == [old.folder.name, new.folder.name]
    with pytest.raises(StoreError, match=f"did you mean '{old.folder.name}'"):
        find_run(store, "zzy")
    with pytest.raises(
        StoreError, match=f"there is no run '0', neither .* its newest is '{new.folder.name}'"
    ):
        find_run(store, "0")
    with pytest.raises(StoreError, match="holds no runs"):
        find_run(store.at("empty"), "latest")
    new.folder.delete("run.json")
    assert find_run(store, "latest").place == old.place


def test_a_run_is_called_by_a_beginning_by_its_job_and_by_how_many_are_newer(store: Folder) -> None:
    first = make(store, "cap", at=NOON)
    second = make(store, "capitals", at=NOON.replace(hour=13))
    third = make(store, "sums", at=NOON.replace(hour=14))
    for text, run in {
        first.folder.name[:-1]: first,
        "cap": first,  # the whole name of its job, though another begins so
        "capi": second,
        "su": third,
        "sums": third,
        "latest~0": third,
        "latest~1": second,
        "latest~2": first,
    }.items():
        assert find_run(store, text).place == run.place, text
    fourth = make(store, "sums", at=NOON.replace(hour=15))
    with pytest.raises(StoreError) as e:
        find_run(store, "sums")
    assert "'sums': 2 runs of store" in str(e.value)
    assert f"the newest {fourth.folder.name}, {third.folder.name}; give more" in str(e.value)
    assert find_run(store, fourth.folder.name[:-4]).place == fourth.place
    for text in ("latest~4", "latest~", "latest~x"):
        with pytest.raises(StoreError, match="there is no run"):
            find_run(store, text)


def test_a_folder_that_is_no_run_hides_none_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = make(tmp_path / "runs", "sums")
    (tmp_path / "sums").mkdir()  # as `raysearch init sums` makes it
    assert find_run("runs", "sums").info == run.info
    (tmp_path / "other").mkdir()
    with pytest.raises(StoreError, match=r"run\.json is missing|no such folder"):
        find_run("runs", "other")


def test_a_run_is_found_by_its_path_and_by_its_uri(tmp_path: Path, s3: S3) -> None:
    run = make(tmp_path)
    assert find_run("nowhere", run.path).path == run.path
    far = make(s3.uri("by-uri"))
    assert find_run("nowhere", s3.uri(f"by-uri/{far.folder.name}")).info == far.info
    with pytest.raises(StoreError, match="is no folder of this machine"):
        _ = far.path


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


def test_a_relative_store_is_refused_in_a_ray_job_whose_folder_dies_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert writable_store("runs").place == str(tmp_path / "runs")
    monkeypatch.setenv(IN_A_RAY_JOB, "{}")
    with pytest.raises(
        StoreError, match=r"store \./runs: is relative, and this driver is a Ray job"
    ):
        writable_store("./runs")
    assert writable_store(str(tmp_path / "runs")).names() == []
