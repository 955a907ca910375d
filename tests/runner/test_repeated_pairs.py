"""A file in which lines repeat: the counts of different pairs, test and holdout apart, and what is said."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from raysearch.report.results_table import results
from raysearch.store.pairs_table import read_pairs
from raysearch.store.run_folder import RunFolder
from tests.runner.finished import JOB, make
from tests.test_check_run import everything

POSITIONS = ("a", "plus1", "b", "plus2", "c")


def line(x: tuple[int, ...], y: tuple[int, ...]) -> dict[str, Any]:
    def side(v: tuple[int, ...]) -> dict[str, Any]:
        spans = {name: [i, i + 1] for i, name in enumerate(POSITIONS)}
        return {"text": f"{v[0]}+{v[1]}+{v[2]}=", "positions": spans}

    answers = {"base": str(sum(x)), "source": str(sum(y))}
    counterfactual = {"total": str(sum(y)), "c": str(x[0] + x[1] + y[2])}
    return {
        "base": side(x),
        "source": side(y),
        "answers": answers,
        "counterfactual": counterfactual,
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Forty pairs for the test; for the holdout three, forty times each."""
    folder, rng = tmp_path_factory.mktemp("repeated"), random.Random(2)
    drawn = [tuple(tuple(rng.randrange(10) for _ in range(3)) for _ in "ab") for _ in range(43)]
    lines = [{**line(*p), "split": "test"} for p in drawn[:40]]
    lines += [{**line(*p), "split": "holdout"} for p in drawn[40:] for _ in range(40)]
    (folder / "pairs.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in lines))
    keys = {"problem": {"pairs": "pairs.jsonl"}, "pairs": {"test": 40, "holdout": 32}}
    return RunFolder.open(make(folder, {**JOB, **keys, "test": {"max_pairs": 40}}))


def test_different_pairs_are_counted_on_the_holdout_too_and_few_are_warned_about(
    run: RunFolder,
) -> None:
    rows = results(run.folder, accepted=True).to_pylist()
    assert {row["variable"] for row in rows} == {"total", "c"}
    for row in rows:
        assert row["distinct"] == row["n"]
        assert row["holdout_n"] > 2 * row["holdout_distinct"] > 0
        assert row["holdout_distinct"] <= 3
        assert "few_distinct_holdout_pairs" in row["warnings"]
        assert "few_distinct_pairs" not in row["warnings"]
    assert everything(run.path) == ([], [])


@pytest.mark.slow
def test_a_file_of_one_pair_leaves_none_for_the_holdout_and_the_page_says_so(
    tmp_path: Path,
) -> None:
    lines = [f"{json.dumps(line((3, 9, 8), (2, 5, 9)))}\n"] * 60
    (tmp_path / "pairs.jsonl").write_text("".join(lines))
    keys = {"problem": {"pairs": "pairs.jsonl"}, "test": {"max_pairs": 40}}
    said = "The holdout has no pair (no holdout pair was drawn or read): there is no estimate"
    for holdout in (8, 0):
        (folder := tmp_path / str(holdout)).mkdir()
        shutil.copy(tmp_path / "pairs.jsonl", folder)
        made = make(folder, {**JOB, **keys, "pairs": {"test": 40, "holdout": holdout}})
        run = RunFolder.open(made)
        rows = results(run.folder, accepted=True).to_pylist()
        assert {(row["distinct"], row["holdout_n"]) for row in rows} == {(1, 0)}
        assert (said in (run.path / "report.html").read_text()) == (holdout > 0)


def test_no_pair_of_the_test_is_in_the_holdout(run: RunFolder) -> None:
    stored = read_pairs(run.folder)
    of = {p.index: p for p in stored.pairs}
    used: dict[str, set[tuple[str, ...]]] = {"test": set(), "holdout": set()}
    for screened in stored.screened or ():
        if screened.block is not None:
            used[of[screened.pair].split].add(of[screened.pair].contents)
    assert len(used["holdout"]) == 3
    assert not used["test"] & used["holdout"]
