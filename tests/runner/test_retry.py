"""What failed is tried again: the tables come to those of a run that never failed, wherever a
driver dies, and whoever drives beside."""

import os
import random
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from raysearch import driver
from raysearch.core.events import Event, Retried, Task
from raysearch.core.hypothesis import Subspace
from raysearch.errors import TakenOverError
from raysearch.runner.session.retry import retry_failed
from raysearch.search.search import Search
from raysearch.storage.folder import Folder, Log
from raysearch.storage.local import LocalFolder
from raysearch.storage.parquet import from_parquet, is_merged
from raysearch.store.compact import compact
from raysearch.store.ledger import RunLedger
from raysearch.store.run_folder import RunFolder
from raysearch.store.run_history import read_entries
from raysearch.store.schemas import TABLES
from tests.search.sick import Sick, sick_of
from tests.search.worlds import World
from tests.store.books import new_run

WORLD = World(
    5,
    layers=3,
    test=24,
    holdout=8,
    fit=8,
    max_pairs=24,
    steps=8,
    subspaces=(Subspace(), Subspace("das", 2)),
    rungs=(),
    controls=("placebo",),
    threshold=0.5,
    rates=lambda layer: (0.3, 0.95, 1.0)[layer],
)
SICK = dict.fromkeys(
    [*sick_of(WORLD, random.Random(2)), next(iter(WORLD.space)).intervention.id], 1
)
VOLATILE = ("worker", "attempt", "seconds", "device", "near_ties", "conflicts")
Tables = Mapping[str, list[str]]


@dataclass
class Hands:
    """A pool of workers, some of whom are sick."""

    cluster: Sick
    out: list[Task] = field(default_factory=list)

    @property
    def free(self) -> int:
        return self.cluster.workers - len(self.out)

    def submit(self, task: Task, tensors: Mapping[str, bytes]) -> None:
        assert set(tensors) == set(task.digests)
        self.out.append(task)

    def wait(self) -> list[Event]:
        rng = random.Random(len(self.out))
        return self.cluster._answer(self.out.pop(rng.randrange(len(self.out))), rng, [])


@dataclass
class Heard:
    """A front: what was said."""

    lines: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        self.lines.append(text)


def go_on(
    run: RunFolder,
    sick: Mapping[str, int] = {},
    retry: bool = False,
    turns: int | None = None,
    rows: int = 3,
) -> list[str]:
    """A driver to its end (or until it is interrupted after so many turns); what it said of a
    retry."""
    ledger, search, heard = RunLedger(run, max_rows=rows), WORLD.search(), Heard()
    if retry:
        retry_failed(ledger, WORLD.search(), heard)  # type: ignore[arg-type]
    left = turns

    def watch(_: object) -> None:
        nonlocal left
        if left is not None:
            left -= 1
            if left <= 0:
                raise KeyboardInterrupt

    driver.replay(search, ledger.replay(), ledger)
    try:
        driver.drive(
            search, Hands(Sick(WORLD, 2, 0, sick=sick, shaky=0.4 if sick else 0.0)), ledger, watch
        )
    except KeyboardInterrupt:
        ledger.close("interrupted")
        return heard.lines
    search.validate()
    ledger.close("done")
    return heard.lines


def plain(run: RunFolder) -> Tables:
    """All rows of all tables as whoever reads every Parquet file finds them, but for who did the
    work, in no order."""
    found = {}
    for name in TABLES:
        folder = run.tables.at(name)
        rows: list[dict[str, Any]] = []
        for part in folder.names():
            rows += from_parquet(folder.read(part)).to_pylist()
        found[name] = sorted(
            str({k: v for k, v in row.items() if k not in VOLATILE}) for row in rows
        )
    return found


def without_failures(tables: Tables) -> Tables:
    return {name: rows for name, rows in tables.items() if name != "failures"}


@pytest.fixture(scope="module")
def fast() -> Iterator[Path]:
    """A store in memory where there is such a file system."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def wanted(fast: Path) -> Tables:
    """The tables of a run that never failed."""
    run = new_run(fast)
    go_on(run)
    return without_failures(plain(run))


@pytest.fixture(scope="module")
def failed(fast: Path) -> RunFolder:
    """A run that is done, some of whose hypotheses have failed: swaps after some blocks, and fits."""
    run = new_run(fast)
    go_on(run, SICK)
    return run


def copy_of(run: RunFolder, to: Path) -> RunFolder:
    assert isinstance(run.folder, LocalFolder)
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(run.folder.path, to)
    return RunFolder.open(to)


@pytest.mark.slow_unless(store=["disk"])
def test_a_retry_ends_with_the_tables_of_a_run_that_never_failed(
    store: Folder, wanted: Tables
) -> None:
    run = new_run(store)
    go_on(run, SICK, rows=40)
    before = plain(run)
    assert sum("'verdict': 'failed'" in row for row in before["verdicts"]) == 5
    (said,) = go_on(run, retry=True, rows=40)
    after = plain(run)
    assert without_failures(after) == wanted
    assert after["failures"] == before["failures"]
    assert said.startswith("retrying  ")
    assert "estimates that broke off" in said
    assert "fits begin anew" in said


def test_a_second_retry_takes_back_what_failed_again_and_that_alone(
    failed: RunFolder, fast: Path, wanted: Tables
) -> None:
    run = copy_of(failed, fast / "twice")
    fewer = dict(list(SICK.items())[1:])
    go_on(run, fewer, retry=True)
    verdicts = plain(run)["verdicts"]
    assert sum("'verdict': 'failed'" in row for row in verdicts) == 3
    assert len({row.partition("'verdict'")[0] for row in verdicts}) == len(verdicts)
    go_on(run, retry=True)
    assert without_failures(plain(run)) == wanted
    files = {name: run.tables.at(name).names() for name in TABLES}
    go_on(run)
    assert without_failures(plain(run)) == wanted
    assert {name: run.tables.at(name).names() for name in TABLES} == files
    list(compact(run))
    assert {len(run.tables.at(name).names()) for name in TABLES if name != "effects"} == {1}
    assert without_failures(plain(run)) == wanted


@pytest.mark.slow_unless(turns=[35])
@pytest.mark.parametrize("turns", [25, 35, 45])
def test_a_retry_of_a_run_that_was_interrupted_goes_on_with_the_rest_as_well(
    fast: Path, wanted: Tables, turns: int
) -> None:
    run = new_run(fast)
    go_on(run, SICK, turns=turns)
    assert len(plain(run)["verdicts"]) < len(wanted["verdicts"])
    assert go_on(run, retry=True) != ["retrying  nothing: nothing has failed so far"]
    assert without_failures(plain(run)) == wanted


def test_where_nothing_failed_nothing_is_journalled(fast: Path) -> None:
    run = new_run(fast)
    go_on(run, turns=4)
    assert go_on(run, retry=True) == ["retrying  nothing: nothing has failed so far"]
    assert not [e for batch in read_entries(run) for e in batch if isinstance(e, Retried)]


class CutError(Exception):
    """kill -9."""


@dataclass
class Until:
    """A folder that works until its time is up: what is written, logged or removed uses it."""

    folder: Folder
    left: list[int]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.folder, name)

    def use(self) -> None:
        if not self.left[0]:
            raise CutError
        self.left[0] -= 1

    def at(self, name: str) -> "Until":
        return Until(self.folder.at(name), self.left)

    def write(self, name: str, content: bytes) -> None:
        self.use()
        self.folder.write(name, content)

    def delete(self, name: str) -> None:
        self.use()
        self.folder.delete(name)

    def log(self, *more: Any) -> "UntilLog":
        return UntilLog(self.folder.log(*more), self)


@dataclass
class UntilLog:
    inner: Log
    folder: Until

    def append(self, content: bytes) -> None:
        self.folder.use()
        self.inner.append(content)

    def close(self) -> None:
        self.inner.close()


@pytest.mark.slow
@pytest.mark.parametrize("merged", [False, True])
def test_wherever_a_retry_is_killed_a_plain_resume_ends_it(
    failed: RunFolder, fast: Path, wanted: Tables, merged: bool
) -> None:
    """At each thing that it writes, until it is done; before it is journalled, the run stays what
    it was."""
    began, at, done = plain(failed), 0, False
    while not done:
        run = copy_of(failed, fast / f"killed-{merged}")
        if merged:
            list(compact(run))
        try:
            go_on(RunFolder(Until(run.folder, [at]), run.info), retry=True)  # type: ignore[arg-type]
            done = True
        except CutError:
            retried = any(isinstance(e, Retried) for batch in read_entries(run) for e in batch)
            go_on(run)
            assert without_failures(plain(run)) == (
                wanted if retried else without_failures(began)
            ), f"killed at {at}"
            assert not [n for name in TABLES for n in run.tables.at(name).names() if is_merged(n)]
        at += 1 if at < 4 else 19 if merged else 47
    assert at > 40
    assert without_failures(plain(run)) == wanted


def test_of_a_driver_and_a_later_retry_the_retry_counts(
    failed: RunFolder, fast: Path, wanted: Tables
) -> None:
    """The earlier one has read the journal, and would write the parts as they were."""
    run = copy_of(failed, fast / "earlier")
    earlier, search = RunLedger(run, max_rows=3), WORLD.search()
    replayed = earlier.replay()
    for _ in range(3):
        earlier.write_records(search.tell(next(replayed)))
    go_on(run, retry=True)
    assert without_failures(plain(run)) == wanted
    with pytest.raises(TakenOverError):
        driver.replay(search, replayed, earlier)
    earlier.abandon()
    assert without_failures(plain(run)) == wanted


def test_a_retry_that_a_later_driver_has_not_read_of_counts_for_nobody(
    failed: RunFolder, fast: Path
) -> None:
    run = copy_of(failed, fast / "not-read")
    before = plain(run)
    retrying, search = RunLedger(run, max_rows=3), WORLD.search()
    for batch in retrying.history():
        search.tell(batch)
    go_on(run)
    with pytest.raises(TakenOverError):
        retrying.request(search.failed)
    retrying.abandon()
    go_on(run)
    assert plain(run) == before


def test_whoever_only_reads_sees_the_failures_go_and_come(failed: RunFolder, fast: Path) -> None:
    """As `status` and `sync` tell the journal to a new search."""
    run = copy_of(failed, fast / "read")
    assert _told(run).snapshot().failed > 0
    ledger = RunLedger(run)
    retry_failed(ledger, WORLD.search(), Heard())  # type: ignore[arg-type]
    ledger.abandon()
    search = _told(run)
    assert (search.snapshot().failed, search.done) == (0, False)
    go_on(run)
    assert _told(run).done


def _told(run: RunFolder) -> Search:
    search = WORLD.search()
    for batch in RunLedger(run).history():
        search.tell(batch)
    return search
