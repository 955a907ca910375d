"""The journal: durable in batches, read in order, honest about a tail that is half there; on a disk
and on an object store."""

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysearch.core.hypothesis import canonical_json, content_id
from raysearch.errors import StoreError, TakenOverError
from raysearch.storage.folder import Folder
from raysearch.store.journal import Journal, history, read_journal
from raysearch.store.journal_codec import Ended, Follows, JournalEntry, decode
from tests.store.books import screened, script

EVENTS: list[JournalEntry] = [e for batch in script(1) for e in batch][:12]


def write(
    folder: Folder | Path, batches: list[list[JournalEntry]], max_file_bytes: int = 2**20
) -> Journal:
    journal = Journal(folder, max_file_bytes=max_file_bytes)
    for batch in batches:
        journal.append(batch)
    journal.close()
    return journal


def read(folder: Folder | Path) -> tuple[list[JournalEntry], list[str]]:
    said: list[str] = []
    return [decode(line.raw) for line in read_journal(folder, said.append)], said


def files(folder: Folder) -> list[tuple[Folder, str]]:
    """Those of all drivers, in order, each with the folder that it is in."""
    return [
        (folder.at(driver), name)
        for driver in folder.folders()
        for name in folder.at(driver).names()
    ]


def change(file: tuple[Folder, str], to: Callable[[bytes], bytes]) -> None:
    folder, name = file
    folder.write(name, to(folder.read(name)))


def test_entries_come_back_in_the_order_of_drivers_and_of_writing(store: Folder) -> None:
    folder = store.at("journal")
    write(folder, [EVENTS[:3], EVENTS[3:4]])
    write(folder, [EVENTS[4:]], max_file_bytes=1)
    assert read(folder) == (EVENTS, [])
    assert [line.batch for line in read_journal(folder)][:4] == [0, 0, 0, 1]


def test_a_driver_goes_on_in_a_new_file_when_one_is_full(store: Folder) -> None:
    folder = store.at("journal")
    write(folder, [[e] for e in EVENTS], max_file_bytes=600)
    assert len(files(folder)) > 3
    assert read(folder) == (EVENTS, [])


def test_a_journal_that_was_never_begun_is_empty(store: Folder) -> None:
    assert read(store.at("journal")) == ([], [])


def test_drivers_sort_by_start_even_where_the_clock_goes_back(store: Folder) -> None:
    folder = store.at("journal")
    late, early = datetime(2027, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)
    names = []
    for now in (late, early, early):
        journal = Journal(folder, now=lambda now=now: now)
        journal.append([Ended("done")])
        names.append(journal.driver)
    assert names == sorted(set(names))


def test_one_batch_is_one_write_and_one_fsync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    (file,) = folder.glob("*/*.jsonl")
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


def test_what_a_driver_writes_after_a_later_one_has_read_it_does_not_count(store: Folder) -> None:
    first = Journal(store)
    first.append(EVENTS[:2])
    second = Journal(store)
    second.append([Ended("begun")])
    assert history(store, second.driver) == {first.driver: None}
    second.append([Follows({first.driver: 2})])
    first.append(EVENTS[2:4])
    with pytest.raises(TakenOverError, match=r"another driver .* has gone on with this run"):
        first.check_latest()
    second.append(EVENTS[4:])
    second.check_latest()
    third = Journal(store)
    counts = history(store, third.driver)
    assert counts == {first.driver: 2, second.driver: None}
    entries = [decode(line.raw) for line in read_journal(store, until=counts)]
    assert entries == [*EVENTS[:2], Ended("begun"), Follows({first.driver: 2}), *EVENTS[4:]]


@pytest.mark.parametrize("garbage", [b"\x00\x00\x00", b'{"seq":3}\n', b"[]\n", b"\xff\xfe\n"])
def test_a_garbled_last_line_is_dropped_and_said(store: Folder, garbage: bytes) -> None:
    write(store, [EVENTS])
    change(files(store)[0], lambda text: text + garbage)
    entries, said = read(store)
    assert entries == EVENTS
    assert len(said) == 1


def test_a_line_is_the_canonical_json_of_its_content_with_the_checksum_over_the_rest(
    store: Folder,
) -> None:
    """What the format says, made here from values: lines are written and checked as bytes."""
    write(store, [EVENTS])
    folder, name = files(store)[0]
    for text in folder.read(name).decode().splitlines():
        raw = json.loads(text)
        assert text == canonical_json(raw)
        assert raw.pop("sum") == content_id(raw)


def test_a_line_whose_bytes_were_changed_is_damage_even_where_its_content_was_not(
    store: Folder,
) -> None:
    write(store, [EVENTS])
    change(files(store)[0], lambda text: text.replace(b'"seq":', b'"seq": ', 1))
    with pytest.raises(StoreError, match=r"jsonl:1: this line is damaged"):
        read(store)


def test_a_bad_line_with_good_ones_after_it_is_damage_and_named(store: Folder) -> None:
    write(store, [EVENTS])

    def damaged(text: bytes) -> bytes:
        lines = text.splitlines(keepends=True)
        return b"".join([lines[0], lines[1].replace(b'"block":', b'"block":1'), *lines[2:]])

    change(files(store)[0], damaged)
    with pytest.raises(StoreError, match=r"00000000\.jsonl:2: this line is damaged"):
        read(store)


def test_a_lost_line_is_damage(store: Folder) -> None:
    write(store, [EVENTS])
    change(
        files(store)[0],
        lambda text: b"".join(line for i, line in enumerate(text.splitlines(True)) if i != 4),
    )
    with pytest.raises(StoreError, match=r"jsonl:5: "):
        read(store)


def test_a_lost_file_is_damage(store: Folder) -> None:
    write(store, [[e] for e in EVENTS], max_file_bytes=1)
    folder, name = files(store)[3]
    folder.delete(name)
    with pytest.raises(StoreError, match="this line is damaged"):
        read(store)


def test_a_bad_end_of_a_file_that_another_follows_is_damage(store: Folder) -> None:
    write(store, [[e] for e in EVENTS], max_file_bytes=600)
    change(files(store)[0], lambda text: text[:-9])
    with pytest.raises(StoreError, match=r"00000000\.jsonl:\d+: "):
        read(store)


def test_nothing_follows_half_a_line_when_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
