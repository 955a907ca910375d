"""Pairs that another run of the store tested on: said, warned about, and left out where the job asks."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from raysearch.core.population import THESE_PAIRS, Population, about
from raysearch.errors import PairsError
from raysearch.job import Job
from raysearch.report.results_table import results
from raysearch.runner.resolution.resolve import resolve
from raysearch.runner.session.fresh_pairs import with_fresh_pairs
from raysearch.storage.open_folder import open_folder
from raysearch.store.pairs_table import read_pairs
from raysearch.store.run_folder import RunFolder, run_names
from raysearch.store.used_pairs import EarlierRun, earlier_runs, used_before, used_words
from tests.runner.finished import JOB, raysearch
from tests.runner.test_new_values import job_at

FRESH = {"test": 64, "holdout": 16, "disjoint": []}
PLAIN: dict[str, Any] = {"pairs": FRESH, "test": {"generalise": "pairs", "max_pairs": 64}}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs on the same pairs, and one that asks for fresh ones."""
    folder = tmp_path_factory.mktemp("used")
    for fresh in (False, False, True):
        job = job_at(folder, **{**PLAIN, "pairs": {**FRESH, "fresh": fresh}})
        asked = ["--pool", "local", "--store", str(folder / "runs"), "--tracking-uri", "none"]
        code, _, told = raysearch("run", str(job), *asked)
        assert code == 0
        (folder / f"told {len(run_names(folder / 'runs'))}").write_text(told)
    return folder


def of(store: Path, at: int) -> RunFolder:
    return RunFolder.open(store / "runs" / run_names(store / "runs")[at])


def warnings(run: RunFolder) -> set[str]:
    found = results(run.folder, accepted=True).to_pylist()
    return {code for row in found for code in row["warnings"].split(", ")}


@pytest.mark.slow
def test_a_run_on_the_pairs_of_another_is_warned_about_and_says_which_at_which_level(
    store: Path,
) -> None:
    first, second = of(store, 0), of(store, 1)
    assert first.info.used_before == {}
    assert "pairs_used_before" not in warnings(first)
    assert second.info.used_before == {first.info.id: {"pairs": 63, "k": 2, "false_accept": 0.05}}
    assert "pairs_used_before" in warnings(second)
    told = (store / "told 2").read_text()
    assert f"{first.info.id} (63 pairs, K = 2, false accept 0.05)" in " ".join(told.split())


@pytest.mark.slow
def test_fresh_pairs_are_none_that_any_run_of_the_store_has_tested_on(store: Path) -> None:
    first, third = of(store, 0), of(store, 2)
    runs = earlier_runs(open_folder(store / "runs"), print)
    assert not runs[0].pairs & runs[2].pairs
    assert len(runs[0].pairs) == 63 <= len(runs[2].pairs)  # one was drawn twice
    assert third.info.used_before == {}
    assert "pairs_used_before" not in warnings(third)
    rows = results(third.folder).to_pylist()
    assert {row["population"] for row in rows} == {"not_tested_before"}
    stored = read_pairs(third.folder)
    (left,) = (c for c in stored.left_out if c.reason == "used_before")
    assert left.pairs >= 63
    assert stored.population.name == "not_tested_before"
    assert first.info.model_digest == third.info.model_digest


def test_a_resumed_run_does_not_look_again(store: Path, tmp_path: Path) -> None:
    """Its pairs are those that it began with, whatever other runs tested on since."""
    shutil.copytree(store / "runs", tmp_path / "runs")
    run = run_names(tmp_path / "runs")[2]
    before = read_pairs(open_folder(tmp_path / "runs" / run)).pairs
    later = tmp_path / "runs" / run.replace("new-", "new-9", 1)
    shutil.copytree(tmp_path / "runs" / run, later)  # another run on just those pairs
    code, _, _ = raysearch("resume", run, "--pool", "local", "--store", str(tmp_path / "runs"))
    assert code == 0
    assert read_pairs(open_folder(tmp_path / "runs" / run)).pairs == before


def test_another_model_says_nothing_of_this_one() -> None:
    runs = [EarlierRun("a-run", "other", 5, 0.05, frozenset({("b", "s")}))]
    assert used_before(runs, "mine", [("b", "s")]) == {}
    assert used_before(runs, "other", [("b", "s"), ("c", "s")])["a-run"]["pairs"] == 1
    assert used_before(runs, "other", [("c", "s")]) == {}


def test_a_few_pairs_in_common_by_chance_are_no_reason_to_warn() -> None:
    runs = [EarlierRun("a-run", "model", 5, 0.05, frozenset((f"b{i}", "s") for i in range(5)))]
    many = [(f"b{i}", "s") for i in range(101)]
    assert used_before(runs, "model", many) == {}
    assert used_before(runs, "model", many[:100])["a-run"]["pairs"] == 5


def test_of_many_runs_a_line_names_three() -> None:
    found = {f"run{i}": {"pairs": i, "k": 0, "false_accept": 0.05} for i in range(5)}
    assert "run0 (0 pairs, open-ended, false accept 0.05), run1" in used_words(found)
    assert "and 2 more" in used_words(found)


def test_where_nothing_is_left_it_is_said_in_one_line() -> None:
    small = {**JOB, "pairs": {"test": 8, "holdout": 0, "fresh": True}}
    resolved = resolve(Job.parse(small))
    every = frozenset(p.contents for p in resolved.pairs)
    with pytest.raises(PairsError, match=r"pairs.fresh: all \d+ test pairs at hand were tested on"):
        with_fresh_pairs(resolved, [EarlierRun("r", None, 1, 0.05, every)])
    assert with_fresh_pairs(resolved, []) is resolved
    old = with_fresh_pairs(
        resolve(Job.parse({**JOB, "pairs": {"test": 8}})), [EarlierRun("r", None, 1, 0.05, every)]
    )
    assert any(p.split == "test" for p in old.pairs)
    fixed = with_fresh_pairs(
        type(resolved)(resolved.job, resolved.pairs, (), THESE_PAIRS),
        [EarlierRun("r", None, 1, 0.05, frozenset([resolved.pairs[0].contents]))],
    )
    assert fixed.population == THESE_PAIRS
    assert [p.index for p in fixed.pairs] == list(range(len(fixed.pairs)))
    assert "an earlier run of the store" in about("not_tested_before")


def test_a_part_of_a_domain_is_not_the_same_without_what_was_tested_on() -> None:
    """It would be called the sampler's pairs that nobody tested on, which it is a part of."""
    resolved = resolve(Job.parse({**JOB, "pairs": {"test": 8, "holdout": 0, "fresh": True}}))
    part = replace(resolved, population=Population("test_part"))
    some = frozenset([next(p.contents for p in resolved.pairs if p.split == "test")])
    with pytest.raises(
        PairsError, match="1 of the test pairs were tested on by runs of this store"
    ):
        with_fresh_pairs(part, [EarlierRun("r", None, 1, 0.05, some)])
    assert with_fresh_pairs(part, []).population.name == "test_part"


def test_a_run_that_cannot_be_read_is_named_and_the_others_count(
    store: Path, tmp_path: Path
) -> None:
    shutil.copytree(store / "runs", tmp_path / "runs")
    names = run_names(tmp_path / "runs")
    (tmp_path / "runs" / names[0] / "pairs.parquet").write_bytes(b"damaged")
    said: list[str] = []
    found = earlier_runs(open_folder(tmp_path / "runs"), said.append)
    assert [run.name for run in found] == names[1:]
    (line,) = said
    assert line.startswith(f"whether run {names[0]} tested on the same pairs is not known: ")
