"""The number of further pairs that is named suffices; where none would help, the reason is said."""

import re
from pathlib import Path

import pytest
import yaml

from raysearch.cli.results import further
from raysearch.report.results_table import results
from raysearch.store.run_folder import RunFolder, find_run
from tests.cli.test_continuation import LOCAL, QUIET, begun, call, found

PROBLEM = """
from raysearch import Problem
from raysearch.problems import add_three


def problem() -> Problem:
    return add_three.problem()
"""


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run that is done, and could accept nothing."""
    return begun(tmp_path_factory.mktemp("more"))


@pytest.mark.slow  # a whole run
def test_too_few_further_pairs_are_said_and_the_number_named_then_decides_all(
    short: RunFolder,
) -> None:
    once = call("resume", short.place, "--more-pairs", "1", *LOCAL)
    assert "nothing can be accepted: K = 4 hypotheses" in once.output
    assert "a test has at most 13;" in once.output
    assert found(short)["undecided"] == 2
    for row in results(short.folder, where="verdict = 'undecided'").to_pylist():
        assert " pairs of at most 13 (test.max_pairs and --more-pairs) give" in row["reason"]
        assert "level 0.0125: test.false_accept 0.05 over K = 4 hypotheses" in row["reason"]
    shown = call("results", short.place).output
    assert "over K = 4 hypotheses" in shown
    (more,) = re.findall(r"go on with: raysearch (resume \S+ --more-pairs [0-9]+)\n", shown)
    assert call(*more.split(), *LOCAL, "-q").exit_code == 0
    assert "undecided" not in found(short)


def test_a_problem_whose_file_is_gone_is_named_and_no_resume_is(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PROBLEM)
    run = begun(tmp_path, problem={"use": "mine.py:problem", "options": None})
    assert "--more-pairs" in further(run)[0]
    (tmp_path / "mine.py").unlink()
    command, why = further(run)
    assert "resume" not in command
    assert f"there is no {tmp_path / 'mine.py'}" in why
    assert "no further pairs: " in call("results", run.place).output


CONSTANT = """
import itertools

import torch
from raysearch import CausalModel, Input, Problem, Variable
from torch import nn

CLASSES = 5
model = CausalModel(
    variables=(Variable("x", tuple(range(CLASSES))), Variable("n", tuple(range(4096))),
               Variable("same", tuple(range(CLASSES)))),
    parents={"same": ("x",)},
    mechanisms={"same": lambda x: x},
    output="same",
)


turn = itertools.cycle(range(CLASSES))


def draw(rng):
    return {"x": rng.randrange(CLASSES), "n": rng.randrange(4096)}


def pair(rng):
    base = next(turn)  # as many of each, so that the share is the threshold as nearly as can be
    return {**draw(rng), "x": base}, {**draw(rng), "x": (base + 1) % CLASSES}


def stimulus(v):
    return [*(float(v["x"] == i) for i in range(CLASSES)), v["n"] / 4096]


problem = Problem(
    "constant", model, pair, lambda v: Input(stimulus=stimulus(v), values=v), str, (),
)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 6, bias=False), nn.Linear(6, 5, bias=False)
        for layer in (self.first, self.second):
            layer.weight = nn.Parameter(torch.eye(*layer.weight.shape))

    def forward(self, x):
        return self.second(self.first(x))


def network():
    return Net()
"""


def test_no_further_pairs_are_proposed_for_what_is_at_the_threshold_by_construction(
    tmp_path: Path,
) -> None:
    """What a network says with all of it set to zero is one answer of five, so that four of five
    bases lose theirs, on however many pairs: the threshold itself."""
    (tmp_path / "constant.py").write_text(CONSTANT)
    raw = {
        "name": "constant",
        "model": {"path": "constant.py:network"},
        "problem": {"use": "constant.py:problem"},
        "answer": {"compare": "class"},
        "pairs": {"test": 400, "holdout": 0},
        "space": {
            "variables": ["x"],
            "units": [[{"component": "first", "position": "last", "operation": "zero"}]],
        },
        "test": {"threshold": 0.8, "max_pairs": 400, "futility": 0},
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(raw))
    done = call("run", tmp_path / "job.yaml", "--store", tmp_path / "runs", *LOCAL, *QUIET[:2])
    run = find_run(tmp_path / "runs", "latest")
    assert found(run) == {"undecided": 1}, done.output
    command, why = further(run)
    assert command.startswith("raysearch view ")
    assert re.search(r"lies at the threshold 0.8 \(0\.\d+\), so that", why)
    assert "ask at another test.threshold" in why
    for said in (done.output, call("results", run.place).output):
        assert "--more-pairs" not in said
