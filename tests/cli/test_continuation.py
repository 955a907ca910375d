"""`resume --more-pairs`, in this process, on the quick start's network."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

import raysearch as rs
from raysearch.cli.main import cli
from raysearch.report.results_table import results
from raysearch.runner.plans.pairs_needed import pairs_for_verdicts
from raysearch.store.pairs_table import read_pairs
from raysearch.store.run_folder import RunFolder, find_run
from tests.cli.conftest import QUICKSTART
from tests.test_check_run import everything

LOCAL = ("--pool", "local")
QUIET = ("--tracking-uri", "none", "-q")


def call(*arguments: str) -> Result:
    return CliRunner().invoke(cli, [*map(str, arguments)])


def job(folder: Path, **rooms: Any) -> Path:
    """Variable a at two positions of layer 0, on 12 pairs, which decide little."""
    raw = yaml.safe_load(QUICKSTART.read_text())
    raw["model"]["path"] = str(QUICKSTART.parent / raw["model"]["path"])
    raw["space"] |= {"variables": ["a", "b"], "layers": [0], "positions": ["a", "b"]}
    raw["pairs"] = {"test": 12, "holdout": 8}
    raw["test"] |= {"max_pairs": 12, "futility": 0}
    for room, keys in rooms.items():
        raw[room] = {k: v for k, v in (raw[room] | keys).items() if v is not None}
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def begun(folder: Path, **rooms: Any) -> RunFolder:
    store = folder / "runs"
    done = call("run", job(folder, **rooms), "--store", store, *LOCAL, *QUIET)
    assert done.exit_code == 0, done.output
    return find_run(store, "latest")


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run that is done, two of whose hypotheses are undecided."""
    run = begun(tmp_path_factory.mktemp("short"))
    assert found(run) == {"undecided": 2, "reject": 2}
    return run


def found(run: RunFolder) -> dict[str, int]:
    rows = results(run.folder).to_pylist()
    return {v: sum(r["verdict"] == v for r in rows) for v in {r["verdict"] for r in rows}}


@pytest.mark.slow
def test_what_is_undecided_goes_on_and_everybody_says_so(short: RunFolder) -> None:
    before = {r["hypothesis"]: r for r in results(short.folder).to_pylist()}
    said = call("resume", short.place, "--more-pairs", "4", *LOCAL)
    assert said.exit_code == 0, said.output
    which = "the first 4 that the model solves of up to [0-9]+ further ones"
    begin = "continuing 2 undecided hypotheses, on at most 4 further test pairs each"
    assert re.search(f"{begin}: {which}\n", said.output)
    assert found(short) == {"undecided": 2, "reject": 2}
    assert "this run was continued once, by up to 4" in call("results", short.place).output
    run = rs.resume(short.place, more_pairs=40, quiet=True)
    after = {r["hypothesis"]: r for r in results(short.folder).to_pylist()}
    for name, row in before.items():
        if row["verdict"] == "undecided":
            assert after[name]["verdict"] == "accept"
            assert after[name]["n"] > row["n"]
            assert after[name]["holdout_n"]
        else:
            assert after[name] == row
    short = RunFolder.open(short.folder)
    assert short.info.continued == {"1": 4, "2": 40}
    told = call("status", short.place).output
    assert "continued 2 times, by up to 4, 40 further test pairs" in told
    page = short.folder.read("report.html").decode()
    for place in (call("results", short.place).output, page, str(run)):
        assert "ontinued 2 times" in place
        assert "further test pairs" in place
    nothing = call("resume", short.place, "--more-pairs", "4", *LOCAL)
    assert "nothing in it is undecided" in nothing.output
    assert nothing.exit_code == 0


@pytest.mark.slow  # a whole job
def test_pairs_that_were_drawn_further_are_the_same_in_each_copy_and_none_is_of_the_first(
    tmp_path: Path,
) -> None:
    """A continued run is a function of its job and its journal."""
    pairs = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        run = begun(tmp_path / name)
        assert call("resume", run.place, "--more-pairs", "30", *LOCAL, "-q").exit_code == 0
        pairs.append(read_pairs(run.folder).pairs)
    assert pairs[0] == pairs[1]
    assert any(p.added == 1 for p in pairs[0])
    assert {p.split for p in pairs[0] if p.added} == {"test"}


@pytest.mark.slow
def test_a_fixed_horizon_without_a_reserve_is_refused_and_one_with_it_goes_on(
    tmp_path: Path,
) -> None:
    fixed = {"use": "fixed", "pairs": 12, "max_pairs": None}
    run = begun(tmp_path, test=fixed)
    assert found(run)["undecided"] == 2
    refused = call("resume", run.place, "--more-pairs", "40", *LOCAL)
    assert "keeps nothing for further pairs (test.reserve: 0)" in str(refused.exception)
    assert not json.loads(run.folder.read("run.json"))["continued"]
    (tmp_path / "kept").mkdir()
    run = begun(tmp_path / "kept", test={**fixed, "reserve": 0.5})
    assert found(run)["undecided"] == 2
    assert call("resume", run.place, "--more-pairs", "40", *LOCAL, "-q").exit_code == 0
    rows = results(run.folder, accepted=True).to_pylist()
    assert len(rows) == 2
    assert {r["level"] for r in rows} == {0.05 * 0.5 / 2 / 2}
    assert all(r["n"] <= 40 for r in rows)
    assert everything(run.path) == ([], []), "what was rejected before has its own pairs"


def test_a_false_discovery_rate_is_not_continued(tmp_path: Path) -> None:
    run = begun(tmp_path, test={"control": "fdr"})
    refused = call("resume", run.place, "--more-pairs", "40", *LOCAL)
    assert "whom to go on with would be chosen by those of others" in str(refused.exception)
    assert not json.loads(run.folder.read("run.json"))["continued"]


@pytest.mark.slow
def test_pairs_at_hand_are_used_and_then_refused_with_numbers(tmp_path: Path) -> None:
    run = begun(
        tmp_path, test={"claim": "these_pairs", "max_pairs": 4, "futility": 0}, pairs={"test": 8}
    )
    assert found(run).get("undecided")
    done = call("resume", run.place, "--more-pairs", "2", *LOCAL)
    assert "at most 2 further test pairs each: 2 at hand\n" in done.output
    assert found(run).get("undecided")
    for _ in range(2):
        done = call("resume", run.place, "--more-pairs", "50", *LOCAL)
    assert not found(run).get("undecided"), "once all are seen, verdicts are exact"


def test_what_is_at_hand_is_known_where_a_run_ends(tmp_path: Path) -> None:
    """Of a finite population the pairs behind test.max_pairs; else those not yet screened too."""
    keys = {"claim": "these_pairs", "max_pairs": 4}
    run = begun(tmp_path, test=keys, pairs={"test": 8})
    assert pairs_for_verdicts(run) == 4
    assert "--more-pairs 4" in call("results", run.place, "--where", "verdict = 'undecided'").output
    assert call("resume", run.place, "--more-pairs", "1", *LOCAL, "-q").exit_code == 0
    assert pairs_for_verdicts(RunFolder.open(run.folder)) == 3
    assert call("resume", run.place, "--more-pairs", "3", *LOCAL, "-q").exit_code == 0
    assert not found(run).get("undecided")


@pytest.mark.slow
def test_fresh_pairs_that_are_at_hand_are_gone_on_with(tmp_path: Path) -> None:
    """No more are drawn, so what the model may leave unsolved is not made up for."""
    begun(tmp_path)
    run = begun(tmp_path, pairs={"fresh": True})
    assert {r["population"] for r in results(run.folder).to_pylist()} == {"not_tested_before"}
    assert found(run).get("undecided")
    at_hand = 3 * 12 - 12  # four times as many were drawn, twelve of which are not fresh
    assert pairs_for_verdicts(run) == 12
    refused = call("resume", run.place, "--more-pairs", str(at_hand + 1), *LOCAL)
    assert f"(pairs.fresh), {at_hand} are at hand" in str(refused.exception)
    done = call("resume", run.place, "--more-pairs", str(at_hand), *LOCAL)
    assert done.exit_code == 0, done.output
    assert RunFolder.open(run.folder).info.continued == {"1": at_hand}
    assert not any(p.added for p in read_pairs(run.folder).pairs), "none was drawn"
    assert everything(run.path) == ([], [])


def test_a_run_that_is_not_done_or_whose_problem_is_another_is_refused(tmp_path: Path) -> None:
    run = begun(tmp_path)
    page = run.folder.read("report.html")
    run.folder.delete("report.html")
    refused = call("resume", run.place, "--more-pairs", "4", *LOCAL)
    assert "is not done, so it cannot be continued yet" in str(refused.exception)
    run.folder.write("report.html", page)
    with run.lock():
        refused = call("resume", run.place, "--more-pairs", "4", *LOCAL)
        assert run.info.id in str(refused.exception)
    assert not RunFolder.open(run.folder).info.continued


def test_what_makes_no_sense_is_one_line(short: RunFolder, tmp_path: Path) -> None:
    both = call("resume", short.place, "--more-pairs", "4", "--retry-failed", *LOCAL)
    assert "two requests" in str(both.exception)
    assert call("resume", short.place, "--more-pairs", "0", *LOCAL).exit_code == 2
    for wrong in (0, -1, True, 1.5, "4"):
        with pytest.raises(rs.errors.JobError, match="is no number from 1"):
            rs.resume(short.place, more_pairs=wrong, quiet=True)


def test_plan_says_whether_a_run_may_be_continued(tmp_path: Path) -> None:
    fixed = {"use": "fixed", "pairs": 12, "max_pairs": None}
    for keys, said in (
        ({}, "horizon     open: what stays undecided may go on"),
        (fixed, "horizon     fixed: no more pairs, for test.reserve is 0"),
        ({**fixed, "reserve": 0.2}, "horizon     fixed: 0.2 of both chances of error is kept"),
    ):
        assert said in call("plan", job(tmp_path, test=keys)).output
    for wrong in (
        {"reserve": 0.2},
        {"horizon": "fixed"},
        {**fixed, "horizon": "open", "reserve": 0.1},
    ):
        refused = call("plan", job(tmp_path, test=wrong))
        assert "are e-processes, which go on at no price" in str(refused.exception)
