"""While a task trains in this process, lines and `status` say the step, the loss and what is trained."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from raysearch.cluster import local_pool
from raysearch.core.records import Training
from raysearch.errors import StoreError
from raysearch.runner.session import progress_display
from raysearch.store import ledger
from raysearch.store.progress_file import read_progress
from raysearch.store.run_folder import RunFolder, find_run
from tests.runner.finished import raysearch

ROOT = Path(__file__).parents[2]
STEPS = 6
JOB: dict[str, Any] = {
    "name": "progress",
    "model": {"path": str(ROOT / "jobs/planted/model")},
    "problem": {"use": "raysearch.problems.add_three"},
    "pairs": {"test": 24, "fit": 16, "holdout": 0},
    "space": {
        "variables": ["total"],
        "layers": [3],
        "positions": ["last"],
        "subspaces": [{"das": [64]}],
    },
    "fit": {"steps": STEPS, "batch": 4, "seeds": [0], "rungs": [], "evaluate": STEPS},
    "controls": ["arbitrary_labels"],
}


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step is looked at."""
    monkeypatch.setattr(local_pool, "STEP_SECONDS", 0.0)
    monkeypatch.setattr(progress_display, "LINE_SECONDS", 0.0)
    monkeypatch.setattr(ledger, "PROGRESS_SECONDS", 0.0)


def _run(folder: Path) -> tuple[int, str]:
    (folder / "job.yaml").write_text(yaml.safe_dump(JOB))
    command = ["run", str(folder / "job.yaml"), "--pool", "local", "--tracking-uri", "none"]
    code, _, said = raysearch(*command, "--store", str(folder / "runs"))
    return code, said


@pytest.mark.usefixtures("at_once")
def test_within_a_stretch_each_line_says_step_loss_and_what_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[Training] = []
    write = ledger.write_progress

    def writes(run: Any, driver: str, snapshot: Any) -> None:
        write(run, driver, snapshot)
        found = read_progress(run)
        assert found is not None
        if found.snapshot.training is not None:
            counted.append(found.snapshot.training)

    monkeypatch.setattr(ledger, "write_progress", writes)
    code, text = _run(tmp_path)
    assert code == 0, text
    lines = [line for line in text.splitlines() if " in training: step " in line]
    for step in range(1, STEPS):
        (said, *_) = [line for line in lines if f"step {step} of {STEPS}, loss " in line]
        assert "of total" in said
    assert any("of total (control arbitrary_labels)" in line for line in lines)
    first = [t for t in counted if t.of == ("total",)]
    assert {t.step for t in first} >= set(range(STEPS))  # in progress.json, as `status` shows it
    assert len({t.loss for t in first}) > STEPS // 2
    assert {t.done + t.left for t in first} == {STEPS}


@pytest.mark.usefixtures("at_once")
def test_an_error_of_the_store_within_a_stretch_is_no_failure_of_the_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = ledger.write_progress

    def writes(run: Any, driver: str, snapshot: Any) -> None:
        if snapshot.training is not None and snapshot.training.step == 3:
            raise StoreError("the disk is full")
        write(run, driver, snapshot)

    monkeypatch.setattr(ledger, "write_progress", writes)
    code, text = _run(tmp_path)
    assert code == 2
    assert "the disk is full" in text
    run: RunFolder = find_run(str(tmp_path / "runs"), "latest")
    assert "failed" not in "".join(f.read_text() for f in (run.path / "journal").glob("*/*.jsonl"))


def test_a_later_step_takes_its_share_of_what_is_left() -> None:
    now = Training(4, 10, None, ("x",), 8, 12)
    assert now.at(7, 2, 0.5) == Training(7, 10, 0.5, ("x",), 14, 6)
    assert now.at(10, 9, 0.5).left == 0
    assert now.at(2, 2, 0.5).done == 8  # the same steps once more, with random weights
