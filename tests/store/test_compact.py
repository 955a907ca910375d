"""Merging the parts of tables: no row is lost or doubled, wherever it is cut off, and whatever
follows."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from raysearch.errors import StoreError, TakenOverError
from raysearch.report.results_table import read_table
from raysearch.storage.folder import Folder
from raysearch.storage.parquet import is_merged, parts_that_count
from raysearch.store.compact import compact
from raysearch.store.journal import Journal
from raysearch.store.ledger import RunLedger
from raysearch.store.run_folder import RunFolder
from raysearch.store.schemas import TABLES
from tests.store.books import Brain, go_on, new_run, replay, script


@pytest.fixture
def done(store: Folder) -> RunFolder:
    """A finished run whose tables have many parts."""
    run = new_run(store)
    ledger = RunLedger(run, max_rows=3)
    go_on(ledger, Brain(), script(seed=1))
    ledger.close("done")
    assert len(run.tables.at("observations").names()) > 3
    return run


def everything(run: RunFolder) -> dict[str, pa.Table]:
    """The tables as raysearch reads them."""
    return {name: read_table(run.folder, name) for name in TABLES}


def files(run: RunFolder) -> dict[str, list[str]]:
    return {name: run.tables.at(name).names() for name in run.tables.folders()}


def resume(run: RunFolder) -> None:
    """As a driver goes on with a run that is done."""
    ledger, brain = RunLedger(run, max_rows=3), Brain()
    replay(ledger, brain)
    ledger.close("done")


class CutError(Exception):
    """The power is gone."""


@dataclass
class Power:
    left: int

    def use(self) -> None:
        if not self.left:
            raise CutError
        self.left -= 1


@dataclass
class UntilCut:
    """A folder that works until its power is gone: writes and removals use it."""

    folder: Folder
    power: Power = field(default_factory=lambda: Power(0))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.folder, name)

    def at(self, name: str) -> "UntilCut":
        return UntilCut(self.folder.at(name), self.power)

    def write(self, name: str, content: bytes) -> None:
        self.power.use()
        self.folder.write(name, content)

    def delete(self, name: str) -> None:
        self.power.use()
        self.folder.delete(name)


def test_each_table_is_one_part_with_the_same_rows_in_their_order(done: RunFolder) -> None:
    before, parts = everything(done), files(done)
    merged = {m.table: m for m in compact(done)}
    assert {name: len(found) for name, found in files(done).items()} == dict.fromkeys(parts, 1)
    assert {name: m.before for name, m in merged.items()} == {
        name: len(found) for name, found in parts.items()
    }
    for name, table in everything(done).items():
        assert table.equals(before[name], check_metadata=True), name
    assert merged["observations"].rows == before["observations"].num_rows > 0
    again = files(done)
    list(compact(done))
    assert files(done) == again


@pytest.mark.slow_unless(store=["disk"])
def test_cut_off_at_any_moment_no_row_is_lost_or_doubled_and_merging_again_ends_it(
    done: RunFolder,
) -> None:
    before, at = everything(done), 0
    while True:
        power = Power(at)
        try:
            list(compact(RunFolder(UntilCut(done.folder, power), done.info)))  # type: ignore[arg-type]
        except CutError:
            assert everything(done) == before, f"cut off at {at}"
            resume(done) if at % 3 == 0 else None
            at += 1
            continue
        break
    assert at > 5
    assert everything(done) == before
    list(compact(done))
    assert all(len(found) == 1 for found in files(done).values())


@pytest.mark.slow_unless(store=["disk"])
def test_a_merged_run_that_is_gone_on_with_has_its_parts_again(done: RunFolder) -> None:
    before, parts = everything(done), files(done)
    list(compact(done))
    resume(done)
    assert files(done) == parts
    assert everything(done) == before


@pytest.mark.slow_unless(store=["disk"])
def test_a_resume_that_dies_in_its_replay_leaves_the_merged_rows(done: RunFolder) -> None:
    before = everything(done)
    list(compact(done))
    ledger, brain = RunLedger(done, max_rows=3), Brain()
    for events, _ in zip(ledger.replay(), range(4), strict=False):
        ledger.write_records(brain.tell(events))
    ledger.abandon()
    assert everything(done) == before
    assert any(is_merged(n) for n in done.tables.at("observations").names())
    resume(done)
    assert everything(done) == before


def test_a_run_that_is_not_done_is_refused(store: Folder) -> None:
    run = new_run(store)
    ledger = RunLedger(run, max_rows=3)
    go_on(ledger, Brain(), script(seed=1)[:4])
    before = files(run)
    with pytest.raises(StoreError, match=r"is not done \(its driver works, or was killed"):
        list(compact(run))
    ledger.close("interrupted")
    with pytest.raises(StoreError, match=r"is not done \(interrupted"):
        list(compact(run))
    assert set(before["hypotheses"]) <= set(files(run)["hypotheses"])


def test_a_driver_that_begins_meanwhile_stops_it_before_anything_is_removed(
    done: RunFolder,
) -> None:
    before, parts = everything(done), files(done)
    merging = compact(done)
    first = next(merging).table
    Journal(done.journal).close()
    driver = done.journal.at("99990101T000000.000000Z-abcdef")
    driver.log(1000).append(b"")
    driver.write("00000000.jsonl", b"")
    with pytest.raises(TakenOverError, match="has gone on with it"):
        list(merging)
    left = files(done)
    assert all(set(parts[name]) <= set(left[name]) for name in parts if name != first)
    assert everything(done) == before


def test_of_the_files_of_a_table_each_row_counts_once() -> None:
    a, b, c, d = (f"20261129T054700.177859Z-7376ca-00000000-0000000{i}" for i in range(4))
    part, merged = ".parquet", ".merged.parquet"
    others = ["_x.parquet", "y.txt", "copy.parquet", f"{a} (1).parquet"]
    assert parts_that_count([b + part, a + part, *others]) == [a + part, b + part]
    names = [a + part, b + part, b + merged, c + part]
    assert parts_that_count(names) == [b + merged, c + part]
    assert parts_that_count([b + merged, d + merged, c + part]) == [d + merged]


def test_a_damaged_part_is_one_line_and_nothing_is_removed(done: RunFolder, tmp_path: Path) -> None:
    folder = done.tables.at("observations")
    parts = folder.names()
    folder.write(parts[1], b"PAR1 and no more")
    with pytest.raises(StoreError, match="is damaged, its SHA-256"):
        list(compact(done))
    assert folder.names() == parts
