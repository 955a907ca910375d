"""The MLflow mirror: shows the search to those who look at MLflow, and never stands in its way.
Real MLflow, real SQLite."""

import json
import logging
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from raysearch.core.records import Snapshot
from raysearch.tracking.mlflow import MlflowTracker
from raysearch.tracking.tracker import ChildRun, PairsInput, TrackedRun, flatten
from tests.store.books import HYPOTHESES, decided

TAGS = {"raysearch.run": "capitals-1", "raysearch.job_hash": "0123", "raysearch.store": "/runs"}


def snapshot(pairs: int, accepted: int = 0) -> Snapshot:
    return Snapshot("searching", 8 - accepted, accepted, 0, 0, 0, pairs, 1000, 0, 0)


def client(tracking: str):  # type: ignore[no-untyped-def]
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=tracking)


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        r.getMessage()
        for r in caplog.records
        if r.name == "raysearch.mlflow" and r.levelno >= logging.WARNING
    ]


def test_a_run_shows_params_metrics_tables_and_pictures(
    tracking: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "job.yaml").write_text("name: capitals\n")
    (tmp_path / "country.png").write_bytes(b"\x89PNG")
    now = 0.0
    params = {
        **flatten({"model": {"path": "x" * 900}, "space": {"layers": [1, 2]}}),
        **{f"p{i}": i for i in range(150)},
    }
    mirror = MlflowTracker(
        TrackedRun(
            tracking, "raysearch/capitals", params, TAGS, name="capitals-1", description="It says."
        ),
        clock=lambda: now,
    )
    mirror.snapshot(snapshot(0))
    now = 1.0
    mirror.snapshot(snapshot(10))
    now = 4.0
    mirror.write_records([decided(h) for h in HYPOTHESES])
    mirror.snapshot(snapshot(40, accepted=1))
    now = 4.5
    mirror.snapshot(snapshot(60, accepted=2))
    table = {"variable": ["country"], "layer": [3], "iia": [0.9]}
    artifacts = [tmp_path / "job.yaml", (tmp_path / "country.png", "heatmaps")]
    assert mirror.close("done", artifacts, {"alignment": table})
    assert warnings_of(caplog) == []
    mlflow = client(tracking)
    assert mirror.run_id is not None
    run = mlflow.get_run(mirror.run_id)
    assert mlflow.get_experiment(run.info.experiment_id).name == "raysearch/capitals"
    assert (run.info.status, run.info.run_name) == ("FINISHED", "capitals-1")
    assert len(run.data.params) == 152
    assert run.data.params["model.path"] == "x" * 500
    assert run.data.params["space.layers"] == "[1, 2]"
    shown = {**TAGS, "raysearch.status": "done", "mlflow.note.content": "It says."}
    assert shown.items() <= run.data.tags.items()
    assert [(m.step, m.value) for m in mlflow.get_metric_history(mirror.run_id, "accepted")] == [
        (0, 0),
        (40, 1),
        (60, 2),
    ]
    assert [
        (m.step, m.value) for m in mlflow.get_metric_history(mirror.run_id, "pairs_per_second")
    ] == [
        (40, 10),
        (60, 40),
    ]
    assert run.data.metrics["best_iia/country/layer_0"] == pytest.approx(11 / 12)
    assert {"alive", "rejected", "undecided", "failed"} <= run.data.metrics.keys()
    assert {a.path for a in mlflow.list_artifacts(mirror.run_id)} == {
        "job.yaml",
        "heatmaps",
        "alignment.json",
    }
    assert json.loads(_text(mlflow, mirror.run_id)) == {
        "columns": ["variable", "layer", "iia"],
        "data": [["country", 3, 0.9]],
    }
    assert json.loads(run.data.tags["mlflow.loggedArtifacts"]) == [
        {"path": "alignment.json", "type": "table"}
    ]
    assert run.info.artifact_uri.startswith(
        (tmp_path / "mlartifacts" / "raysearch" / "capitals").as_uri()
    )


def _text(mlflow, run_id: str) -> str:  # type: ignore[no-untyped-def]
    return Path(mlflow.download_artifacts(run_id, "alignment.json")).read_text()


def test_a_resumed_run_is_the_same_run_and_repeats_no_point(
    tracking: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = MlflowTracker(TrackedRun(tracking, "raysearch/x", {"a": 1}, TAGS))
    first.write_records([decided(HYPOTHESES[0])])
    first.snapshot(snapshot(10))
    assert first.close("interrupted", tables={"alignment": {"v": [1]}})
    mlflow = client(tracking)
    assert mlflow.get_run(first.run_id).info.status == "KILLED"
    again = MlflowTracker(
        TrackedRun(tracking, "raysearch/x", {"a": 2, "b": 3}, TAGS, run_id=first.run_id)
    )
    again.write_records([decided(HYPOTHESES[0])], replayed=True)
    again.snapshot(snapshot(20))
    assert again.close("done", tables={"alignment": {"v": [1, 2]}})
    run = mlflow.get_run(first.run_id)
    assert again.run_id == first.run_id
    assert (run.info.status, run.data.params) == ("FINISHED", {"a": "1", "b": "3"})
    assert len(mlflow.get_metric_history(first.run_id, "best_iia/country/layer_0")) == 1
    assert [m.step for m in mlflow.get_metric_history(first.run_id, "alive")] == [10, 20]
    assert json.loads(_text(mlflow, first.run_id))["data"] == [[1], [2]]
    assert warnings_of(caplog) == []


def test_what_a_retry_changes_is_told_and_what_failed_before_it_is_no_best(
    tracking: str, caplog: pytest.LogCaptureFixture
) -> None:
    child = ChildRun(
        HYPOTHESES[0].id, "country at 0", {"layer": 0}, {"iia": 0.9, "holdout_iia": 0.5}
    )
    first = MlflowTracker(TrackedRun(tracking, "raysearch/x", {}, TAGS))
    first.write_records([replace(decided(HYPOTHESES[0]), verdict="failed")])
    first.snapshot(snapshot(10))
    assert first.close("done", children=[child])
    mlflow = client(tracking)
    assert "best_iia/country/layer_0" not in mlflow.get_run(first.run_id).data.metrics
    again = MlflowTracker(TrackedRun(tracking, "raysearch/x", {}, TAGS, run_id=first.run_id))
    again.write_records([replace(decided(HYPOTHESES[0]), verdict="failed")], replayed=True)
    again.write_records([replace(decided(HYPOTHESES[0]), matches=9)])
    again.snapshot(snapshot(20))
    assert again.close("done", children=[replace(child, metrics={"iia": 0.9, "holdout_iia": 0.75})])
    run = mlflow.get_run(first.run_id)
    assert run.data.metrics["best_iia/country/layer_0"] == 0.75
    (told,) = [
        r for r in mlflow.search_runs([run.info.experiment_id]) if r.info.run_id != first.run_id
    ]
    assert told.data.metrics == {"iia": 0.9, "holdout_iia": 0.75}
    assert len(mlflow.get_metric_history(told.info.run_id, "iia")) == 1
    assert warnings_of(caplog) == []


def test_the_pairs_are_the_dataset_of_the_run_once(
    tracking: str, caplog: pytest.LogCaptureFixture
) -> None:
    pairs = PairsInput(
        "capitals",
        "0123456789abcdef",
        "/runs/x/pairs.parquet",
        {"index": "long"},
        {"test": 3, "fit": 0},
    )
    first = MlflowTracker(TrackedRun(tracking, "raysearch/capitals", {}, TAGS, pairs=pairs))
    assert first.close("interrupted")
    again = MlflowTracker(
        TrackedRun(tracking, "raysearch/capitals", {}, TAGS, run_id=first.run_id, pairs=pairs)
    )
    assert again.close("done")
    (used,) = client(tracking).get_run(first.run_id).inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest, used.dataset.source_type) == (
        "capitals",
        "0123456789abcdef",
        "local",
    )
    assert json.loads(used.dataset.source) == {"uri": "/runs/x/pairs.parquet"}
    assert json.loads(used.dataset.profile) == {"num_rows": 3, "test": 3, "fit": 0}
    assert [(t.key, t.value) for t in used.tags] == [("mlflow.data.context", "interchange")]
    assert warnings_of(caplog) == []


def test_an_unreachable_mlflow_is_said_once_and_soon(caplog: pytest.LogCaptureFixture) -> None:
    began = time.monotonic()
    mirror = MlflowTracker(
        TrackedRun("http://me:secret@127.0.0.1:9", "raysearch/x", {"a": 1}, TAGS)
    )
    for i in range(50):
        mirror.write_records([decided(HYPOTHESES[0])])
        mirror.snapshot(snapshot(i))
    assert not mirror.close("done", [Path("/nowhere")])
    assert time.monotonic() - began < 120  # MLflow's own client asks again for minutes
    (line,) = warnings_of(caplog)
    assert line.startswith(
        "MLflow at http://127.0.0.1:9: cannot be reached (Connection refused); the search goes on"
    )
    assert [r.name for r in caplog.records if r.levelno >= logging.WARNING] == ["raysearch.mlflow"]
    assert mirror.run_id is None
    assert mirror.failed


def test_a_silent_mlflow_is_waited_for_a_bounded_time(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        mirror = MlflowTracker(
            TrackedRun(f"http://127.0.0.1:{server.getsockname()[1]}", "raysearch/x", {}, TAGS)
        )
        began = time.monotonic()
        assert not mirror.close("done", timeout=0.3)
        assert time.monotonic() - began < 30  # and waits for an answer for two minutes
    assert len(warnings_of(caplog)) == 1
    assert "did not finish within" in warnings_of(caplog)[0]


def test_an_artifact_that_is_not_there_is_said_and_nothing_is_raised(
    tracking: str, caplog: pytest.LogCaptureFixture
) -> None:
    mirror = MlflowTracker(TrackedRun(tracking, "raysearch/x", {}, TAGS))
    assert not mirror.close("done", [Path("/nowhere/job.yaml")])
    assert len(warnings_of(caplog)) == 1


def test_names_that_mlflow_forbids_are_rewritten(
    tracking: str, caplog: pytest.LogCaptureFixture
) -> None:
    from dataclasses import replace

    mirror = MlflowTracker(TrackedRun(tracking, "raysearch/x", {"a=b|c": 1, "é": 2}, TAGS))
    mirror.write_records([decided(replace(HYPOTHESES[0], variable="../a b|c"))])
    mirror.snapshot(snapshot(1))
    assert mirror.close("done")
    assert (
        "best_iia/___a_b_c-4c00e5e6/layer_0" in client(tracking).get_run(mirror.run_id).data.metrics
    )
    assert warnings_of(caplog) == []


def test_starting_and_telling_a_mirror_costs_the_search_nothing(tracking: str) -> None:
    began = time.perf_counter()
    mirror = MlflowTracker(TrackedRun(tracking, "raysearch/x", {}, TAGS))
    for i in range(1000):
        mirror.snapshot(snapshot(i))
    assert time.perf_counter() - began < 30  # told one by one MLflow would take a hundred
    assert threading.main_thread() is threading.current_thread()
    mirror.close("done")


def test_importing_the_store_imports_no_mlflow() -> None:
    code = "import sys, raysearch.store.ledger, raysearch.tracking.mlflow; sys.exit('mlflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_job_is_flattened_for_params() -> None:
    job = {
        "name": "x",
        "model": {"path": None, "prompt": {"on": True}},
        "controls": [],
        "options": {},
    }
    assert flatten(job) == {
        "name": "x",
        "model.path": "null",
        "model.prompt.on": "true",
        "controls": "[]",
        "options": "{}",
    }
