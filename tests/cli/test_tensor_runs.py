"""Whole runs on networks that take tensors, by the command line: a problem, a file of pairs,
resume, and each thing that does not fit."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from safetensors.numpy import save_file

from raysearch.cluster.local_pool import LocalPool
from raysearch.errors import RaysearchError
from raysearch.job import Job
from raysearch.runner.resolution.resolve import resolve
from raysearch.runner.session.pools import spec_of
from raysearch.store.run_folder import find_run
from tests.cli.conftest import ROOT, Shell
from tests.edited import unended
from tests.once import Once

HANDCRAFTED = ROOT / "jobs" / "hierarchical_equality_handcrafted.yaml"
LOCAL = ("--pool", "local", "--tracking-uri", "none", "-q")

Place = tuple[str, int | None, tuple[int, ...] | None]
TRUE: set[Place] = {
    ("left_equality", 0, (0, 1, 2, 3)),
    ("right_equality", 0, (4, 5, 6, 7)),
    ("left_equality", 1, (0, 1)),
    ("right_equality", 1, (2, 3)),
    ("output", 0, None),
}

MINE = """
import torch
from torch import Tensor, nn

class Last(nn.Module):
    "A GRU that keeps what it is given last: its class is the larger of the last step's two numbers."
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(2, 2, batch_first=True)
        with torch.no_grad():
            for p in self.parameters():
                p.zero_()
            self.rnn.bias_ih_l0[2:4] = -20.0  # the update gate: all is new
            self.rnn.weight_ih_l0[4:6] = torch.eye(2)
    def forward(self, given: Tensor) -> Tensor:
        return 10 * self.rnn(given)[0][:, -1]

def net():
    return Last()
"""


@pytest.fixture(scope="module")
def undisturbed(once: Once) -> Path:
    """The handcrafted network, searched once; its run folder."""
    return once.searched(HANDCRAFTED)


def _rows(shell: Shell, run: Path | str = "latest") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = shell.json("results", str(run), "-o", "json")
    return rows


def _place(row: dict[str, Any]) -> Place:
    (unit,) = json.loads(row["units"])
    coordinates = unit.get("subspace", {}).get("coordinates")
    return row["variable"], row["layer"], tuple(coordinates) if coordinates else None


@pytest.mark.slow
def test_each_comparison_is_found_in_its_own_neurons_with_iia_1_and_nowhere_else(
    undisturbed: Path, shell: Shell
) -> None:
    rows = _rows(shell, undisturbed)
    assert len(rows) == 15
    accepted = {_place(r): r for r in rows if r["verdict"] == "accept"}
    assert set(accepted) == TRUE
    assert (
        {r["iia"] for r in accepted.values()}
        == {r["holdout_iia"] for r in accepted.values()}
        == {1.0}
    )
    assert {r["verdict"] for r in rows if _place(r) not in TRUE} == {"reject"}
    full = {r["variable"]: r["verdict"] for r in rows if _place(r)[1:] == (0, None)}
    assert full == {"left_equality": "reject", "right_equality": "reject", "output": "accept"}


@pytest.mark.slow
def test_a_network_of_ones_own_is_nothing_for_pyvene(
    undisturbed: Path, shell: Shell, tmp_path: Path
) -> None:
    row = next(row for row in _rows(shell, undisturbed) if row["verdict"] == "accept")
    named = str(undisturbed), row["hypothesis"], "--to", str(tmp_path / "x")
    done = shell("export", *named, "--format", "pyvene")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.endswith("network of your own; export it with --format raysearch")
    assert not (tmp_path / "x").exists()


def test_the_pairs_are_kept_as_tensors(undisturbed: Path) -> None:
    pairs = pq.read_table(undisturbed / "pairs.parquet").to_pylist()
    assert all(p["base_text"] is None and p["base_ids"] is None for p in pairs)
    assert {tuple(p["base_tensor"]["shape"]) for p in pairs} == {(8,)}
    assert {tuple(p["base_answer_ids"]) for p in pairs} == {(0,), (1,)}


@pytest.mark.slow  # a whole job
def test_a_killed_search_resumes_to_the_same_verdicts_and_draws_no_pair_again(
    undisturbed: Path, shell: Shell
) -> None:
    command = ("run", str(HANDCRAFTED), *LOCAL, "--set", "resources.rows=4")
    shell.killed(*command, once=lambda journal: journal.count(b"\n") >= 6)
    done = shell("resume", "latest", "--pool", "local")
    assert done.returncode == 0, done.stderr
    assert "replayed" in done.stderr
    assert _rows(shell) == _rows(shell, undisturbed)


def test_resume_refuses_a_network_that_is_another_by_now(shell: Shell) -> None:
    job = _job(shell.folder)
    assert shell("run", str(job), *LOCAL).returncode == 0
    unended(find_run(shell.folder / "runs", "latest").path)
    (shell.folder / "mine.py").write_text(MINE.replace("10 *", "11 *"))
    done = shell("resume", "latest", "--pool", "local", "-q")
    assert (done.returncode, "began with a model of digest" in done.stderr) == (2, True), (
        done.stderr
    )


def _job(folder: Path, **changes: Any) -> Path:
    """A search on MINE over a file of pairs: time steps are positions, tensors lie in rows of one
    file."""
    (folder / "mine.py").write_text(MINE)
    rows = np.random.default_rng(0).choice(np.float32([-1, 1]), (60, 3, 1)) * np.float32([1, -1])
    save_file({"rows": rows}, folder / "t.safetensors")
    (folder / "pairs.jsonl").write_text(
        "\n".join(json.dumps(_pair(rows, n, 59 - n)) for n in range(60))
    )
    job = {
        "name": "mine",
        "model": {"path": "mine.py:net"},
        "problem": {"pairs": "pairs.jsonl"},
        "pairs": {"test": 60, "holdout": 0},
        "answer": {"compare": "class"},
        "resources": {"gpus": 0},
        **changes,
    }
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(job))
    return path


def _pair(rows: np.ndarray, base: int, source: int, **changes: Any) -> dict[str, Any]:
    def side(row: int) -> dict[str, Any]:
        positions = {"first": {"tokens": [0]}, "late": {"tokens": [1, 2]}}
        return {"tensor": f"t.safetensors#rows[{row}]", "positions": positions}

    answers = {
        name: str(int(rows[row, -1].argmax())) for name, row in (("base", base), ("source", source))
    }
    return {
        "base": side(base), "source": side(source), "answers": answers, "counterfactual": {"last_sign": answers["source"]},
        "split": "test", **changes,
    }  # fmt: skip


@pytest.mark.slow
def test_time_steps_of_a_recurrent_network_are_searched_from_a_file_of_pairs(shell: Shell) -> None:
    job = _job(shell.folder)
    done = shell("run", str(job), *LOCAL)
    assert done.returncode == 0, done.stderr
    found = {r["position"]: r["verdict"] for r in _rows(shell)}
    assert found == {"first": "reject", "late": "accept", "last": "accept"}
    planned = shell.json("plan", str(job), "-o", "json")
    assert (planned["hypotheses"], planned["layers"], planned["longest"], planned["inputs"]) == (
        3,
        1,
        3,
        8,
    )


def _no_file(folder: Path) -> Path:
    return _job(folder, model={"path": "absent.py:net"})


def _no_factory(folder: Path) -> Path:
    return _job(folder, model={"path": "mine.py:nett"})


def _no_module(folder: Path) -> Path:
    return _job(folder, model={"path": "no_such_package:net"})


def _revision(folder: Path) -> Path:
    return _job(folder, model={"path": "mine.py:net", "revision": "main"})


def _first_token(folder: Path) -> Path:
    return _job(folder, answer={})


def _class_of_a_language_model(folder: Path) -> Path:
    return _job(folder, model={"path": str(ROOT / "jobs/planted/model")})


def _texts(folder: Path) -> Path:
    return _job(folder, problem={"use": "raysearch.problems.add_three"}, space={"variables": ["a"]})


def _tensors_for_a_language_model(folder: Path) -> Path:
    return _job(folder, model={"path": str(ROOT / "jobs/planted/model")}, answer={})


def _coordinate_of_a_narrow_layer(folder: Path) -> Path:
    raw = yaml.safe_load(HANDCRAFTED.read_text())
    raw["model"]["path"] = str(HANDCRAFTED.parent / raw["model"]["path"])
    raw["space"]["layers"] = "all"
    (folder / "job.yaml").write_text(yaml.safe_dump(raw))
    return folder / "job.yaml"


CASES: list[tuple[Callable[[Path], Path], str]] = [
    (_no_file, "model.path: there is no file"),
    (
        _no_factory,
        "mine.py has no 'nett'; give file.py:name of a function that returns a torch.nn.Module",
    ),
    (_no_module, "model.path: there is no module 'no_such_package'"),
    (_revision, "revision is for a language model; mine.py:net is a function that makes one"),
    (
        _first_token,
        "answer.compare: first_token is for a language model, and mine.py:net makes a network on "
        "tensors",
    ),
    (
        _class_of_a_language_model,
        "answer.compare: class is for a network that puts out class logits",
    ),
    (_texts, "and the model takes tensors; give pairs of tensors"),
    (
        _tensors_for_a_language_model,
        "is the tensor of shape [3, 2], and the model is a language model",
    ),
    (
        _coordinate_of_a_narrow_layer,
        "space.subspaces: 4 is no coordinate of residual in layer 1 in hierarchical",
    ),
]


def _open(job: Path) -> None:
    """As the command does before it searches, in this process: one of its own for each case would
    take a minute."""
    question = resolve(Job.load(job))
    opened = LocalPool(spec_of(question, question.job)).open()
    question.search(opened.facts, opened.encoded)


@pytest.mark.parametrize(
    ("make", "says"), CASES, ids=[make.__name__.strip("_") for make, _ in CASES]
)
def test_what_does_not_fit_is_one_line_and_exit_code_2(
    tmp_path: Path, make: Callable[[Path], Path], says: str
) -> None:
    with pytest.raises(RaysearchError) as refused:
        _open(make(tmp_path))
    assert says in str(refused.value)
    assert (refused.value.exit_code, "\n" in str(refused.value)) == (2, False)


def test_the_command_says_it_in_one_line_too(shell: Shell) -> None:
    done = shell("run", str(_no_factory(shell.folder)), *LOCAL)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("raysearch: ")
    assert "job.yaml: model.path: " in line


def test_the_hash_of_a_job_counts_the_content_of_the_factorys_file(tmp_path: Path) -> None:
    hashes = set()
    for text in (MINE, MINE, MINE + "\n# changed\n"):
        job = _job(tmp_path)
        (tmp_path / "mine.py").write_text(text)
        hashes.add(resolve(Job.load(job)).hash("pairs"))
    assert len(hashes) == 2
