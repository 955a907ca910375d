"""The journal of a run as whoever only reads finds it: what counts of it, and how it stands.

Invariants: nothing is written, no driver is started; what a driver wrote after a later one went on
is left out.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from raysearch.store.codec import OF_DRIVERS, Ended, JournalEntry, Started, decode
from raysearch.store.journal import JournalLine, history, read_journal
from raysearch.store.run_folder import RunFolder

_AFTER_ALL = "~"
"""Sorts after the name of any driver."""


@dataclass(frozen=True, slots=True)
class JournalSummary:
    """How far a journal goes. `starts`: of drivers; `events`: entries that are no driver's own;
    `ended`: the status with which the last driver closed it, None where that works still, or was
    killed."""

    starts: tuple[Started, ...]
    events: int
    ended: str | None


def entries(
    run: RunFolder, say: Callable[[str], None] | None = None
) -> Iterator[list[JournalEntry]]:
    """All that counts, in its order, in the batches in which it was written. Raises: StoreError for
    damage."""
    return batches(read_journal(run.journal, say, history(run.journal, _AFTER_ALL)))


def batches(lines: Iterable[JournalLine]) -> Iterator[list[JournalEntry]]:
    """The entries of lines, batch by batch."""
    for _, together in groupby(lines, key=lambda line: (line.driver, line.batch)):
        yield [decode(line.raw) for line in together]


def journal_summary(run: RunFolder) -> JournalSummary:
    """How the run stands, by its journal. Raises: StoreError for damage."""
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
