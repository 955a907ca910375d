"""Scores from the job to the tables: a test on one, its scale, resume to the same, results per set
of pairs."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest

from raysearch.report.results_table import results
from raysearch.stats.betting_test import BettingTest
from raysearch.stats.evidence import Evidence
from raysearch.store.run_folder import find_run
from raysearch.viewer.page import page
from tests.cli.conftest import QUICKSTART, Shell
from tests.cli.test_rules import LOCAL, _write_pairs

SETS = (
    "space.variables=[a, total]",
    "space.positions=[a, last]",
    "space.layers=[0, 3]",
    "answer.scores=[kl]",
)
FLAGS = ("test.score=logit_difference", "pairs.fit=16", "pairs.holdout=8", *SETS)
TRUE = {("a", 0, "a"), ("total", 3, "last")}


def rows(run: Path, table: str) -> list[dict[str, Any]]:
    return ds.dataset(run / "tables" / table).to_table().to_pylist()  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The quick start at four sites, judged by the logit difference."""
    folder = tmp_path_factory.mktemp("scores")
    done = Shell(folder)("run", str(QUICKSTART), *(f for s in FLAGS for f in ("--set", s)), *LOCAL)
    assert done.returncode == 0, done.stderr
    return find_run(folder / "runs", "latest").path


@pytest.mark.slow
def test_a_test_on_the_logit_difference_finds_the_planted_sites(searched: Path) -> None:
    found = results(searched).to_pylist()
    assert {
        (r["variable"], r["layer"], r["position"]) for r in found if r["verdict"] == "accept"
    } == TRUE
    assert all(set(json.loads(r["scores"])) == {"kl", "logit_difference"} for r in found)


@pytest.mark.slow
def test_verdicts_follow_from_the_table_of_observations_and_the_scale_of_the_run(
    searched: Path,
) -> None:
    scale = find_run(searched.parent, str(searched)).info.scale
    assert scale is not None
    assert scale > 0
    seen = [o for o in rows(searched, "observations") if o["split"] == "test"]
    pairs = {p["index"]: p for p in ds.dataset(searched / "pairs.parquet").to_table().to_pylist()}
    for row in results(searched).to_pylist():
        values = []
        for o in sorted(
            (o for o in seen if o["intervention"] == row["intervention"]), key=lambda o: o["block"]
        ):
            differences = dict(dict(o["scores"])["logit_difference"])[row["variable"]]
            for pair, difference in zip(o["pairs"], differences, strict=True):
                wanted = {c["variable"]: c["ids"] for c in pairs[pair]["counterfactual"]}[
                    row["variable"]
                ]
                if wanted != pairs[pair]["base_answer_ids"]:
                    values.append(min(max((difference + scale) / (2 * scale), 0), 1))
        evidence = Evidence(row["n"], 0, tuple(values[: row["n"]]))
        test = BettingTest(0.8, 0.05, 0.05, 8)
        assert test.verdict(evidence) == row["verdict"]
        assert row["iia"] == pytest.approx(evidence.score)
        assert (row["low"], row["high"]) == pytest.approx(test.interval(evidence))


@pytest.mark.slow  # a whole job
def test_a_run_that_is_gone_on_with_comes_to_the_same_scale_and_verdicts(
    searched: Path, shell: Shell
) -> None:
    """Of its journal the first half is left, and none of its tables."""
    run = shell.folder / "runs" / searched.name
    shutil.copytree(searched, run)
    (journal,) = run.glob("journal/*/*.jsonl")
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(
        b"".join(line for line in lines[: len(lines) // 2] if b'"type":"cut"' not in line)
    )
    shutil.rmtree(run / "tables")
    done = shell("resume", searched.name, "--pool", "local", "-q")
    assert done.returncode == 0, done.stderr
    assert results(run).equals(results(searched))
    assert (
        find_run(run.parent, str(run)).info.scale
        == find_run(searched.parent, str(searched)).info.scale
    )


@pytest.mark.slow
def test_pictures_page_and_plan_say_what_was_judged(searched: Path, shell: Shell) -> None:
    text = page(searched)
    assert "mean logit difference" in text
    assert "Scores of what was accepted" in text
    assert "share of pairs whose output is the counterfactual" not in text
    said = shell("plan", str(QUICKSTART), *(f for s in FLAGS for f in ("--set", s))).stdout
    assert "of the mean logit difference, by betting" in said
    assert "every score is 0 or 1" in said


@pytest.mark.slow
def test_results_are_given_for_each_set_of_pairs_with_intervals_of_their_own(shell: Shell) -> None:
    _write_pairs(shell.folder / "pairs.jsonl")
    sets = [
        f"problem={{pairs: {shell.folder / 'pairs.jsonl'}}}", "test.use=fixed", "test.pairs=80", "space.variables=null",
        "space.positions=[a]", "space.layers=[0, 3]", "pairs.holdout=0",
    ]  # fmt: skip
    done = shell("run", str(QUICKSTART), *(f for s in sets for f in ("--set", s)), *LOCAL)
    assert done.returncode == 0, done.stderr
    run = find_run(shell.folder / "runs", "latest").path
    whole = {r["hypothesis"]: r for r in results(run).to_pylist()}
    found = results(run, sets=True).to_pylist()
    assert {(r["hypothesis"], r["set"]) for r in found} == {
        (h, s) for h in whole for s in ("large", "small")
    }
    for hypothesis, row in whole.items():
        own = [r for r in found if r["hypothesis"] == hypothesis]
        assert [sum(r[c] for r in own) for c in ("n", "matches")] == [row["n"], row["matches"]]
        assert all(r["verdict"] == row["verdict"] for r in own)
        for r in own:  # all pairs of the set were seen, so of these pairs nothing is left open
            assert r["low"] == r["high"] == r["iia"] == r["matches"] / r["n"]
    assert results(run, sets=True, where="\"set\" = 'small'").num_rows == len(whole)
    assert " small " in shell("results", "latest", "--sets").stdout


def test_sets_that_no_pair_names_are_said_in_one_line(searched: Path, shell: Shell) -> None:
    refused = shell("results", str(searched), "--sets")
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
    assert "name no sets" in refused.stderr
