"""Pairs that do not count are said with reason and way out: by plan, by the run, by results, on its
page, in its table."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from raysearch.cli.main import cli
from raysearch.errors import PairsError
from raysearch.report.results_table import read_table
from raysearch.viewer.page import write_page

MODEL = str(Path(__file__).parents[2] / "jobs/planted/model")


def _line(base: str, source: str, answers: tuple[str, str], v: str, **more: Any) -> dict[str, Any]:
    sides = [{"text": text, "positions": {"a": [0, 1], "b": [2, 3]}} for text in (base, source)]
    said = {"base": answers[0], "source": answers[1]}
    return {
        "base": sides[0],
        "source": sides[1],
        "answers": said,
        "counterfactual": {"v": v},
        "split": "test",
        **more,
    }


def _lines() -> Iterator[dict[str, Any]]:
    """Sums that change under a; one that keeps; one whose base the model gets wrong, as the file
    has it."""
    for a in range(1, 9):
        yield _line(f"{a}+1+1=", "0+1+1=", (str(a + 2), "2"), "2", set="changes")
    yield _line("1+2+1=", "1+3+1=", ("4", "5"), "4", set="keeps")
    yield _line("2+2+1=", "1+3+1=", ("7", "5"), "5", set="changes")


def _job(folder: Path, lines: list[dict[str, Any]], **keys: Any) -> Path:
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    job = {
        "name": "dropped",
        "model": {"path": MODEL},
        "problem": {"pairs": "pairs.jsonl"},
        "pairs": {"test": 20, "holdout": 5},
        "space": {"layers": [0], "positions": ["a"]},
        "test": {"max_pairs": 6},
        **keys,
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    return folder / "job.yaml"


def _call(*arguments: str) -> str:
    result = CliRunner().invoke(cli, arguments, standalone_mode=False, catch_exceptions=True)
    if result.exception is not None:
        raise result.exception
    return result.stdout + result.stderr


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What a run said, and its folder."""
    folder = tmp_path_factory.mktemp("dropped")
    job = _job(folder, list(_lines()))
    said = _call(
        "run",
        "--pool",
        "local",
        "--tracking-uri",
        "none",
        "--store",
        str(folder / "runs"),
        str(job),
    )
    (run,) = (one for one in (folder / "runs").iterdir() if (one / "run.json").exists())
    return said, run


def test_the_run_says_which_pairs_do_not_count(searched: tuple[str, Path]) -> None:
    said, _ = searched
    assert "counted   v: " in said
    assert "10 test pairs count" in said
    assert "pairs are used" not in said


def test_the_table_holds_every_reason_and_adds_up(searched: tuple[str, Path]) -> None:
    rows = read_table(searched[1], "dropped").to_pylist()
    assert {row["reason"] for row in rows} >= {"base_unsolved", "beyond_max_pairs"}
    for variable, split, kind in {(r["variable"], r["split"], r["set"]) for r in rows}:
        same = [r for r in rows if (r["variable"], r["split"], r["set"]) == (variable, split, kind)]
        assert {r["drawn"] for r in same} == {same[0]["used"] + sum(r["pairs"] for r in same)}


def test_results_and_page_show_them_with_the_way_out(searched: tuple[str, Path]) -> None:
    _, run = searched
    shown = _call("results", str(run))
    assert "pairs: v: " in shown
    assert "raise test.max_pairs" in shown
    write_page(run)
    page = (run / "report.html").read_text()
    assert "Pairs that do not count: v: " in page
    assert "raise test.max_pairs" in page


def test_plan_says_what_shows_before_a_run(tmp_path: Path) -> None:
    job = _job(tmp_path, [*_lines()])
    assert (
        "v: 1 test pairs: the variable leaves the base's answer as it is (pairs.kinds: both"
        in _call("plan", str(job))
    )
    facts = json.loads(CliRunner().invoke(cli, ["plan", str(job), "-o", "json"]).stdout)
    (keep,) = (c for c in facts["dropped"] if c["reason"] == "keep")
    assert (keep["variable"], keep["split"], keep["set"], keep["pairs"]) == (
        "v",
        "test",
        "keeps",
        1,
    )


def test_pairs_without_a_position_that_the_job_names_are_left_out_and_counted(
    tmp_path: Path,
) -> None:
    lines = list(_lines())
    for line in lines[:3]:
        del line["source"]["positions"]["b"]
    shown = _call(
        "plan", str(_job(tmp_path, lines, space={"layers": [0], "positions": ["a", "b"]}))
    )
    assert "v: 3 test pairs: they lack the position b (leave that out of space.positions" in shown
    assert "7 test and 0 holdout at hand" in shown
    for line in lines:
        line["source"]["positions"].pop("b", None)
        line["base"]["positions"].pop("a") if line is lines[0] else None
    for line in lines[1:]:
        line["base"]["positions"].pop("b", None)
    with pytest.raises(Exception, match="is no position of"):
        _call("plan", str(_job(tmp_path, lines, space={"layers": [0], "positions": ["b"]})))


@pytest.mark.slow
def test_answers_that_share_their_first_token_are_counted_and_the_way_out_is_named(
    tmp_path: Path,
) -> None:
    model = str(Path(__file__).parents[2] / "models/SmolLM2-135M-Instruct")
    if not Path(model).exists():
        pytest.skip("needs SmolLM2-135M (make install)")

    def line(words: tuple[str, str], answers: tuple[str, str]) -> dict[str, Any]:
        sides = [{"text": f"Say {w} now:", "positions": {"x": [4, 4 + len(w)]}} for w in words]
        said = dict(zip(("base", "source"), answers, strict=True))
        return {
            "base": sides[0],
            "source": sides[1],
            "answers": said,
            "counterfactual": {"n": answers[1]},
            "split": "test",
        }

    same, other = line(("three", "seven"), (" 3", " 7")), line(("red", "blue"), (" red", " blue"))
    keys = {"model": {"path": model}, "space": {"layers": [0], "positions": ["x"]}}
    shown = _call("plan", str(_job(tmp_path, [same, other], **keys)))
    assert (
        "n: 1 test pairs: the counterfactual begins with the same token as the base's answer"
        in shown
    )
    assert "(answer.compare: sequence)" in shown
    with pytest.raises(
        PairsError,
        match=r"'n' cannot be seen to change the answer: on 1 of 1 test pairs.*set "
        r"answer\.compare: sequence",
    ):
        _call("plan", str(_job(tmp_path, [same], **keys)))
    whole = _call(
        "plan", str(_job(tmp_path, [same, other], **keys, answer={"compare": "sequence"}))
    )
    assert "do not count" not in whole
