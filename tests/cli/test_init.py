"""`raysearch init`: what it writes runs as it is, and finds what is there."""

import json
from pathlib import Path

import pytest

import raysearch as rs
from raysearch.causal.pairs import Pair
from raysearch.cli.init import KINDS
from raysearch.cli.main import cli
from raysearch.errors import JobError
from raysearch.job import Job
from raysearch.problems.add_three import problem as add_three
from raysearch.runner.starter_files import STARTERS, job_name
from tests.once import Once


def started(*args: object) -> None:
    cli.main(["init", *map(str, args)], standalone_mode=False)


def accepted(once: Once, job: Path) -> set[tuple[str, int, str]]:
    run = rs.Run.open(once.searched(job))
    return {(a.variable, a.layer, a.position) for a in run.alignment.itertuples()}


@pytest.mark.slow  # a whole job
def test_a_causal_model_to_begin_with_is_found_in_the_model_that_comes_with_it(
    tmp_path: Path, once: Once
) -> None:
    started(tmp_path / "sums")
    assert Job.load(tmp_path / "sums" / "job.yaml").name == "sums"
    found = accepted(once, tmp_path / "sums" / "job.yaml")
    assert ("sum_ab", 1, "plus2") in found
    assert {variable for variable, *_ in found} == {"a", "b", "c", "sum_ab", "total"}


@pytest.mark.slow
def test_a_network_to_begin_with_has_the_variable_where_its_weights_put_it(
    tmp_path: Path, once: Once
) -> None:
    started(tmp_path, "--from", "network", "--name", "mine")
    run = rs.Run.open(once.searched(tmp_path / "job.yaml"))
    sites = {(a.variable, a.layer, a.features) for a in run.alignment.itertuples()}
    assert {variable for variable, *_ in sites} == {"larger", "c", "above"}
    assert len([site for site in sites if site[:2] == ("larger", 0)]) == 1


def _line(pair: Pair) -> str:
    def of(text: rs.Input) -> dict[str, object]:
        return {"text": text.text, "positions": {n: list(span) for n, span in text.spans.items()}}

    line = {
        "base": of(pair.base),
        "source": of(pair.sources["source"]),
        "answers": dict(pair.answers),
        "counterfactual": dict(pair.counterfactual),
    }
    return json.dumps(line)


@pytest.mark.slow
def test_a_file_of_pairs_gives_the_job_its_variables_and_positions(
    tmp_path: Path, once: Once
) -> None:
    pairs = rs.draw_pairs(add_three(), ("a", "sum_ab"), {"test": 300}, seed=0)
    file = tmp_path / "my pairs.jsonl"
    file.write_text("\n".join(map(_line, pairs)))
    started(tmp_path / "job", "--pairs", file)
    space = Job.load(tmp_path / "job" / "job.yaml").space
    assert space.variables == ("a", "sum_ab")
    assert "plus2" in space.positions
    assert {("a", 0, "a"), ("sum_ab", 1, "plus2")} == accepted(once, tmp_path / "job" / "job.yaml")


def test_a_position_that_some_pairs_lack_is_left_out(tmp_path: Path) -> None:
    one, two = rs.draw_pairs(add_three(), ("a", "sum_ab"), {"test": 2}, seed=0)
    other = json.loads(_line(two))
    del other["source"]["positions"]["b"]
    file = tmp_path / "pairs.jsonl"
    file.write_text(f"{_line(one)}\n{json.dumps(other)}\n")
    started(tmp_path / "job", "--pairs", file)
    space = Job.load(tmp_path / "job" / "job.yaml").space
    assert space.positions == ("a", "plus1", "plus2", "c", "last")


def test_the_counts_of_a_job_are_those_that_the_file_gives(tmp_path: Path) -> None:
    pairs = rs.draw_pairs(add_three(), ("a", "sum_ab"), {"test": 90}, seed=0)
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(_line, pairs)))
    started(tmp_path / "job", "--pairs", tmp_path / "pairs.jsonl")
    job = tmp_path / "job" / "job.yaml"
    found = rs.plan(job).pairs
    text = job.read_text()
    assert f"of {sum(found.values())} pairs the file gives {found['test']}\n" in text
    assert f"accepted; the file gives {found['holdout']}\n" in text
    lines = [json.dumps(json.loads(_line(p)) | {"split": "test"}) for p in pairs]
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines))
    started(tmp_path / "own", "--pairs", tmp_path / "pairs.jsonl")
    assert "the file gives 0\n" in (tmp_path / "own" / "job.yaml").read_text()
    assert Job.load(tmp_path / "own" / "job.yaml").pairs.holdout == 0


@pytest.mark.parametrize(("pairs", "held_out"), [(12, 0), (40, 0), (64, 0), (72, 8), (200, 50)])
def test_few_pairs_all_decide_and_it_is_said_how_many_are_held_out(
    tmp_path: Path, pairs: int, held_out: int, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = rs.draw_pairs(add_three(), ("a", "sum_ab"), {"test": pairs}, seed=0)
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(map(_line, drawn)))
    started(tmp_path / "job", "--pairs", file)
    found = Job.load(tmp_path / "job" / "job.yaml").pairs
    assert (found.test, found.holdout) == (pairs - held_out, held_out)
    said = capsys.readouterr().err
    assert f"{pairs} pairs: " in said
    assert ("none held out" in said) == (held_out == 0)


def test_few_pairs_that_their_file_holds_out_stay_held_out(tmp_path: Path) -> None:
    drawn = rs.draw_pairs(add_three(), ("a", "sum_ab"), {"test": 40}, seed=0)
    lines = [
        json.dumps(json.loads(_line(pair)) | {"split": "test" if i % 4 else "holdout"})
        for i, pair in enumerate(drawn)
    ]
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines))
    started(tmp_path / "job", "--pairs", tmp_path / "pairs.jsonl")
    assert Job.load(tmp_path / "job" / "job.yaml").pairs.holdout == 10


def test_each_starter_is_a_kind_to_begin_from() -> None:
    assert {path.name for path in STARTERS.iterdir()} == set(KINDS)


def test_nothing_is_written_over_and_nothing_is_written_then(tmp_path: Path) -> None:
    (tmp_path / "problem.py").write_text("mine")
    with pytest.raises(JobError, match=r"problem\.py: is there already; give another folder"):
        started(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["problem.py"]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--from", "pairs"], "give --pairs FILE"),
        (["--from", "network", "--model", "gpt2"], "leave it out"),
        (["--from", "network", "--pairs", "."], "takes no file of pairs"),
        (["--name", "a b"], "should be letters, digits"),
        (["--model", "nosuch/"], "there is no nosuch/; give a folder"),
        (["--model", "./nosuch"], "there is no ./nosuch; give a folder"),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(
    args: list[str], says: str, tmp_path: Path
) -> None:
    with pytest.raises(JobError, match=says):
        started(tmp_path / "new", *args)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("folder", "name"),
    [("sums", "sums"), ("my sums", "my-sums"), ("._x", "x"), ("Größe", "Gr-e"), ("...", "search")],
)
def test_a_folder_gives_its_job_a_name(folder: str, name: str, tmp_path: Path) -> None:
    assert job_name(tmp_path / folder) == name


def test_a_model_of_ones_own_goes_by_its_path_from_the_job(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "weights").mkdir()
    started(tmp_path / "new", "--model", tmp_path / "weights")
    assert Job.load(tmp_path / "new" / "job.yaml").model.path == str(tmp_path / "weights")
    assert "../weights" in (tmp_path / "new" / "job.yaml").read_text()
    assert "hub id" not in capsys.readouterr().err
    started(tmp_path / "hub", "--model", "org/name")
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "hub id" in line]
    assert "org/name is no path here" in said
    assert "not looked up" in said
    assert Job.load(tmp_path / "hub" / "job.yaml").model.path == "org/name"
