"""The journal: journal/<driver>/<file>.jsonl, the one truth of a run.

Invariants:
- one folder for each start of a driver; the names of drivers sort by start, so (driver, seq) is the
  order of everything;
- one line for each entry, with its number within the driver, its batch and a checksum over its
  canonical JSON;
- what `append` returned from is durable: on a disk one write and one fsync for each batch, on an
  object store one PUT;
- no file is written by two drivers, and none is written again: after kill -9 at any byte, the last
  line of a driver may be half there; it was never acknowledged, so it is dropped, and said. A bad
  line anywhere else is damage: a StoreError;
- of two drivers at once (an object store cannot lock) the later one counts. It starts its journal,
  then reads those before, then writes down how far it read (`Follows`): what they append later is
  no part of the run. Whoever writes more than its journal looks for later drivers after its last
  append (`check_latest`): so one of the two always sees the other.
"""

import json
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
from raysearch.storage.open import open_folder
from raysearch.store.codec import Follows, JournalEntry, decode, encode

MAX_FILE_BYTES = 64 * 2**20
"""A driver goes on in a new file after this many bytes."""
_STAMP = "%Y%m%dT%H%M%S.%fZ"


@dataclass(frozen=True, slots=True)
class JournalLine:
    """One entry as it stands in the journal. `raw` is for `codec.decode`; `batch` numbers the
    appends of a driver."""

    driver: str
    seq: int
    batch: int
    raw: dict[str, Any]


class Journal:
    """The journal of one driver's start, to append to; `folder`: of all drivers.

    Raises: StoreError if its folder cannot be made.
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
        self.driver = _name_after(self._all.folders(), (now or _utc_now)())
        self._own = self._all.at(self.driver)
        self._log = self._own.log(max_file_bytes)

    def append(self, entries: Sequence[JournalEntry]) -> None:
        """The entries are durable when this returns; they are one batch.

        Raises: StoreError if the store refuses; nothing can be appended after that, for the last
        line may be half there.
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
        self._broken = True  # until all of it is durable, whatever comes between
        self._log.append(text)
        self.next_seq += len(entries)
        self._batch += 1
        self._broken = False

    def check_latest(self) -> None:
        """Raises: TakenOverError if another driver has gone on with the run since this one started."""
        latest = max(self._all.folders(), default=self.driver)
        if latest > self.driver:
            raise TakenOverError(
                f"{self._own.place}: another driver ({latest}) has gone on with this run; this one "
                f"ends, and what it has done since "
                "does not count; follow the other one"
            )

    def close(self) -> None:
        """Lets go of the file. Harmless twice."""
        self._log.close()


def read_journal(
    folder: Folder | Path,
    say: Callable[[str], None] | None = None,
    until: Mapping[str, int | None] | None = None,
) -> Iterator[JournalLine]:
    """The lines of all drivers in (driver, seq) order, one by one; each checked against its
    checksum.

    `say` is called with one line of text for each tail that was dropped. `until`: how many lines of
    which drivers (None: all of its); without it, all lines of all drivers. Raises: StoreError for a
    bad line that others follow, naming file and line.
    """
    folder = open_folder(folder)
    reach = dict.fromkeys(folder.folders()) if until is None else until
    for driver in sorted(reach):
        yield from islice(_read_driver(folder.at(driver), say), reach[driver])


def history(folder: Folder | Path, driver: str) -> dict[str, int | None]:
    """What counts of the journal before `driver`, as `until` of `read_journal`: all of the last
    driver that went on, and of those before it what it had read. Raises: StoreError as
    `read_journal`."""
    folder = open_folder(folder)
    reach: dict[str, int | None] = {}
    for before in reversed([d for d in folder.folders() if d < driver]):
        reach[before] = None
        beginning = [
            decode(line.raw) for line in islice(_read_driver(folder.at(before), files=2), 2)
        ]
        follows = next((entry for entry in beginning if isinstance(entry, Follows)), None)
        if follows is not None:
            return reach | dict(follows.read)
    return reach


def _read_driver(
    folder: Folder, say: Callable[[str], None] | None = None, files: int | None = None
) -> Iterator[JournalLine]:
    """The lines of one driver, or of its first `files`."""
    names = [name for name in folder.names() if name.endswith(".jsonl")][:files]
    expected = 0
    for name, content in zip(names, folder.each(names), strict=True):
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


def _parse(text: bytes, driver: str, expected: int) -> JournalLine | None:
    """The line, or None if it is not whole or not the next one."""
    try:
        text = text.removesuffix(b"\n")
        if text != _sealed(text[:-_SEAL] + b"}"):
            return None
        raw = json.loads(text)
        return (
            JournalLine(driver, raw["seq"], raw["batch"], raw["entry"])
            if raw["seq"] == expected
            else None
        )
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return None  # not "swallowed": the caller says it or raises, by where the line stands


def _line(seq: int, batch: int, entry: JournalEntry) -> bytes:
    return (
        _sealed(
            canonical_json({"seq": seq, "batch": batch, "entry": encode(entry)}).encode("ascii")
        )
        + b"\n"
    )


def _sealed(payload: bytes) -> bytes:
    """A line: the payload's canonical JSON with its checksum in it, as the last of its keys.

    Writing and checking bytes, not values, saves making the same text again: half the time of
    reading a journal.
    """
    return b'%b,"sum":"%b"}' % (payload[:-1], content_id_of_text(payload).encode("ascii"))


_SEAL = len(_sealed(b"{}")) - len(b"{")


def _name_after(drivers: Sequence[str], now: datetime) -> str:
    """A name that sorts after those of all drivers before, even where this machine's clock is
    behind theirs."""
    if drivers:
        before = drivers[-1].rpartition("-")[0]
        try:
            now = max(
                now,
                datetime.strptime(before, _STAMP).replace(tzinfo=UTC) + timedelta(microseconds=1),
            )
        except ValueError as e:
            raise StoreError(
                f"journal/{drivers[-1]}: no driver writes such a folder; take it out of the journal"
            ) from e
    return f"{now.strftime(_STAMP)}-{secrets.token_hex(3)}"


def _utc_now() -> datetime:
    return datetime.now(UTC)
