"""mean_difference: of every variable whose values the problem knows, and else refused by `plan`."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import raysearch as rs
from raysearch.errors import JobError
from raysearch.job import Job
from raysearch.problems import load_problem
from raysearch.runner.resolution.resolve import resolve
from raysearch.store.pairs_table import pairs_digest, read_pairs, write_pairs
from tests.runner.finished import ROOT, raysearch
from tests.store.books import new_run

ADD = load_problem("raysearch.problems.add_three", {})
JOB: dict[str, Any] = {
    "name": "values",
    "model": {"path": str(ROOT / "jobs/planted/model")},
    "problem": {"use": "raysearch.problems.add_three"},
    "pairs": {"fit": 96, "test": 32, "holdout": 8},
    "space": {
        "variables": ["sum_ab", "total", "c"],
        "layers": [2],
        "positions": ["last"],
        "subspaces": ["mean_difference"],
    },
    "test": {"max_pairs": 32},
}
LINE = {
    "base": {"text": "1+2="},
    "source": {"text": "3+4="},
    "answers": {"base": "3", "source": "7"},
    "counterfactual": {"x": "7", "y": "4"},
}


def test_equal_values_have_equal_numbers_and_others_have_not() -> None:
    pairs = rs.draw_pairs(ADD, ("sum_ab", "c", "total"), {"fit": 64}, seed=0)
    seen: dict[tuple[str, int], set[object]] = {}
    for pair in pairs:
        for name, given in {"base": pair.base, **pair.sources}.items():
            run = ADD.model.run({k: int(given.text[2 * i]) for i, k in enumerate("abc")})
            for variable, numbers in pair.values.items():
                seen.setdefault((variable, numbers[name]), set()).add(run[variable])
    assert all(len(values) == 1 for values in seen.values())
    assert len({(v, *values) for (v, _), values in seen.items()}) == len(seen) > 20


def test_values_are_kept_with_a_run_and_are_no_part_of_what_names_it(tmp_path: Path) -> None:
    pairs = rs.draw_pairs(ADD, ("sum_ab", "c"), {"test": 8}, seed=0)
    run = new_run(tmp_path)
    write_pairs(run.folder, pairs, None)
    again = read_pairs(run.folder).pairs
    assert [p.values for p in again] == [p.values for p in pairs]
    bare = [
        rs.Pair(p.index, p.base, p.sources, p.answers, p.counterfactual, p.split) for p in pairs
    ]
    assert pairs_digest(bare) == pairs_digest(pairs)


def _file(tmp_path: Path, lines: list[dict[str, Any]], variables: list[str]) -> Job:
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    space = {**JOB["space"], "variables": variables}
    job = {**JOB, "problem": {"pairs": str(path)}, "pairs": {}, "space": space}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    return Job.load(tmp_path / "job.yaml")


def _lines(*changes: dict[str, Any]) -> list[dict[str, Any]]:
    fit = [{**LINE, "split": "fit", **change} for change in changes]
    return [*fit, {**LINE, "base": {"text": "8+0="}, "split": "test"}]


def test_a_file_that_does_not_say_a_variables_values_is_refused_before_anything_runs(
    tmp_path: Path,
) -> None:
    job = _file(tmp_path, _lines({}), ["y"])
    with pytest.raises(JobError, match="needs the value of 'y' in each input, and pairs"):
        resolve(job)
    code, _, error = raysearch("plan", str(tmp_path / "job.yaml"))
    assert code == 2
    assert "mean_difference needs the value of 'y'" in error
    assert len([line for line in error.splitlines() if line.startswith("raysearch:")]) == 1


def test_one_value_alone_is_refused_and_an_answer_stands_for_a_value(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="needs two values of 'x', and the 1 fit pairs"):
        resolve(_file(tmp_path, _lines({}), ["x"]))
    other = {
        "source": {"text": "2+2="},
        "answers": {"base": "3", "source": "4"},
        "counterfactual": {"x": "4", "y": "3"},
    }
    assert len(resolve(_file(tmp_path, _lines({}, other), ["x"])).pairs) == 3


def test_what_no_subspace_reads_is_not_asked_for(tmp_path: Path) -> None:
    job = _file(tmp_path, _lines({}), ["y"])
    space = job.space.model_copy(update={"subspaces": ("full",)})
    assert resolve(job.model_copy(update={"space": space})).pairs


@pytest.mark.parametrize(
    ("subspaces", "says"),
    [
        (["mean_difference", {"pca": [4]}], "  training    6 subspaces computed from activations;"),
        (
            [{"das": [2]}, "mean_difference"],
            "  training    6 fits (seeds counted) of at most 400 steps with 32 pairs each; 3 subspaces "
            "computed from activations;",
        ),
        (
            [{"das": [2]}],
            "  training    6 fits (seeds counted) of at most 400 steps with 32 pairs each; 384 ",
        ),
    ],
)
def test_plan_says_which_subspaces_take_steps_and_which_are_computed(
    subspaces: list[Any], says: str
) -> None:
    job = {**JOB, "fit": {"seeds": [0, 1]}, "space": {**JOB["space"], "subspaces": subspaces}}
    plan = str(rs.plan(job))
    (line,) = (line for line in plan.splitlines() if "  training    " in line)
    assert line.startswith(says)
