"""The journal on local disk: journal/<driver>/<file>.jsonl, the one truth of a run.

Invariants:
- one folder for each start of a driver; the names of drivers sort by start, so (driver, seq) is the order of everything;
- one line for each entry, with its number within the driver, its batch and a checksum over its canonical JSON;
- what `append` returned from is on disk: one write and one fsync for each batch, the folders fsynced when made;
- no file is written by two drivers, and none is written again: after kill -9 at any byte, the last line of a driver may be
  half there; it was never acknowledged, so it is dropped, and said. A bad line anywhere else is damage: a StoreError.
"""

import json
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from raysearch.errors import StoreError
from raysearch.search.hypothesis import canonical_json, content_id_of_text
from raysearch.store.codec import JournalEntry, encode
from raysearch.whole_file import fsync_folder, make_folder

MAX_FILE_BYTES = 64 * 2**20
"""A driver goes on in a new file after this many bytes."""
_STAMP = "%Y%m%dT%H%M%S.%fZ"


@dataclass(frozen=True, slots=True)
class Line:
    """One entry as it stands in the journal. `raw` is for `codec.decode`; `batch` numbers the appends of a driver."""

    driver: str
    seq: int
    batch: int
    raw: dict[str, Any]


class Journal:
    """The journal of one driver's start, to append to.

    Raises: StoreError if its folder cannot be made.
    """

    def __init__(
        self, folder: Path, now: Callable[[], datetime] | None = None, max_file_bytes: int = MAX_FILE_BYTES
    ) -> None:
        self.next_seq = 0
        self._max_file_bytes = max_file_bytes
        self._batch = self._files = 0
        self._handle: int | None = None
        self._broken = False
        try:
            if not folder.exists():
                make_folder(folder)
            self.driver = _name_after(_drivers(folder), (now or _utc_now)())
            self._folder = folder / self.driver
            make_folder(self._folder)
        except OSError as e:
            raise StoreError(
                f"{folder}: cannot be made ({e.strerror or e}); the driver must be able to write there"
            ) from e

    def append(self, entries: Sequence[JournalEntry]) -> None:
        """The entries are durable when this returns; they are one batch.

        Raises: StoreError if the disk refuses; nothing can be appended after that, for the last line may be half there.
        """
        if not entries:
            return
        if self._broken:
            raise StoreError(f"{self._folder}: could not be written before; nothing may follow half a line; `resume`")
        seq, batch = self.next_seq, self._batch
        text = b"".join(_line(seq + i, batch, entry) for i, entry in enumerate(entries))
        self._broken = True  # until all of it is durable, whatever comes between
        try:
            self._write(text)
        except OSError as e:
            raise StoreError(
                f"{self._folder}: cannot be written ({e.strerror or e}); free the disk, then `resume`"
            ) from e
        self.next_seq += len(entries)
        self._batch += 1
        self._broken = False

    def close(self) -> None:
        """Lets go of the file. Harmless twice."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _write(self, text: bytes) -> None:
        if self._handle is not None and os.fstat(self._handle).st_size >= self._max_file_bytes:
            self.close()
        if self._handle is None:
            path = self._folder / f"{self._files:08d}.jsonl"
            self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
            self._files += 1
            fsync_folder(self._folder)
        view = memoryview(text)
        while view:
            view = view[os.write(self._handle, view) :]
        os.fsync(self._handle)


def read_journal(folder: Path, say: Callable[[str], None] | None = None) -> Iterator[Line]:
    """The lines of all drivers in (driver, seq) order, one by one; each checked against its checksum.

    `say` is called with one line of text for each tail that was dropped.
    Raises: StoreError for a bad line that others follow, naming file and line.
    """
    for driver in _drivers(folder):
        files = sorted((folder / driver).glob("*.jsonl"))
        expected = 0
        for file in files:
            for line in _read_file(file, driver, expected, last=file == files[-1], say=say):
                expected = line.seq + 1
                yield line


def _read_file(file: Path, driver: str, expected: int, last: bool, say: Callable[[str], None] | None) -> Iterator[Line]:
    bad: tuple[int, int] | None = None
    number = 0
    with file.open("rb") as handle:
        for number, text in enumerate(handle, start=1):
            if bad is not None:
                break
            line = _parse(text, driver, expected)
            if line is None:
                bad = number, len(text)
                continue
            expected += 1
            yield line
    if bad is None:
        return
    if not last or number > bad[0]:
        raise StoreError(f"{file}:{bad[0]}: this line is damaged, and others follow it; restore the file from a copy")
    if say is not None:
        say(f"{file}:{bad[0]}: dropped a truncated last line ({bad[1]} bytes); its driver died while writing it")


def _parse(text: bytes, driver: str, expected: int) -> Line | None:
    """The line, or None if it is not whole or not the next one."""
    try:
        text = text.removesuffix(b"\n")
        if text != _sealed(text[:-_SEAL] + b"}"):
            return None
        raw = json.loads(text)
        return Line(driver, raw["seq"], raw["batch"], raw["entry"]) if raw["seq"] == expected else None
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return None  # not "swallowed": the caller says it or raises, by where the line stands


def _line(seq: int, batch: int, entry: JournalEntry) -> bytes:
    return _sealed(canonical_json({"seq": seq, "batch": batch, "entry": encode(entry)}).encode("ascii")) + b"\n"


def _sealed(payload: bytes) -> bytes:
    """A line: the payload's canonical JSON with its checksum in it, as the last of its keys.

    Writing and checking bytes, not values, saves making the same text again: half the time of reading a journal.
    """
    return b'%b,"sum":"%b"}' % (payload[:-1], content_id_of_text(payload).encode("ascii"))


_SEAL = len(_sealed(b"{}")) - len(b"{")


def _drivers(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []


def _name_after(drivers: Sequence[str], now: datetime) -> str:
    """A name that sorts after those of all drivers before, even where this machine's clock is behind theirs."""
    if drivers:
        before = drivers[-1].rpartition("-")[0]
        try:
            now = max(now, datetime.strptime(before, _STAMP).replace(tzinfo=UTC) + timedelta(microseconds=1))
        except ValueError as e:
            raise StoreError(
                f"journal/{drivers[-1]}: no driver writes such a folder; take it out of the journal"
            ) from e
    return f"{now.strftime(_STAMP)}-{secrets.token_hex(3)}"


def _utc_now() -> datetime:
    return datetime.now(UTC)
