"""A status is what the driver last counted; nobody reads or replays a journal for it."""

from pathlib import Path

import pytest

from raysearch.core.records import Snapshot
from raysearch.errors import StoreError
from raysearch.runner.session.status import local_facts, local_status
from raysearch.store.journal import read_journal
from raysearch.store.ledger import RunLedger
from raysearch.store.progress_file import FILE, SECONDS, read_progress
from raysearch.store.run_history import last_driver
from tests.store.books import Brain, go_on, new_run, script


def snapshot(decided: int) -> Snapshot:
    return Snapshot("searching", 8 - decided, decided, 0, 0, 0, 3 * decided, 10, 1, 1)


def test_a_driver_counts_now_and_then_and_at_its_end(tmp_path: Path) -> None:
    run, seconds = new_run(tmp_path), [0.0]
    ledger = RunLedger(run, clock=lambda: seconds[0])
    counted = []
    for turn in range(4):
        ledger.snapshot(snapshot(turn))
        progress = read_progress(run.folder)
        assert progress is not None
        counted.append(progress.snapshot.accepted)
        seconds[0] += SECONDS / 2
    assert counted == [0, 0, 2, 2]
    ledger.close("interrupted")
    last = read_progress(run.folder)
    assert last is not None
    assert last.snapshot == snapshot(3)
    assert local_facts(run)["pairs"] == 9


def test_a_status_reads_no_line_between_the_first_and_the_last(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    ledger, batches = RunLedger(run), script(0)
    go_on(ledger, Brain(), batches)
    ledger.snapshot(snapshot(5))
    ledger.close("done")
    (file,) = (run.path / "journal").glob("*/*.jsonl")
    lines = file.read_bytes().splitlines(keepends=True)
    lines[len(lines) // 2] = b"damaged\n"
    file.write_bytes(b"".join(lines))
    with pytest.raises(StoreError, match="this line is damaged"):
        list(read_journal(run.journal))
    assert "status    done" in local_status(run)
    assert "verdicts  3 alive, 5 accepted, 0 rejected, 0 undecided, 0 failed" in local_status(run)


@pytest.mark.parametrize("rest", [b"", b'{"seq": 9', b"\0" * 40])
def test_the_last_whole_line_says_how_a_driver_ended(tmp_path: Path, rest: bytes) -> None:
    run = new_run(tmp_path)
    assert last_driver(run) is None
    ledger = RunLedger(run)
    found = last_driver(run)
    assert found is not None
    assert found.ended is None
    ledger.close("failed")
    (file,) = (run.path / "journal").glob("*/*.jsonl")
    file.write_bytes(file.read_bytes() + rest)
    found = last_driver(run)
    assert found is not None
    assert found.ended == "failed"
    assert found.started.evidence_version == 1


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"[" * 10_000, b'{"at": 3, "snapshot": {}}', b"\xff"]
)
def test_a_count_that_cannot_be_read_is_one_line(tmp_path: Path, content: bytes) -> None:
    run = new_run(tmp_path)
    RunLedger(run).close("interrupted")
    (run.path / FILE).write_bytes(content)
    with pytest.raises(StoreError, match=FILE) as caught:
        local_status(run)
    assert "\n" not in str(caught.value)
