"""Two searches on a new SQLite file both come to MLflow; a deleted experiment is named."""

import logging
from pathlib import Path
from typing import Any

import pytest

from raysearch.tracking import mlflow as mirror
from raysearch.tracking.mlflow_client import connect
from raysearch.tracking.mlflow_retries import patiently
from raysearch.tracking.tracker import TrackedRun
from tests.command import Running, environment

ONE = """
import sys
from raysearch.tracking.mlflow import MlflowTracker
from raysearch.tracking.tracker import TrackedRun
name, uri = sys.argv[1:]
tracker = MlflowTracker(TrackedRun(uri, "raysearch/race", {"a": 1}, {"raysearch.run": name}))
print(tracker.close("done", timeout=120), tracker.why)
"""


@pytest.mark.slow  # two migrations of MLflow at once
def test_searches_that_begin_at_once_on_a_new_file_are_all_mirrored(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    (script := tmp_path / "one.py").write_text(ONE)
    begun = [Running((name, uri), tmp_path, environment(), script) for name in ("first", "second")]
    assert [process.communicate()[0] for process in begun] == ["True None\n"] * 2
    client = connect(uri)
    experiment = client.get_experiment_by_name("raysearch/race")
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.data.tags["raysearch.run"] for run in runs) == ["first", "second"]

    client.delete_experiment(experiment.experiment_id)
    tracked = TrackedRun(uri, "raysearch/race", {}, {"raysearch.run": "third"})
    said = list[str]()
    logging.getLogger("raysearch.mlflow").addHandler(handler := _Into(said))
    try:
        tracker = mirror.MlflowTracker(tracked)
        tracker._stopped.wait(2.0)
        client.restore_experiment(experiment.experiment_id)  # while it waits
        assert tracker.close("done", timeout=60), said
        client.delete_experiment(experiment.experiment_id)
        assert not mirror.MlflowTracker(tracked).close("done", timeout=40)
    finally:
        logging.getLogger("raysearch.mlflow").removeHandler(handler)
    (line,) = said
    assert "its experiment 'raysearch/race' is deleted; restore it" in line
    assert line.endswith("`raysearch sync third` sends it everything")


class _Into(logging.Handler):
    def __init__(self, said: list[str]) -> None:
        super().__init__()
        self._said = said

    def emit(self, record: logging.LogRecord) -> None:
        self._said.append(record.getMessage())


@pytest.mark.parametrize(
    ("errors", "tries"),
    [
        ([RuntimeError("(sqlite3.OperationalError) table runs already exists")], 2),
        ([RuntimeError("Detected out-of-date database schema")] * 2, 3),
        ([RuntimeError("RESOURCE_ALREADY_EXISTS")], 2),
    ],
)
def test_what_may_pass_is_tried_again(errors: list[Exception], tries: int) -> None:
    waited, left = list[float](), list(errors)

    def do() -> int:
        if left:
            raise left.pop()
        return len(waited) + 1

    assert patiently("http://nowhere", do, lambda s: bool(waited.append(s))) == tries


def test_what_does_not_pass_is_tried_once() -> None:
    tried = list[int]()

    def do() -> Any:
        tried.append(1)
        raise ConnectionError("refused")

    with pytest.raises(ConnectionError):
        patiently("http://nowhere", do, lambda _: False)
    assert tried == [1]
