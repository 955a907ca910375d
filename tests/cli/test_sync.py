"""`raysearch sync`: what MLflow missed is told it by the journal, once."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from raysearch.core.records import Snapshot
from raysearch.errors import TrackingError
from raysearch.runner.session.status import local_facts, local_status
from raysearch.runner.session.sync import sync_run
from raysearch.storage.local import LocalFolder
from raysearch.store.progress_file import write_progress
from raysearch.store.run_folder import find_run
from tests.cli.conftest import QUICKSTART, Shell
from tests.once import Once

SMALL = tuple(
    f"--set={key}"
    for key in (
        "pairs.test=64",
        "test.max_pairs=64",
        "space.layers=[0, 1]",
        "space.variables=[a, sum_ab]",
    )
)
RUN = ("run", str(QUICKSTART), *SMALL, "--pool", "local", "-q")
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, migrated_db: Path) -> Shell:
    """A folder with a run that MLflow was told of as it went."""
    shell = Shell(tmp_path_factory.mktemp("live"))
    shutil.copy(migrated_db, shell.folder / "mlflow.db")
    done = shell(*RUN, "--tracking-uri", "sqlite:///mlflow.db")
    assert done.returncode == 0, done.stderr
    return shell


@pytest.fixture
def run(live: Shell, shell: Shell) -> Path:
    """The same run in a folder of this test's own, as if MLflow had been kept out of it."""
    shutil.copytree(live.folder / "runs", shell.folder / "runs")
    found = find_run(shell.folder / "runs", "latest")
    found.update(tracking_uri=None, tracking_run_id=None)
    return found.path


def runs(uri: str) -> tuple[Run, list[Run]]:
    """The one run of a search, and its children in the order of their names."""
    client = MlflowClient(tracking_uri=uri)
    (experiment,) = [e for e in client.search_experiments() if e.name.startswith("raysearch/")]
    found = client.search_runs([experiment.experiment_id])
    children = sorted(
        (r for r in found if "mlflow.parentRunId" in r.data.tags), key=lambda r: r.info.run_name
    )
    (parent,) = [r for r in found if r not in children]
    return parent, children


def histories(uri: str) -> dict[str, list[tuple[int, float]]]:
    client, (parent, _) = MlflowClient(tracking_uri=uri), runs(uri)
    return {
        name: [(p.step, p.value) for p in client.get_metric_history(parent.info.run_id, name)]
        for name in parent.data.metrics
    }


def files(uri: str, run_id: str, folder: str = "") -> list[str]:
    client = MlflowClient(tracking_uri=uri)
    found: list[str] = []
    for entry in client.list_artifacts(run_id, folder):
        found += files(uri, run_id, entry.path) if entry.is_dir else [entry.path]
    return sorted(found)


def figures(run: Run) -> dict[str, Any]:
    return {name: value for name, value in run.data.metrics.items() if name != "pairs_per_second"}


@pytest.mark.slow
def test_a_run_without_mlflow_is_told_as_a_live_one_would_have_been(
    live: Shell, shell: Shell, run: Path, tracking: str
) -> None:
    done = shell("sync", "latest", "--tracking-uri", tracking)
    assert done.returncode == 0, done.stderr
    there = f"sqlite:///{live.folder / 'mlflow.db'}"
    (parent, children), (wanted, wanted_children) = runs(tracking), runs(there)
    assert f"run {parent.info.run_id} of experiment raysearch/" in done.stderr
    assert parent.data.params == wanted.data.params
    ours = {k: v for k, v in parent.data.tags.items() if k.startswith("raysearch.")}
    assert ours == {k: v for k, v in wanted.data.tags.items() if k.startswith("raysearch.")}
    assert (parent.info.status, parent.info.run_name) == (wanted.info.status, wanted.info.run_name)
    assert figures(parent) == figures(wanted)
    assert files(tracking, parent.info.run_id) == files(there, wanted.info.run_id)
    assert [c.info.run_name for c in children] == [c.info.run_name for c in wanted_children] != []
    assert [c.data.metrics for c in children] == [c.data.metrics for c in wanted_children]
    points = histories(tracking)["alive"]
    assert len(points) > 3
    assert points == sorted(points, key=lambda p: p[0])
    assert len(points) == len(set(points))
    info = json.loads((run / "run.json").read_text())
    assert (info["tracking_run_id"], info["tracking_uri"]) == (parent.info.run_id, tracking)


@pytest.mark.slow
def test_said_twice_it_makes_one_run_and_no_point_twice(
    shell: Shell, run: Path, tracking: str
) -> None:
    said = shell("sync", str(run), "--tracking-uri", tracking)
    assert said.returncode == 0, said.stderr
    first, (parent, children) = histories(tracking), runs(tracking)
    find_run(run.parent, "latest").update(
        tracking_run_id=None
    )  # as after a crash before it was written down
    again = shell("sync", str(run))
    assert again.returncode == 0, again.stderr
    assert histories(tracking) == first
    after, children_after = runs(tracking)
    assert after.info.run_id == parent.info.run_id
    assert [c.info.run_id for c in children_after] == [c.info.run_id for c in children]


@pytest.mark.slow  # a whole run told to MLflow twice
def test_a_run_that_mlflow_knows_already_gets_what_it_lacks_and_no_more(live: Shell) -> None:
    uri = f"sqlite:///{live.folder / 'mlflow.db'}"
    before, (parent, _) = histories(uri), runs(uri)
    done = live("sync", "latest")
    assert done.returncode == 0, done.stderr
    assert histories(uri) == before
    assert runs(uri)[0].info.run_id == parent.info.run_id


@pytest.mark.slow
def test_without_an_mlflow_it_is_one_line_and_exit_code_4(shell: Shell, run: Path) -> None:
    kept_out = shell("sync", "latest")
    assert kept_out.returncode == 4
    assert "no tracker was told of it; give --tracking-uri" in kept_out.stderr
    dead = shell("sync", "latest", "--tracking-uri", "http://user:secret@127.0.0.1:1")
    assert dead.returncode == 4
    (line,) = dead.stderr.splitlines()
    assert "cannot be reached" in line
    assert "secret" not in line
    assert json.loads((run / "run.json").read_text())["tracking_uri"] is None


def test_a_run_of_a_version_that_kept_no_facts_says_what_would_do(
    shell: Shell, run: Path, tracking: str
) -> None:
    find_run(run.parent, "latest").update(facts=None)
    done = shell("sync", "latest", "--tracking-uri", tracking)
    assert done.returncode == 2
    assert "`raysearch resume` it once" in done.stderr


def test_a_run_compacted_by_the_command_line_has_the_same_results(shell: Shell, run: Path) -> None:
    before = shell("results", "latest", "-o", "json").stdout
    done = shell("compact", "latest")
    assert done.returncode == 0, done.stderr
    assert "-> 1 part" in done.stderr
    assert shell("results", "latest", "-o", "json").stdout == before


def test_a_status_says_what_the_search_said_at_its_end_and_who_works_on_it(live: Shell) -> None:
    run = find_run(live.folder / "runs", "latest")
    said = dict(line.split(maxsplit=1) for line in local_status(run))
    rows = live.json("results", "latest", "-o", "json")
    accepted = sum(row["verdict"] == "accept" for row in rows)
    rejected = sum(row["verdict"] == "reject" for row in rows)
    assert said["status"] == "done"
    assert said["stage"] == "done"
    assert said["verdicts"].startswith(f"0 alive, {accepted} accepted, {rejected} rejected, ")
    assert said["mlflow"] == f"run {run.info.tracking_run_id} at {run.info.tracking_uri}"
    assert said["last"].startswith("event at 20")
    told = live.json("status", "latest", "-o", "json")
    assert (told["run"], told["state"], told["stage"]) == (said["run"], "done", "done")
    assert (told["alive"], told["accepted"], told["rejected"], told["at_most"]) == (
        0,
        accepted,
        rejected,
        0,
    )
    assert told["pairs"] == int(said["pairs"].split()[0])
    assert (told["state"], told["says"]) == ("done", "done")
    assert local_status(run)[1] == "status    done"


def test_a_status_of_a_run_that_was_killed_says_how_to_go_on(shell: Shell, run: Path) -> None:
    (journal,) = (run / "journal").glob("*/*.jsonl")
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[: len(lines) // 2]))
    write_progress(
        LocalFolder(run),
        journal.parent.name,
        Snapshot("searching", 7, 1, 2, 0, 0, 64, 99, 3, 1, 0, 2),
    )
    said = dict(line.split(maxsplit=1) for line in local_status(find_run(run.parent, "latest")))
    assert said["status"] == f"its driver was killed; go on with: raysearch resume {run}"
    assert said["stage"] == "searching"
    assert said["counted"].startswith("at 20")
    facts = local_facts(find_run(run.parent, "latest"))
    assert (facts["state"], facts["says"]) == ("killed", "its driver was killed")
    (line,) = shell.json("runs", "-o", "json")
    assert (line["state"], line["error"]) == (facts["state"], None)
    with find_run(run.parent, "latest").lock():
        facts = local_facts(find_run(run.parent, "latest"))
    assert facts["state"] == "running"
    assert facts["says"].startswith(f"process {os.getpid()} on ")
    assert said["verdicts"].startswith("7 alive, 1 accepted, 2 rejected, ")
    assert said["verdicts"].endswith(", 2 fits in training")
    assert said["pairs"] == "64 evaluated, at most 99 to come"


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("", "is no file"),
        ("/nowhere/mlflow.db", "is no folder that can be written"),
        ("/run.json/mlflow.db", "is no folder that can be written"),
    ],
)
def test_a_database_that_cannot_be_is_refused_before_mlflow_tries_for_minutes(
    once: Once, place: str, says: str
) -> None:
    run = once.searched(
        QUICKSTART, "--set", "space.variables=[sum_ab,total]", "--set", "pairs.test=128"
    )
    with pytest.raises(TrackingError, match=says):
        sync_run(find_run("unused", str(run)), f"sqlite:///{run}{place}")
