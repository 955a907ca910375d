"""The ledger: wherever a driver dies, the driver after it ends with the same tables, no row twice
and none missing."""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raysearch.core.events import Event, Measured
from raysearch.core.records import Proposed, Record, Snapshot
from raysearch.errors import StoreError, TakenOverError
from raysearch.storage.folder import Folder
from raysearch.storage.local import LocalFolder
from raysearch.storage.open_folder import open_folder
from raysearch.storage.parquet import from_parquet
from raysearch.store.ledger import RunLedger
from raysearch.store.pairs_table import read_pairs
from raysearch.store.run_folder import RunFolder
from raysearch.store.schemas import TABLES
from tests.s3 import S3
from tests.store.books import (
    HYPOTHESES,
    PAIRS,
    Brain,
    failure,
    go_on,
    new_run,
    replay,
    screened,
    script,
    tables,
)


class Clock:
    """Seconds that pass by themselves: `step` at each look."""

    def __init__(self, step: float = 0.0) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def undisturbed(store: Folder | Path, seed: int) -> dict[str, list[dict[str, Any]]]:
    run = new_run(store)
    ledger = RunLedger(run)
    go_on(ledger, Brain(), script(seed))
    ledger.close("done")
    return tables(run)


def parts(run: RunFolder) -> list[tuple[str, str]]:
    """(table, part) of all."""
    return [
        (table, part) for table in run.tables.folders() for part in run.tables.at(table).names()
    ]


def read_part(run: RunFolder, part: tuple[str, str]) -> pa.Table:
    return from_parquet(run.tables.at(part[0]).read(part[1]))


@pytest.fixture(scope="module")
def fast_store() -> Iterator[Path]:
    """A store in memory where there is such a file system: thousands of fsyncs would cost a minute."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


def crash(run: RunFolder, rng: random.Random) -> None:
    """What kill -9 may leave: half a line, a part not yet written though its cut is, half a
    temporary file."""
    last = run.journal.at(run.journal.folders()[-1])
    text = last.read(last.names()[-1])
    if isinstance(last, LocalFolder):  # a PUT is there whole or not at all
        last.write(last.names()[-1], text[: rng.randint(0, len(text))])
        run.tables.at("observations").write(".x.parquet.tmp", b"PAR1half")
    elif rng.random() < 0.5:
        last.delete(last.names()[-1])
    for table, part in parts(run):
        if rng.random() < 0.4:
            run.tables.at(table).delete(part)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**32),
    crashes=st.integers(1, 3),
    max_rows=st.integers(1, 9),
    step=st.sampled_from([0.0, 3.0]),
)
def test_wherever_a_driver_dies_the_tables_end_the_same(
    fast_store: Path, seed: int, crashes: int, max_rows: int, step: float
) -> None:
    dies_and_goes_on(fast_store, seed, crashes, max_rows, step)


@pytest.mark.slow_unless(seed=[1])
@pytest.mark.parametrize("seed", [1, 2])
def test_wherever_a_driver_dies_an_object_store_ends_with_the_same_tables(
    s3: S3, seed: int
) -> None:
    dies_and_goes_on(open_folder(s3.uri(f"dies-{seed}")), seed, crashes=2, max_rows=7, step=0.0)


def dies_and_goes_on(
    store: Folder | Path, seed: int, crashes: int, max_rows: int, step: float
) -> None:
    rng = random.Random(seed)
    expected = undisturbed(store, seed)
    run = new_run(store)
    events = [e for batch in script(seed) for e in batch]
    for left in reversed(range(crashes + 1)):
        ledger, brain = RunLedger(run, clock=Clock(step), max_rows=max_rows), Brain()
        done = replay(ledger, brain)
        stop = len(events) if left == 0 else rng.randint(done, len(events))
        go_on(
            ledger,
            brain,
            [events[i : i + 3] for i in range(done, stop, 3) if events[i : min(i + 3, stop)]],
        )
        if left:
            if rng.random() < 0.3:
                ledger.close(rng.choice(["interrupted", "done"]))
            crash(run, rng)
    ledger.close("done")
    assert tables(run) == expected
    if isinstance(run.folder, LocalFolder):
        assert not list(run.path.glob("tables/*/.*"))


def test_a_table_reads_as_one_dataset_with_its_schema_and_meanings(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    ledger = RunLedger(run, max_rows=4)
    go_on(ledger, Brain(), script(3))
    ledger.close("done")
    for name, schema in TABLES.items():
        for part in (run.path / "tables" / name).glob("*.parquet"):
            kept = pq.read_schema(part)
            assert kept.equals(schema)
            assert kept.metadata == {b"schema_version": b"1", b"table": name.encode()}
            assert [f.metadata for f in kept] == [f.metadata for f in schema]
            assert all(f.metadata[b"meaning"] and f.metadata[b"unit"] for f in kept)
    assert len(parts(run)) > 4


def test_rows_say_what_was_seen_and_null_where_a_column_does_not_apply(tmp_path: Path) -> None:
    rows = undisturbed(tmp_path, 5)
    hypothesis = rows["hypotheses"][0]
    assert hypothesis["hypothesis"] == HYPOTHESES[0].id
    assert (hypothesis["layer"], hypothesis["position"], hypothesis["features"]) == (
        0,
        "last",
        None,
    )
    assert (hypothesis["head"], hypothesis["control"], hypothesis["generation"]) == (None, None, 0)
    assert len(rows["hypotheses"]) == len(rows["verdicts"]) == len(HYPOTHESES)
    observation = rows["observations"][0]
    assert (observation["fit"], observation["scores"], observation["split"]) == (None, None, "test")
    assert observation["outputs"][1] == []
    assert len(rows["sets"]) == len(HYPOTHESES)
    assert {(s["set"], s["n"], s["matches"], s["iia"]) for s in rows["sets"]} == {
        ("near", 5, 4, 0.8),
        ("near", 5, 1, 0.2),
    }
    accepted = [v for v in rows["verdicts"] if v["verdict"] == "accept"]
    assert {(v["holdout_n"], v["holdout_iia"]) for v in accepted} == {(1, 1.0)}
    assert {v["holdout_n"] for v in rows["verdicts"] if v["verdict"] == "reject"} == {None}
    assert {(v["keep_iia"], v["self_swap_iia"]) for v in rows["verdicts"]} == {(None, None)}
    told = [(f["error_type"], f["intervention"]) for f in rows["failures"]]
    assert sorted(told, key=str) == sorted(
        [("Lost", None), ("RuntimeError", None), ("RuntimeError", HYPOTHESES[0].intervention.id)],
        key=str,
    )
    assert {f["actor"] for f in rows["failures"]} == {"w1"}


def test_parts_are_closed_by_age_as_well(tmp_path: Path) -> None:
    run, clock, brain = new_run(tmp_path), Clock(), Brain()
    ledger = RunLedger(run, clock=clock)
    go_on(ledger, brain, [[screened()]])
    clock.now = 29.0
    ledger.write_events([])
    assert parts(run) == []
    clock.now = 30.0
    ledger.snapshot(Snapshot("searching", 8, 0, 0, 0, 0, 0, 100, 0, 0))
    assert [table for table, _ in parts(run)] == ["hypotheses"]


def test_the_cut_is_durable_before_its_part_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run(tmp_path)
    ledger = RunLedger(run, max_rows=len(HYPOTHESES))
    write = LocalFolder.write

    def killed(folder: LocalFolder, name: str, content: bytes) -> None:
        if folder.path.parent.name == "tables":
            raise KeyboardInterrupt
        write(folder, name, content)

    monkeypatch.setattr(LocalFolder, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        go_on(ledger, Brain(), [[screened()]])
    monkeypatch.undo()
    assert parts(run) == []
    again = RunLedger(run)
    assert replay(again, Brain()) == 1
    ((_, part),) = parts(run)
    assert part.startswith(run.journal.folders()[0])


def test_a_replay_fills_the_same_parts_under_the_same_names(store: Folder) -> None:
    run = new_run(store)
    ledger = RunLedger(run, max_rows=10)
    go_on(ledger, Brain(), script(7))
    ledger.close("done")
    before = {p: read_part(run, p) for p in parts(run)}
    again = RunLedger(run, max_rows=50)
    assert {*parts(run)} == {*before}
    table, part = min(before)
    run.tables.at(table).delete(part)
    replay(again, Brain())
    again.close("done")
    assert {p: read_part(run, p) for p in parts(run)} == before


def test_screening_rewrites_the_pairs(store: Folder) -> None:
    run = new_run(store)
    go_on(RunLedger(run), Brain(), [[screened()]])
    kept = read_pairs(run.folder)
    assert [p.index for p in kept.pairs] == [p.index for p in PAIRS]
    assert kept.screened is not None
    assert [s.solved for s in kept.screened] == [True, True, False, True]


def test_an_event_is_in_the_journal_before_anyone_is_told(store: Folder) -> None:
    run = new_run(store)
    ledger = RunLedger(run)
    ledger.write_events([screened(), failure(None)])
    assert [list(batch) for batch in RunLedger(run).replay()] == [[screened(), failure(None)]]


def test_the_ledger_tells_how_the_driver_before_ended(store: Folder) -> None:
    run = new_run(store)
    first = RunLedger(run)
    assert (first.ended, first.past_events) == (None, 0)
    first.close("interrupted")
    second = RunLedger(run)
    assert second.ended == "interrupted"
    third = RunLedger(run)
    assert third.ended is None


def test_a_dropped_tail_is_said_in_one_line(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    RunLedger(run).write_events([screened()])
    (file,) = run.path.glob("journal/*/*.jsonl")
    file.write_bytes(file.read_bytes()[:-5])
    ledger = RunLedger(run)
    assert len(ledger.messages) == 1
    assert "dropped a truncated last line" in ledger.messages[0]
    assert ledger.past_events == 0


def test_a_search_that_does_not_repeat_the_journal_is_refused_at_the_end(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    ledger = RunLedger(run)
    go_on(ledger, Brain(), script(2))
    ledger.close("done")
    forgetful = RunLedger(run)
    for _ in forgetful.replay():
        pass
    with pytest.raises(StoreError, match=r"table hypotheses: .* replay gave 0"):
        forgetful.close("done")


def test_the_mirror_hears_of_everything_but_repeats_nothing(tmp_path: Path) -> None:
    class Ear:
        run_id: str | None = None

        def __init__(self) -> None:
            self.heard: list[tuple[Record, bool]] = []
            self.steps: list[int] = []

        def write_records(self, notes: list[Record], replayed: bool = False) -> None:
            self.heard += [(n, replayed) for n in notes]

        def snapshot(self, snapshot: Snapshot) -> None:
            self.steps.append(snapshot.pairs)

    run, ear, brain = new_run(tmp_path), Ear(), Brain()
    go_on(RunLedger(run, observer=ear), brain, [[screened()]])
    assert [r for n, r in ear.heard if isinstance(n, Proposed)] == [False] * len(HYPOTHESES)
    again = Ear()
    ledger = RunLedger(run, observer=again)
    replay(ledger, Brain())
    assert {r for _, r in again.heard} == {True}
    again.run_id = "abc"
    ledger.snapshot(Snapshot("searching", 8, 0, 0, 0, 0, 7, 100, 0, 0))
    assert again.steps == [7]
    assert RunFolder.open(run.path).info.tracking_run_id == "abc"


@pytest.mark.slow
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32), max_rows=st.integers(1, 9), drivers=st.integers(2, 4))
def test_of_drivers_at_once_the_last_one_counts_and_the_tables_end_the_same(
    fast_store: Path, seed: int, max_rows: int, drivers: int
) -> None:
    side_by_side(fast_store, seed, max_rows, drivers)


@pytest.mark.slow_unless(seed=[1])
@pytest.mark.parametrize("seed", [1, 2])
def test_of_drivers_at_once_on_an_object_store_the_last_one_counts(s3: S3, seed: int) -> None:
    side_by_side(open_folder(s3.uri(f"at-once-{seed}")), seed, max_rows=7, drivers=2)


def side_by_side(store: Folder | Path, seed: int, max_rows: int, drivers: int) -> None:
    """Drivers that start while others still work, each with its own order of events; who is taken
    over works on unless it finds out."""
    rng = random.Random(seed)
    run = new_run(store)
    working: list[tuple[RunLedger, Brain, list[Event]]] = []
    waiting, ended = drivers, 0
    while waiting or working:
        if waiting and (not working or rng.random() < 0.2):
            waiting -= 1
            ledger, brain = RunLedger(run, max_rows=max_rows), Brain()
            events = [e for batch in script(seed) for e in batch]
            seen = replay_events(ledger, brain)
            left = [e for e in events if e not in seen]
            tail = [e for e in left if getattr(e, "split", "") == "holdout"]
            rest = [e for e in left if e not in tail]
            if (
                seen
            ):  # the brain goes by the order of an intervention's blocks, as a search would see to
                place = {e.intervention: rng.random() for e in rest if isinstance(e, Measured)}
                rest.sort(key=lambda e: place.get(getattr(e, "intervention", None) or "", 0.5))
            working.append((ledger, brain, [*rest, *tail]))
            continue
        ledger, brain, left = rng.choice(working)
        try:
            if left:
                go_on(ledger, brain, [left[:3]])
                del left[:3]
            else:
                ledger.close("done")
                working = [w for w in working if w[0] is not ledger]
                ended += 1
        except TakenOverError:
            working = [w for w in working if w[0] is not ledger]
    assert ended >= 1
    expected = tables(run)
    check = RunLedger(run, max_rows=max_rows)
    replay(check, Brain())
    check.close("done")
    assert tables(run) == expected
    plain = undisturbed(store, seed)
    for name in ("hypotheses", "observations", "verdicts"):
        assert sorted(map(str, expected[name])) == sorted(map(str, plain[name])), name


def replay_events(ledger: RunLedger, brain: Brain) -> list[Event]:
    seen: list[Event] = []
    for batch in ledger.replay():
        ledger.write_records(brain.tell(batch))
        seen += batch
    return seen


WRITER = """
import sys
from tests.s3 import S3
from tests.store.books import *
run = RunFolder.open(sys.argv[1])
with run.lock():
    ledger, brain = RunLedger(run, max_rows=4), Brain()
    events = [e for batch in script(11, blocks=40) for e in batch]
    done = replay(ledger, brain)
    print("ready", flush=True)
    go_on(ledger, brain, [events[i:i + 1] for i in range(done, len(events))])
    ledger.close("done")
"""


def test_a_process_killed_with_sigkill_goes_on_where_it_was(tmp_path: Path) -> None:
    expected_run = new_run(tmp_path)
    ledger = RunLedger(expected_run)
    go_on(ledger, Brain(), script(11, blocks=40))
    ledger.close("done")
    run = new_run(tmp_path)
    command = [sys.executable, "-c", WRITER, str(run.path)]
    for delay in (0.01, 0.1):
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path.cwd()) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            time.sleep(delay)
            os.kill(process.pid, signal.SIGKILL)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert tables(run) == tables(expected_run)
