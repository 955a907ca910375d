"""The journal on local disk: durable in batches, read in order, and honest about a tail that is half there."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysearch.errors import StoreError
from raysearch.search.hypothesis import canonical_json, content_id
from raysearch.store.codec import Ended, JournalEntry, decode
from raysearch.store.journal import Journal, read_journal
from tests.store.books import screened, script

EVENTS: list[JournalEntry] = [e for batch in script(1) for e in batch][:12]


def write(folder: Path, batches: list[list[JournalEntry]], max_file_bytes: int = 2**20) -> Journal:
    journal = Journal(folder, max_file_bytes=max_file_bytes)
    for batch in batches:
        journal.append(batch)
    journal.close()
    return journal


def read(folder: Path) -> tuple[list[JournalEntry], list[str]]:
    said: list[str] = []
    return [decode(line.raw) for line in read_journal(folder, said.append)], said


def only_file(folder: Path) -> Path:
    (file,) = folder.glob("*/*.jsonl")
    return file


def test_entries_come_back_in_the_order_of_drivers_and_of_writing(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    write(folder, [EVENTS[:3], EVENTS[3:4]])
    write(folder, [EVENTS[4:]], max_file_bytes=1)
    assert read(folder) == (EVENTS, [])
    assert [line.batch for line in read_journal(folder)][:4] == [0, 0, 0, 1]


def test_a_driver_goes_on_in_a_new_file_when_one_is_full(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    write(folder, [[e] for e in EVENTS], max_file_bytes=600)
    assert len(list(folder.glob("*/*.jsonl"))) > 3
    assert read(folder) == (EVENTS, [])


def test_a_journal_that_was_never_begun_is_empty(tmp_path: Path) -> None:
    assert read(tmp_path / "journal") == ([], [])


def test_drivers_sort_by_start_even_where_the_clock_goes_back(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    late, early = datetime(2027, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)
    first = Journal(folder, now=lambda: late)
    second = Journal(folder, now=lambda: early)
    third = Journal(folder, now=lambda: early)
    assert first.driver < second.driver < third.driver


def test_one_batch_is_one_write_and_one_fsync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "journal")
    journal.append([screened()])
    calls: list[str] = []
    write, fsync = os.write, os.fsync
    monkeypatch.setattr(os, "write", lambda *a: (calls.append("write"), write(*a))[1])
    monkeypatch.setattr(os, "fsync", lambda *a: (calls.append("fsync"), fsync(*a))[1])
    journal.append(EVENTS)
    assert calls == ["write", "fsync"]


@given(data=st.data())
def test_a_tail_cut_at_any_byte_is_dropped_and_said(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("cut") / "journal"
    write(folder, [EVENTS])
    file = only_file(folder)
    text = file.read_bytes()
    at = data.draw(st.integers(0, len(text)))
    file.write_bytes(text[:at])
    write(folder, [[Ended("done")]])
    entries, said = read(folder)
    ends = [i for i, byte in enumerate(text) if byte == ord("\n")]
    whole = sum(end <= at for end in ends)  # a line that lacks nothing but its end is whole
    assert entries == [*EVENTS[:whole], Ended("done")]
    clean = at == 0 or at in ends or at - 1 in ends
    assert len(said) == (0 if clean else 1)
    assert clean or f"{file.name}:{whole + 1}" in said[0]


@pytest.mark.parametrize("garbage", [b"\x00\x00\x00", b'{"seq":3}\n', b"[]\n", b"\xff\xfe\n"])
def test_a_garbled_last_line_is_dropped_and_said(tmp_path: Path, garbage: bytes) -> None:
    folder = tmp_path / "journal"
    write(folder, [EVENTS])
    with only_file(folder).open("ab") as f:
        f.write(garbage)
    entries, said = read(folder)
    assert entries == EVENTS
    assert len(said) == 1


def test_a_line_is_the_canonical_json_of_its_content_with_the_checksum_over_the_rest(tmp_path: Path) -> None:
    """What the format says, made here from values: lines are written and checked as bytes."""
    folder = tmp_path / "journal"
    write(folder, [EVENTS])
    for text in only_file(folder).read_text().splitlines():
        raw = json.loads(text)
        assert text == canonical_json(raw)
        assert raw.pop("sum") == content_id(raw)


def test_a_line_whose_bytes_were_changed_is_damage_even_where_its_content_was_not(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    write(folder, [EVENTS])
    file = only_file(folder)
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([lines[0].replace(b'"seq":', b'"seq": '), *lines[1:]]))
    with pytest.raises(StoreError, match=r"jsonl:1: this line is damaged"):
        read(folder)


def test_a_bad_line_with_good_ones_after_it_is_damage_and_named(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    write(folder, [EVENTS])
    file = only_file(folder)
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([lines[0], lines[1].replace(b'"block":', b'"block":1'), *lines[2:]]))
    with pytest.raises(StoreError, match=r"00000000\.jsonl:2: this line is damaged"):
        read(folder)


def test_a_lost_line_is_damage(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    write(folder, [EVENTS])
    file = only_file(folder)
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[:4], *lines[5:]]))
    with pytest.raises(StoreError, match=r"jsonl:5: "):
        read(folder)


def test_a_bad_end_of_a_file_that_another_follows_is_damage(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    write(folder, [[e] for e in EVENTS], max_file_bytes=600)
    first = min(folder.glob("*/*.jsonl"))
    first.write_bytes(first.read_bytes()[:-9])
    with pytest.raises(StoreError, match=r"00000000\.jsonl:\d+: "):
        read(folder)


def test_nothing_follows_half_a_line_when_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "journal")
    journal.append(EVENTS[:1])
    write = os.write

    def full(handle: int, text: bytes) -> int:
        write(handle, bytes(text)[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StoreError, match="No space left"):
        journal.append(EVENTS[1:2])
    monkeypatch.setattr(os, "write", write)
    with pytest.raises(StoreError, match="resume"):
        journal.append(EVENTS[1:2])
    entries, said = read(tmp_path / "journal")
    assert entries == EVENTS[:1]
    assert len(said) == 1
