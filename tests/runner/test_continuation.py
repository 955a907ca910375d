"""Runs that are continued: tables have one verdict of each hypothesis, wherever a driver dies."""

import random
from collections import Counter
from pathlib import Path

import pytest

from raysearch import driver
from raysearch.core.events import Continued
from raysearch.runner.submission.submit import Submission, resume_command
from raysearch.search.search import Search
from raysearch.storage.parquet import from_parquet
from raysearch.store.ledger import RunLedger
from raysearch.store.pairs_table import pairs_content, read_pairs
from raysearch.store.run_folder import RunFolder
from raysearch.store.run_history import read_entries
from raysearch.store.schemas import TABLES
from tests.runner.test_retry import CutError, Hands, Tables, Until, copy_of, plain
from tests.search.sick import Sick
from tests.search.worlds import World
from tests.store.books import new_run

WORLD = World(
    3,
    layers=4,
    test=60,
    holdout=8,
    max_pairs=12,
    threshold=0.6,
    controls=("placebo",),
    rates=lambda layer: (0.3, 0.55, 0.7, 1.0)[layer],
)


def drive(run: RunFolder, more: int | None = None, rows: int = 3) -> Search:
    """A driver to its end; `more`: it continues the run by so many pairs."""
    ledger, search = RunLedger(run, max_rows=rows), WORLD.search(continued=True)
    if more is not None:
        before = WORLD.search(continued=True)
        for batch in ledger.history():
            before.tell(batch)
        of = read_pairs(run.folder)
        content = pairs_content(
            of.pairs, of.encoded, of.screened, of.left_out, of.population, 1 + of.continued
        )
        ledger.request(before.continuation(more), content)
    driver.replay(search, ledger.replay(), ledger)
    driver.drive(search, Hands(Sick(WORLD, 2, 0)), ledger, lambda _: None)
    search.validate()
    ledger.close("done")
    return search


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    run = new_run(tmp_path_factory.mktemp("done"))
    drive(run)
    return run


@pytest.fixture(scope="module")
def wanted(done: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """The tables of a run that was continued, and never disturbed."""
    run = copy_of(done, tmp_path_factory.mktemp("wanted") / "run")
    drive(run, 20)
    return plain(run)


def verdicts(run: RunFolder) -> list[tuple[str, str]]:
    rows = [
        row
        for part in run.tables.at("verdicts").names()
        for row in from_parquet(run.tables.at("verdicts").read(part)).to_pylist()
    ]
    return [(row["hypothesis"], row["verdict"]) for row in rows]


def test_a_hypothesis_that_went_on_has_one_verdict_the_last_one(
    done: RunFolder, tmp_path: Path, wanted: Tables
) -> None:
    run = copy_of(done, tmp_path / "run")
    before = dict(verdicts(run))
    search = drive(run, 20, rows=40)
    after = verdicts(run)
    assert max(Counter(name for name, _ in after).values()) == 1
    assert dict(after) == {name: d.verdict for name, d in search.verdicts.items()}
    assert {"undecided"} == {v for name, v in before.items() if v != dict(after)[name]}
    assert plain(run) == wanted
    drive(run)
    assert plain(run) == wanted, "another resume changes nothing"
    assert len(plain(run)["dropped"]) == len(set(plain(run)["dropped"]))
    drive(run, 30)
    ledger = RunLedger(run)
    assert ledger.continued == [20, 30]
    ledger.abandon()


@pytest.mark.slow
def test_wherever_a_continuation_is_killed_a_plain_resume_ends_it(
    done: RunFolder, tmp_path: Path, wanted: Tables
) -> None:
    """At each thing that it writes, until it is done; before it is journalled, the run stays what
    it was."""
    began, at, ended = plain(done), 0, False
    while not ended:
        run = copy_of(done, tmp_path / "killed")
        try:
            drive(RunFolder(Until(run.folder, [at]), run.info), 20)  # type: ignore[arg-type]
            ended = True
        except CutError:
            journalled = any(isinstance(e, Continued) for batch in read_entries(run) for e in batch)
            assert read_pairs(run.folder).continued >= journalled, "the pairs come first"
            drive(run)
            assert plain(run) == (wanted if journalled else began), f"killed at {at}"
            if not journalled:
                drive(run, 20)
                assert plain(run) == wanted, f"killed at {at}, and continued again"
        at += 1 if at < 8 else 61
    assert at > 40
    assert plain(run) == wanted


def test_a_ray_job_gets_the_further_pairs_as_its_flag() -> None:
    rng = random.Random(0)
    sending = Submission(address="http://head:8265", store="/shared/runs")
    n = rng.randrange(1, 1000)
    assert resume_command("a-run", sending, retry=False, more_pairs=n)[:4] == [
        "resume",
        "a-run",
        "--more-pairs",
        str(n),
    ]
    assert "--more-pairs" not in resume_command("a-run", sending, retry=False)


def test_all_tables_are_looked_at(wanted: Tables) -> None:
    assert wanted.keys() == set(TABLES)
