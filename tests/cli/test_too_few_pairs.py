"""Where nothing can be accepted it is said in a line, an undecided verdict has its numbers, and the
command that is named next would help."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from raysearch.errors import ResumeError
from raysearch.job import Job
from raysearch.report.results_table import results
from raysearch.runner.plans.pairs_needed import pairs_for_verdicts
from raysearch.runner.plans.plan import plan
from raysearch.runner.session.status import local_facts, local_status, next_command
from raysearch.runner.session.too_few_pairs import too_few_pairs
from raysearch.stats.match_test import MatchTest
from raysearch.stats.power import fewest_pairs
from raysearch.store.run_folder import RunFolder
from tests.edited import unended
from tests.runner import finished

FEW = 8
JOB = finished.JOB | {"test": {"max_pairs": FEW}}


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, str, str]:
    """A search that could accept nothing, its JSON, and what it said."""
    folder = tmp_path_factory.mktemp("hopeless")
    (folder / "job.yaml").write_text(yaml.safe_dump(JOB))
    flags = ("--pool", "local", "--tracking-uri", "none", "--store", str(folder / "runs"))
    code, stdout, said = finished.raysearch("run", str(folder / "job.yaml"), *flags, "-o", "json")
    assert code == 0, said
    return RunFolder.open(json.loads(stdout)["run"]), stdout, said


def test_a_run_says_that_nothing_could_be_accepted_and_what_would_do(
    ended: tuple[RunFolder, str, str],
) -> None:
    _, stdout, said = ended
    assert json.loads(stdout)["can_accept"] is False
    (line,) = [line for line in said.splitlines() if line.startswith("nothing can be accepted")]
    assert "K = 8 hypotheses, false accept 0.05 and threshold 0.8 need 2" in line
    assert f"a test has at most {FEW}; give more pairs" in line


def test_a_plan_says_it_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(JOB))
    code, stdout, said = finished.raysearch("plan", str(tmp_path / "job.yaml"))
    assert code == 0
    assert "warning: nothing can be accepted: K = 8 hypotheses" in stdout
    why = "raysearch: nothing can be accepted until the job is changed; go on with: "
    assert said.splitlines()[-1] == f"{why}raysearch plan {tmp_path / 'job.yaml'}"
    enough = finished.JOB | {"pairs": {"test": 128}, "test": {"max_pairs": 128}}
    report = plan(Job.model_validate(enough))
    assert report.hopeless is None
    assert report.powers[-1].accept > 0.9


@pytest.mark.parametrize("k", [1, 8, 120, 10_000])
def test_it_is_hopeless_just_below_the_fewest_pairs(k: int) -> None:
    test = MatchTest(0.8, 0.05, 0.05, k)
    least = fewest_pairs(test)
    job = Job.model_validate(JOB)
    assert too_few_pairs(test, least, job, k) is None
    words = too_few_pairs(test, least - 1, job, k)
    assert words is not None
    assert f"need {least} pairs that all match, and a test has at most {least - 1};" in words


def test_each_undecided_row_names_its_pairs_interval_threshold_and_limit(
    ended: tuple[RunFolder, str, str],
) -> None:
    run, *_ = ended
    rows = results(run.folder, where="verdict = 'undecided'").to_pylist()
    assert rows
    for row in rows:
        assert f"{row['n']} pairs of at most {FEW} (test.max_pairs) give" in row["reason"]
        interval = f"95 % interval {row['low']:.3f} to {row['high']:.3f}, threshold 0.8"
        assert interval in row["reason"]
        need = f"needs evidence at level {0.05 / 8:.3g}: test.false_accept 0.05 over K = 8 hypoth"
        assert need in row["reason"]
    others = results(run.folder, where="verdict != 'undecided'")
    assert set(others["reason"].to_pylist()) <= {None}


def test_the_next_command_is_the_one_that_helps(ended: tuple[RunFolder, str, str]) -> None:
    run, _, said = ended
    assert f"--more-pairs {pairs_for_verdicts(run)}" in said.splitlines()[-1]
    assert next_command(run).startswith("raysearch results ")
    code, stdout, told = finished.raysearch("status", run.place, "-o", "json")
    assert (code, json.loads(stdout)["state"]) == (0, "done")
    assert told == f"raysearch: go on with: raysearch results {run.place}\n"


@pytest.mark.slow
def test_a_run_of_fixed_pairs_is_not_said_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    test: dict[str, Any] = {"use": "fixed", "pairs": FEW, "reserve": 0.0}
    run = RunFolder.open(finished.make(tmp_path, finished.JOB | {"test": test}))
    with pytest.raises(ResumeError, match=r"test\.reserve: 0"):
        pairs_for_verdicts(run)
    _, _, said = finished.raysearch("results", run.place, "--where", "verdict = 'undecided'")
    assert "--more-pairs" not in said
    assert "test.reserve: 0" in said
    assert "go on with: raysearch view" in said
    (row, *_) = results(run.folder, where="verdict = 'undecided'").to_pylist()
    assert f"of at most {FEW} (test.pairs)" in row["reason"]


@pytest.mark.slow
def test_a_status_names_when_a_run_began_and_when_it_was_resumed(tmp_path: Path) -> None:
    run = RunFolder.open(finished.make(tmp_path))
    assert [line.split()[0] for line in local_status(run)][2] == "began"
    assert not any(line.startswith("resumed") for line in local_status(run))
    unended(run.path)
    assert "go on with: raysearch resume" in "\n".join(local_status(run))
    flags = ("--pool", "local", "-q")
    assert finished.raysearch("resume", run.place, *flags)[0] == 0
    facts = local_facts(RunFolder.open(run.place))
    assert (facts["drivers"], facts["began"]) == (2, run.info.created)
    assert facts["started"] > facts["began"][:19]
    assert any(line.startswith("resumed   ") for line in local_status(run))


def test_shares_that_are_not_even_have_words_of_their_own() -> None:
    test = MatchTest(0.8, 0.05, 0.05, 1)
    fdr = Job.model_validate(JOB | {"test": {"max_pairs": FEW, "control": "fdr"}})
    together, alone = fewest_pairs(test), fewest_pairs(MatchTest(0.8, 0.05, 0.05, 120))
    words = too_few_pairs(test, FEW, fdr, 120) or ""
    assert f"{together} pairs that all match are needed even where all K = 120 hypo" in words
    assert f"({alone} where one is alone)" in words
    weighed = too_few_pairs(test, FEW, Job.model_validate(JOB), 120, weighed=True) or ""
    assert f"one that spends 0.05 needs {together} pairs that all match ({alone} at an" in weighed
    for each in (words, weighed):
        assert "ask fewer hypotheses" not in each
