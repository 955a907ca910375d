"""Digests while a run is written: readers take what a driver leaves, wherever it dies; a replay
that says otherwise seals anew."""

from dataclasses import replace
from pathlib import Path

import pytest

from raysearch.errors import StoreError
from raysearch.report.results_table import read_table
from raysearch.storage.digests_json import FILE, check_parts, read_checked, read_digests
from raysearch.storage.local import LocalFolder
from raysearch.store.journal import _line, read_journal
from raysearch.store.journal_codec import Sealed, decode
from raysearch.store.ledger import RunLedger
from raysearch.store.run_folder import RunFolder
from raysearch.store.schemas import TABLES
from tests.store.books import Brain, go_on, new_run, replay, script
from tests.store.test_compact import CutError, Power, UntilCut


def drive(run: RunFolder, power: int) -> bool:
    """A driver that goes on until its power is gone; whether it came to the end."""
    cut = RunFolder(UntilCut(run.folder, Power(power)), run.info)  # type: ignore[arg-type]
    events = [e for batch in script(seed=1) for e in batch]
    try:
        ledger, brain = RunLedger(cut, max_rows=3), Brain()
        done = replay(ledger, brain)
        go_on(ledger, brain, [events[i : i + 3] for i in range(done, len(events), 3)])
        ledger.close("done")
    except CutError:
        return False
    return True


def read(run: RunFolder) -> dict[str, int]:
    check_parts(run.folder)
    read_checked(run.folder, "pairs.parquet")
    return {name: read_table(run.folder, name).num_rows for name in TABLES}


@pytest.mark.slow
def test_wherever_a_driver_dies_what_it_leaves_is_read_and_a_second_one_ends_with_the_same_rows(
    tmp_path: Path,
) -> None:
    whole = new_run(LocalFolder(tmp_path / "whole"))
    assert drive(whole, 10_000)
    expected = read(whole)
    power = 0
    while True:
        run = new_run(LocalFolder(tmp_path / str(power)))
        ended = drive(run, power)
        rows = read(run)
        assert all(rows[name] <= expected[name] for name in expected)
        if ended:
            break
        if power % 5 == 0:
            drive(run, power // 2)  # a second one dies too, maybe while it replays
            read(run)
            assert drive(run, 10_000)
            assert read(run) == expected
        power += 1
    assert power > 30


def test_a_replay_that_comes_to_other_bytes_seals_them_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run(LocalFolder(tmp_path))
    assert drive(run, 10_000)
    before, rows = read_digests(run.folder), read(run)
    import pyarrow.parquet as pq

    write = pq.write_table
    monkeypatch.setattr(
        pq, "write_table", lambda table, sink: write(table, sink, compression="gzip")
    )
    assert drive(run, 10_000)  # as another pyarrow would write
    after = read_digests(run.folder)
    assert before is not None
    assert after is not None
    assert before.files.keys() == after.files.keys()
    assert not before.files.items() & after.files.items()
    assert read(run) == rows


def test_the_part_that_is_being_written_alone_may_be_missing(tmp_path: Path) -> None:
    run = new_run(LocalFolder(tmp_path))
    power = 0
    while not (found := read_digests(run.folder)) or not any(
        "observations" in file for file in found.writing
    ):
        power += 1
        run = new_run(LocalFolder(tmp_path / str(power)))
        drive(run, power)
    read(run)
    others = [
        file for file in found.files if file.startswith("tables/") and file not in found.writing
    ]
    _, table, name = others[-1].split("/")
    run.tables.at(table).delete(name)
    with pytest.raises(StoreError, match=f"{name}: is lost"):
        read(run)


def test_digests_that_are_lost_or_damaged_are_said_and_written_anew_by_who_goes_on(
    tmp_path: Path,
) -> None:
    run = new_run(LocalFolder(tmp_path))
    assert drive(run, 10_000)
    before = run.folder.read(FILE)
    run = RunFolder.open(run.folder)
    run.folder.delete(FILE)
    with pytest.raises(StoreError, match=r"digests\.json: is lost, and run\.json says"):
        read(run)
    assert drive(run, 10_000)
    assert run.folder.read(FILE) == before
    run.folder.write(FILE, before.replace(b'"tables', b'"tablet', 1))
    with pytest.raises(StoreError, match=r"digests\.json: is damaged"):
        read(run)


@pytest.mark.slow
def test_a_run_of_before_is_read_whole_while_a_replay_seals_it_and_wherever_that_dies(
    tmp_path: Path,
) -> None:
    whole = new_run(LocalFolder(tmp_path / "whole"))
    assert drive(whole, 10_000)
    expected = read(whole)
    for power in range(0, 60, 7):
        run = new_run(LocalFolder(tmp_path / str(power)))
        assert drive(run, 10_000)
        as_before(run)
        ended = drive(run, power)
        assert read(run) == expected
        assert ended or power < 50


def as_before(run: RunFolder) -> None:
    """As an earlier version would have left it: no digests, and a journal without seals."""
    run.folder.delete(FILE)
    run._write_info(replace(run.info, sealed=False))
    for driver in run.journal.folders():
        folder = run.journal.at(driver)
        entries = [[decode(line.raw)] for line in read_journal(run.journal, until={driver: None})]
        for name in folder.names():
            folder.delete(name)
        lines = [entry for [entry] in entries if not isinstance(entry, Sealed)]
        folder.write(
            "00000000.jsonl", b"".join(_line(i, i, entry) for i, entry in enumerate(lines))
        )
