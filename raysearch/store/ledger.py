"""The ledger: makes events durable before the search takes them, and writes records to tables and
tracker.

Invariants:

- an event is in the journal when `write_events` returns; tables and tracker follow from the journal
  and can be lost;
- a replay yields the journal's events in their order and batches. The same search then returns the
  same records, and the same rows fill the same parts, so that new and resumed runs are written by
  the same code;
- rows of verdicts that are withdrawn leave the tables by a replay alone: the `Retried` or
  `Continued` event is journalled first, so that after any crash the next replay does the same;
- of two drivers at once, the earlier one writes nothing but its journal once the later one has
  started, and ends.

It is not thread-safe.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain

from raysearch.core.events import (
    Continued,
    Event,
    Failed,
    Fitted,
    JournalledEvent,
    Lost,
    Retried,
    Task,
)
from raysearch.core.records import Blocked, Record, Snapshot
from raysearch.storage.digests_json import TABLES as DIGESTED
from raysearch.storage.digests_json import read_checked, sha256
from raysearch.storage.parquet import PART
from raysearch.store.file_digests import FileDigests
from raysearch.store.fit_store import FitStore
from raysearch.store.journal import Journal, history, read_journal
from raysearch.store.journal_codec import (
    OF_DRIVERS,
    Cut,
    Ended,
    Follows,
    JournalEntry,
    Sealed,
    Started,
    Suggested,
    decode,
)
from raysearch.store.pairs_table import FILE as PAIRS_FILE
from raysearch.store.pairs_table import pairs_content, read_pairs
from raysearch.store.progress_file import SECONDS as PROGRESS_SECONDS
from raysearch.store.progress_file import write_progress
from raysearch.store.retractions import Retractions
from raysearch.store.run_folder import RunFolder, installed_versions
from raysearch.store.run_history import group_batches
from raysearch.store.run_tables import RunTables
from raysearch.store.schemas import TABLES
from raysearch.store.search_observer import SearchObserver
from raysearch.store.table_writer import MAX_ROWS, MAX_SECONDS, TableWriter


class RunLedger:
    """Everything that one driver writes to one run; hold `run.lock()` while it is open.

    pairs.parquet must be written before.

    - `messages`: one line for each incomplete last line in the journal.
    - `past_events`: number of events of earlier drivers.
    - `ended`: status with which the last driver closed the run; None if it was killed, or the run
      is new.

    Args:
        suggested: grows by the answers of a user's proposer; those that are not in the journal yet
            are appended to it.

    Raises:
        StoreError: the journal is damaged, or the folder cannot be written.
        TakenOverError: a later driver is there.
    """

    def __init__(
        self,
        run: RunFolder,
        observer: SearchObserver | None = None,
        clock: Callable[[], float] = time.monotonic,
        max_rows: int = MAX_ROWS,
        max_seconds: float = MAX_SECONDS,
        suggested: Sequence[Suggested] = (),
    ) -> None:
        self._run = run
        self._observer = observer
        self._clock = clock
        self._snapshot: Snapshot | None = None
        self._counted: float | None = None
        self.past_events = 0
        self.ended: str | None = None
        self._journal = Journal(run.journal)
        # Before reading earlier journals: of two drivers one always sees the other.
        self._journal.append([_started(run)])
        self._read: Counter[str] = Counter()
        self._request: Retried | Continued | None = None
        self.continued: list[int] = []
        """Further pairs of each continuation so far."""
        self._retractions = Retractions()
        self._sealed: dict[str, str] = {}
        self._suggested, self._suggestions = suggested, 0
        messages: list[str] = []
        cuts = self._read_history(messages)
        self.messages = tuple(messages)
        if self._read:
            self._journal.append([Follows(dict(self._read))])
        self._journal.check_latest()
        self._digests = FileDigests(
            run,
            self._sealed,
            [f"{DIGESTED}/{c.table}/{c.part}{PART}" for c in cuts],
            self._append_checked,
            self._journal.check_latest,
        )
        self._seal_pairs()
        self._replaying = False
        self._to_replay = self.past_events > 0
        self._fits = FitStore(run.interventions)
        self._cut_from: dict[str, int] = {}
        self._tables = RunTables(
            {name: self._writer(name, cuts, clock, max_rows, max_seconds) for name in TABLES}
        )

    def _writer(
        self,
        table: str,
        cuts: Sequence[Cut],
        clock: Callable[[], float],
        max_rows: int,
        max_seconds: float,
    ) -> TableWriter:
        """Returns the writer of a table, which goes on after its cuts."""
        return TableWriter(
            self._run.tables.at(table),
            TABLES[table],
            [c for c in cuts if c.table == table],
            self._cut,
            self._write_part,
            clock,
            max_rows,
            max_seconds,
        )

    def history(self) -> Iterator[tuple[JournalledEvent, ...]]:
        """Yields the events of earlier drivers in batches, to look at only.

        Raises:
            StoreError: the journal is damaged.
        """
        for entries in group_batches(read_journal(self._run.journal, until=self._read)):
            batch = tuple(e for e in entries if isinstance(e, JournalledEvent))
            if batch:
                yield batch

    def request(self, event: Retried | Continued, pairs: bytes | None = None) -> None:
        """Journals that verdicts in `history` are withdrawn; call it before `replay`, which ends
        with it and drops their rows.

        Args:
            pairs: new contents of pairs.parquet, which are written before.

        Raises:
            StoreError: the store refuses.
            TakenOverError: a later driver is there.
        """
        assert self._to_replay, "what is written once is not taken back"
        if pairs is not None:
            self._digests.write(self._run.folder, "", PAIRS_FILE, pairs)
        self._journal.append([event])
        # A later driver may not have read this entry, and would write other rows to the same parts.
        self._journal.check_latest()
        self._note(event)
        self._request = event

    def _note(self, event: Retried | Continued) -> None:
        self._retractions.add(event)
        if isinstance(event, Continued):
            self.continued.append(event.pairs)

    def replay(self) -> Iterator[tuple[JournalledEvent, ...]]:
        """Yields the events of earlier drivers in batches, for `search.tell`; its records go to
        `write_records`.

        A new run has none. It must be used up before the first `write_events`.

        Raises:
            StoreError: the journal is damaged.
        """
        assert not self._replaying, "one replay for each ledger"
        self._replaying = True
        for batch in chain(self.history(), [(self._request,)] if self._request else []):
            self._project(batch)
            yield batch
        self._replaying = self._to_replay = False

    def write_events(self, events: Sequence[Event]) -> None:
        """Makes events durable as one batch.

        Raises:
            StoreError: the store refuses.
        """
        assert not self._to_replay, "replay the journal first: the search must know what was seen"
        for event in events:
            if isinstance(event, Fitted):
                self._fits.write(event.tensors)
        self._journal.append(events)
        self._project(events)
        self._tick()

    def tensors_for(self, task: Task) -> Mapping[str, bytes]:
        """Returns the tensors that a replica needs for `task`, by digest.

        Raises:
            StoreError: one is missing or damaged.
        """
        return {digest: self._fits.read(digest) for digest in task.digests}

    def write_records(self, records: Sequence[Record]) -> None:
        """Writes the search's records to the tables and the tracker.

        Raises:
            StoreError: the store refuses.
            TakenOverError: a later driver is there.
        """
        if new := self._suggested[self._suggestions :]:
            self._append_checked(new)
            self._suggestions += len(new)
        for record in records:
            self._write_record(record)
        if self._observer is not None and records:
            self._observer.write_records(records, replayed=self._replaying)
        self._tick()

    def snapshot(self, snapshot: Snapshot) -> None:
        """Passes a snapshot to the observer, counts it in progress.json now and then, and closes
        old parts. Cheap: call it at every turn.
        """
        if self._to_replay:
            return
        if self._observer is not None:
            self._observer.snapshot(snapshot)
        self._snapshot = snapshot
        if self._counted is None or self._clock() - self._counted >= PROGRESS_SECONDS:
            self._journal.check_latest()
            self._write_progress()
        self._tick()

    def close(self, status: str) -> None:
        """Writes what is left and journals the end.

        Args:
            status: "done", or e.g. "interrupted" or "failed", after which `resume` continues.

        Raises:
            StoreError: the store refuses, or at "done" a replay did not repeat the journal's rows.
            TakenOverError: a later driver is there.
        """
        self._journal.check_latest()
        if status == "done":
            self._fits.delete_others(self._tables.finish())
        if not self._to_replay:
            self._tables.flush()
            self._write_progress()
        self._journal.append([Ended(status)])
        self._journal.close()
        self._store_observer_id()

    def abandon(self) -> None:
        """Closes the journal and writes nothing more, after an error of the store; `resume` treats
        it as a crash.
        """
        self._journal.close()

    def _read_history(self, messages: list[str]) -> list[Cut]:
        """Returns the cuts in the journal, and counts its lines and events.

        It reads every line, so that damage is found before work begins.
        """
        cuts: list[Cut] = []
        for line in read_journal(
            self._run.journal, messages.append, history(self._run.journal, self._journal.driver)
        ):
            self._read[line.driver] += 1
            kind = line.raw.get("type")
            if kind not in OF_DRIVERS:
                self.past_events += 1
                if kind not in ("retried", "continued"):
                    continue
            entry = decode(line.raw)
            if isinstance(entry, Retried | Continued):
                self._note(entry)
            if isinstance(entry, Cut):
                cuts.append(entry)
            elif isinstance(entry, Suggested):
                self._suggestions += 1
            elif isinstance(entry, Sealed):
                self._sealed[entry.file] = entry.digest
            elif isinstance(entry, Started):
                self.ended = None
            elif isinstance(entry, Ended):
                self.ended = entry.status
        return cuts

    def _project(self, events: Sequence[JournalledEvent]) -> None:
        for event in events:
            if isinstance(event, Failed | Lost):
                self._tables.add_failure(event)
            elif isinstance(event, Retried | Continued):
                self._retractions.pass_by(event)

    def _write_record(self, record: Record) -> None:
        withdrawn = self._retractions.covers(record)
        if isinstance(record, Blocked) and not withdrawn:
            stored = read_pairs(self._run.folder)
            content = pairs_content(
                stored.pairs,
                stored.encoded,
                record.pairs,
                stored.left_out,
                stored.population,
                stored.continued,
            )
            self._digests.write(self._run.folder, "", PAIRS_FILE, content)
        self._tables.add_record(record, withdrawn)

    def _cut(self, table: str, rows: int, content: bytes) -> None:
        """Journals a cut and writes its part, which is named by the entries of this journal that it
        covers.
        """
        seq = self._journal.next_seq
        part = f"{self._journal.driver}-{self._cut_from.get(table, 0):08d}-{seq:08d}"
        self._cut_from[table] = seq + 1
        self._write_part(table, f"{part}{PART}", content, [Cut(table, part, rows)])

    def _write_part(
        self, table: str, name: str, content: bytes, before: Sequence[JournalEntry] = ()
    ) -> None:
        self._digests.write(
            self._run.tables.at(table), f"{DIGESTED}/{table}/", name, content, before
        )

    def _write_progress(self) -> None:
        if self._snapshot is not None:
            write_progress(self._run.folder, self._journal.driver, self._snapshot)
            self._counted = self._clock()

    def _append_checked(self, entries: Sequence[JournalEntry]) -> None:
        """Journals entries before a file is written, and checks that no later driver is there."""
        self._journal.append(entries)
        self._journal.check_latest()

    def _seal_pairs(self) -> None:
        """Journals the digest of pairs.parquet, which is written before there is a journal.

        Raises:
            StoreError: the file is neither what the journal nor what digests.json says, which may
                be ahead.
        """
        folder = self._run.folder
        if folder.exists(PAIRS_FILE):
            content = folder.read(PAIRS_FILE)
            if sha256(content) != self._sealed.get(PAIRS_FILE):
                read_checked(folder, PAIRS_FILE)
                self._digests.seal(PAIRS_FILE, content)
        self._digests.publish()

    def _tick(self) -> None:
        if self._to_replay:
            return
        self._tables.tick()
        self._store_observer_id()

    def _store_observer_id(self) -> None:
        """Writes the observer's run id to run.json as soon as there is one, for a resume after kill
        -9.
        """
        if self._observer is not None and self._observer.run_id:
            self._run.update(tracking_run_id=self._observer.run_id)


def _started(run: RunFolder) -> Started:
    at = datetime.now(UTC).isoformat()
    return Started(at, installed_versions(), run.info.evidence_version, run.info.model_digest)
