"""The journal: journal/<driver>/<file>.jsonl, the single source of truth of a run.

Invariants:

- there is one folder for each start of a driver; their names sort by start, so (driver, seq) is the
  order of everything;
- each entry is one line, with its number within the driver, its batch, and a checksum over its
  canonical JSON;
- an entry is durable when `append` returns: on a disk after one write and one fsync for each batch,
  on an object store after one PUT;
- no file is written by two drivers, and none is written again. After kill -9 at any byte, the last
  line of a driver may be incomplete; it was never acknowledged, so it is dropped with a message. A
  bad line anywhere else is damage and raises a StoreError;
- of two drivers at once (an object store cannot lock) the later one counts. It starts its journal,
  then reads those before, then writes how far it read (`Follows`): later entries of those are no
  part of the run. A driver that writes more than its journal looks for later drivers after its last
  append (`check_latest`), so one of the two always sees the other.
"""

import json
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

from raysearch.core.hypothesis import canonical_json, content_id_of_text
from raysearch.errors import StoreError, TakenOverError
from raysearch.storage.folder import Folder
from raysearch.storage.open_folder import open_folder
from raysearch.store.journal_codec import Follows, JournalEntry, decode, encode

MAX_FILE_BYTES = 64 * 2**20
"""Size after which a driver starts a new file."""
_DRIVER = re.compile(r"\d{8}T\d{6}\.\d{6}Z-[0-9a-f]{6}")
_STAMP = "%Y%m%dT%H%M%S.%fZ"


@dataclass(frozen=True, slots=True)
class JournalLine:
    """One line of the journal: `raw` is for `codec.decode`, `batch` numbers the appends of a
    driver.
    """

    driver: str
    seq: int
    batch: int
    raw: dict[str, Any]


class Journal:
    """The journal of one start of a driver, to append to; `folder` is that of all drivers.

    Raises:
        StoreError: its folder cannot be made.
    """

    def __init__(
        self,
        folder: Folder | Path,
        now: Callable[[], datetime] | None = None,
        max_file_bytes: int = MAX_FILE_BYTES,
    ) -> None:
        self.next_seq = 0
        self._batch = 0
        self._broken = False
        self._all = open_folder(folder)
        self.driver = _name_after(drivers(self._all), (now or _utc_now)())
        self._own = self._all.at(self.driver)
        self._log = self._own.log(max_file_bytes)

    def append(self, entries: Sequence[JournalEntry]) -> None:
        """Appends entries as one batch, and makes them durable before it returns.

        Raises:
            StoreError: the store refuses. Nothing can be appended after that, since the last line
                may be incomplete.
        """
        if not entries:
            return
        if self._broken:
            raise StoreError(
                f"{self._own.place}: could not be written before; nothing may follow half a line; "
                f"`resume`"
            )
        seq, batch = self.next_seq, self._batch
        text = b"".join(_line(seq + i, batch, entry) for i, entry in enumerate(entries))
        self._broken = True  # until all of it is durable, whatever error comes first
        self._log.append(text)
        self.next_seq += len(entries)
        self._batch += 1
        self._broken = False

    def check_latest(self) -> None:
        """Checks that no other driver has started on the run since this one.

        Raises:
            TakenOverError: one has.
        """
        latest = max(drivers(self._all), default=self.driver)
        if latest > self.driver:
            raise TakenOverError(
                f"{self._own.place}: another driver ({latest}) has gone on with this run; this one "
                "ends, and what it has done since does not count; follow the other one"
            )

    def close(self) -> None:
        """Closes the file. May be called twice."""
        self._log.close()


def read_journal(
    folder: Folder | Path,
    say: Callable[[str], None] | None = None,
    until: Mapping[str, int | None] | None = None,
) -> Iterator[JournalLine]:
    """Yields the lines of all drivers in (driver, seq) order, each checked against its checksum.

    Args:
        say: called with one line of text for each incomplete last line that was dropped.
        until: number of lines to read of each driver (None: all); without it, all lines of all
            drivers.

    Raises:
        StoreError: a bad line is followed by others; the text names file and line.
    """
    folder = open_folder(folder)
    counts = dict.fromkeys(drivers(folder)) if until is None else until
    for driver in sorted(counts):
        most, there = counts[driver], 0
        for line in islice(_read_driver(folder.at(driver), say), most):
            there += 1
            yield line
        if most is not None and there < most:
            raise StoreError(
                f"{folder.at(driver).place}: {most} entries were written, {there} are there; "
                f"restore the journal from a copy"
            )


def drivers(folder: Folder) -> list[str]:
    """Returns the folders of drivers, in the order of their starts; those that a file server puts
    beside them (@eaDir, .snapshot), which hold no journal, are none.

    Raises:
        StoreError: a folder of another name holds a journal.
    """
    found = []
    for name in folder.folders():
        if _DRIVER.fullmatch(name):
            found.append(name)
        elif any(file.endswith(".jsonl") for file in folder.at(name).names()):
            raise StoreError(
                f"{folder.at(name).place}: no driver writes such a folder, and it holds a journal; "
                f"give it its old name, or take it out"
            )
    return found


def driver_of(part: str) -> str | None:
    """Returns the driver that the name of a table's part begins with, or None."""
    found = _DRIVER.match(part)
    return found and found[0]


def history(folder: Folder | Path, driver: str) -> dict[str, int | None]:
    """Returns which lines before `driver` count, as `until` of `read_journal`.

    These are all lines of the last driver before, and of earlier ones as many as that driver had
    read.

    Raises:
        StoreError: as in `read_journal`.
    """
    folder = open_folder(folder)
    counts: dict[str, int | None] = {}
    for before in reversed([d for d in drivers(folder) if d < driver]):
        counts[before] = None
        beginning = [
            decode(line.raw) for line in islice(_read_driver(folder.at(before), files=2), 2)
        ]
        follows = next((entry for entry in beginning if isinstance(entry, Follows)), None)
        if follows is not None:
            return counts | dict(follows.read)
    return counts


def ends_of(folder: Folder, driver: str) -> tuple[JournalLine, JournalLine] | None:
    """Returns the first and the last whole line of a driver, without reading what is between; None
    if it has none.
    """
    own = folder.at(driver)
    names = [name for name in own.names() if name.endswith(".jsonl")]
    first = next(_read_driver(own, files=1), None)
    if first is None:
        return None
    last = (
        _parse(text, driver, None)
        for name in reversed(names)
        for text in reversed(own.read(name).rsplit(b"\n", 3))
    )
    return first, next(filter(None, last), first)


def _read_driver(
    folder: Folder, say: Callable[[str], None] | None = None, files: int | None = None
) -> Iterator[JournalLine]:
    """Yields the lines of one driver, or of its first `files`."""
    names = [name for name in folder.names() if name.endswith(".jsonl")][:files]
    expected = 0
    for name, content in zip(names, folder.read_each(names), strict=True):
        for line in _read_file(folder, name, content, expected, last=name == names[-1], say=say):
            expected = line.seq + 1
            yield line


def _read_file(
    folder: Folder,
    name: str,
    content: bytes,
    expected: int,
    last: bool,
    say: Callable[[str], None] | None,
) -> Iterator[JournalLine]:
    bad: tuple[int, int] | None = None
    number = 0
    for number, text in enumerate(BytesIO(content), start=1):
        if bad is not None:
            break
        line = _parse(text, folder.name, expected)
        if line is None:
            bad = number, len(text)
            continue
        expected += 1
        yield line
    if bad is None:
        return
    file = f"{folder.shown(name)}:{bad[0]}"
    if not last or number > bad[0]:
        raise StoreError(
            f"{file}: this line is damaged, and others follow it; restore the file from a copy"
        )
    if say is not None:
        say(
            f"{file}: dropped a truncated last line ({bad[1]} bytes); its driver died while "
            f"writing it"
        )


def _parse(text: bytes, driver: str, expected: int | None) -> JournalLine | None:
    """Returns the line, or None if it is incomplete or not the expected one."""
    try:
        text = text.removesuffix(b"\n")
        if text != _with_checksum(text[:-_CHECKSUM_LENGTH] + b"}"):
            return None
        raw = json.loads(text)
        return (
            JournalLine(driver, raw["seq"], raw["batch"], raw["entry"])
            if expected in (None, raw["seq"])
            else None
        )
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return None  # the caller reports it or raises, depending on the line's place


def _line(seq: int, batch: int, entry: JournalEntry) -> bytes:
    return (
        _with_checksum(
            canonical_json({"seq": seq, "batch": batch, "entry": encode(entry)}).encode("ascii")
        )
        + b"\n"
    )


def _with_checksum(payload: bytes) -> bytes:
    """Adds the checksum as the last key to a line's canonical JSON.

    Working on bytes instead of values avoids writing the same text again, half the time of reading
    a journal.
    """
    return b'%b,"sum":"%b"}' % (payload[:-1], content_id_of_text(payload).encode("ascii"))


_CHECKSUM_LENGTH = len(_with_checksum(b"{}")) - len(b"{")


def _name_after(started: Sequence[str], now: datetime) -> str:
    """Returns a name that sorts after all earlier drivers, even if this machine's clock is behind
    theirs.
    """
    if started:
        before = started[-1].rpartition("-")[0]
        try:
            now = max(
                now,
                datetime.strptime(before, _STAMP).replace(tzinfo=UTC) + timedelta(microseconds=1),
            )
        except (ValueError, OverflowError) as e:
            raise StoreError(
                f"journal/{started[-1]}: no driver writes a folder of such a time; take it out of "
                f"the journal"
            ) from e
    return f"{now.strftime(_STAMP)}-{secrets.token_hex(3)}"


def _utc_now() -> datetime:
    return datetime.now(UTC)
