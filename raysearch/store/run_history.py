"""Reads the journal of a run without writing: which entries count, and the state of the run.

Invariants: nothing is written and no driver is started; what a driver wrote after a later one had
taken over is left out.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from raysearch.errors import StoreError
from raysearch.storage.local import LocalFolder, this_process
from raysearch.store.journal import JournalLine, drivers, ends_of, history, read_journal
from raysearch.store.journal_codec import OF_DRIVERS, Ended, JournalEntry, Started, decode
from raysearch.store.run_folder import RunFolder

_AFTER_ALL = "~"
"""Sorts after the name of any driver."""


@dataclass(frozen=True, slots=True)
class JournalSummary:
    """The state of a run by its journal.

    Args:
        starts: starts of drivers.
        events: number of entries that are not a driver's own.
        ended: status with which the last driver closed it; None if it is still running, or was
            killed.
    """

    starts: tuple[Started, ...]
    events: int
    ended: str | None


def read_entries(
    run: RunFolder, say: Callable[[str], None] | None = None
) -> Iterator[list[JournalEntry]]:
    """Yields all entries that count, in order, in the batches in which they were written.

    Raises:
        StoreError: the journal is damaged.
    """
    return group_batches(read_journal(run.journal, say, history(run.journal, _AFTER_ALL)))


def group_batches(lines: Iterable[JournalLine]) -> Iterator[list[JournalEntry]]:
    """Yields the entries of journal lines, batch by batch."""
    for _, together in groupby(lines, key=lambda line: (line.driver, line.batch)):
        yield [decode(line.raw) for line in together]


@dataclass(frozen=True, slots=True)
class LastDriver:
    """The last start of a driver. `ended`: as in JournalSummary."""

    started: Started
    ended: str | None


def last_driver(run: RunFolder) -> LastDriver | None:
    """Returns the last start of a driver, without reading the journal in between.

    Raises:
        StoreError: the journal is damaged.
    """
    for driver in reversed(drivers(run.journal)):
        found = ends_of(run.journal, driver)
        if found is not None:
            started, last = (decode(line.raw) for line in found)
            if not isinstance(started, Started):
                raise StoreError(f"{run.journal.at(driver).place}: does not begin with its start")
            return LastDriver(started, last.status if isinstance(last, Ended) else None)
    return None


def run_state(run: RunFolder) -> str:
    """Returns "done", "running", or how a run ended otherwise: "interrupted", "failed", "killed".
    Of a run on an object store without an end it is "running", for nothing there says otherwise.

    Raises: StoreError if its journal is damaged.
    """
    last = last_driver(run)
    ended = None if last is None else last.ended
    if ended == "done":
        return "done"
    if not isinstance(run.folder, LocalFolder):
        return ended or "running"
    holder = run.folder.holder()
    if holder is None or (ended and holder == this_process()):  # a driver's last act: its page
        return ended or "killed"
    return "running"


def journal_summary(run: RunFolder) -> JournalSummary:
    """Returns the state of the run by its journal.

    Raises:
        StoreError: the journal is damaged.
    """
    starts: list[Started] = []
    events, ended = 0, None
    for line in read_journal(run.journal, until=history(run.journal, _AFTER_ALL)):
        match line.raw.get("type"):
            case "started" | "ended":
                entry = decode(line.raw)
                if isinstance(entry, Started):
                    starts.append(entry)
                    ended = None
                elif isinstance(entry, Ended):
                    ended = entry.status
            case kind if kind not in OF_DRIVERS:
                events += 1
    return JournalSummary(tuple(starts), events, ended)
