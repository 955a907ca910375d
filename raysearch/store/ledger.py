"""The ledger: events made durable before anybody thinks about them, notes projected to tables and
to the tracker.

Invariants:
- an event is in the journal when `events` returns; tables and tracker follow from the journal
  and can be lost;
- replay gives the journal's events in their order and batches; the same search then says the same
  notes, and the same rows fill the same parts, so that fresh runs and resumed ones are written by
  the same lines of code;
- what is tried again leaves the tables by a replay alone: its `Retried` is journalled before, so
  whoever dies meanwhile, the next replay does the same;
- of two drivers at once the earlier one writes nothing but its journal once the later one has
  begun, and ends;
- an accepted hypothesis has its row in `verdicts` once its holdout estimate is there.

Not for two threads at once.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain
from typing import Any, Protocol

from raysearch.core.events import Event, Failed, Fitted, JournalledEvent, Lost, Retried, Task
from raysearch.core.records import (
    Blocked,
    Concluded,
    Conflicted,
    Counted,
    Decided,
    Estimated,
    Proposed,
    Record,
    Snapshot,
    Trained,
    Weighed,
)
from raysearch.storage.digests import TABLES as DIGESTED
from raysearch.storage.digests import digest_of, read_checked
from raysearch.storage.parquet import PART
from raysearch.store.codec import (
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
from raysearch.store.file_digests import FileDigests
from raysearch.store.fit_store import FitStore
from raysearch.store.journal import Journal, history, read_journal
from raysearch.store.pairs_table import FILE as PAIRS_FILE
from raysearch.store.pairs_table import pairs_content, read_pairs
from raysearch.store.retractions import Retractions
from raysearch.store.run_folder import RunFolder, installed_versions
from raysearch.store.run_history import batches
from raysearch.store.schemas import TABLES
from raysearch.store.table_rows import (
    conflict_row,
    course_rows,
    dropped_rows,
    effect_rows,
    failure_row,
    fit_row,
    hypothesis_row,
    observation_row,
    seed_rows,
    set_rows,
    verdict_row,
)
from raysearch.store.tables import MAX_ROWS, MAX_SECONDS, TableWriter


class SearchObserver(Protocol):
    """Follows a search as it goes, and may fail without consequence."""

    @property
    def run_id(self) -> str | None:
        """The observer's own id of the run, once there is one."""
        ...

    def notes(self, notes: Sequence[Record], replayed: bool = False) -> None:
        """Takes records of the search; those that are `replayed` were taken before."""
        ...

    def snapshot(self, snapshot: Snapshot) -> None:
        """Takes where the search stands now; cheap, for it is called at every turn."""
        ...


class RunLedger:
    """The books of one driver on one run; hold `run.lock()` while it is open, and have
    pairs.parquet written before.

    `said`: one line for each truncated tail that the journal had. `past`: how many events it holds
    from drivers before. `ended`: the status with which the last driver closed it, None if it was
    killed (or the run is new).

    `suggested`: grows by what a user's proposer says; what the journal has not yet is added to it.

    Raises: StoreError if the journal is damaged or the folder cannot be written; TakenOverError if
    a later driver is there.
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
        self.past = 0
        self.ended: str | None = None
        self._journal = Journal(run.journal)
        self._journal.append(
            [_started(run)]
        )  # before those before are read: whichever driver is later, the other sees it
        self._read: Counter[str] = Counter()
        self._retry: Retried | None = None
        self._withdrawn = Retractions()
        self._sealed: dict[str, str] = {}
        self._suggested, self._suggestions = suggested, 0
        said: list[str] = []
        cuts = self._look_back(said)
        self.said = tuple(said)
        if self._read:
            self._journal.append([Follows(dict(self._read))])
        self._journal.check_latest()
        self._seals = FileDigests(
            run,
            self._sealed,
            [f"{DIGESTED}/{c.table}/{c.part}{PART}" for c in cuts],
            self._keep_entries,
            self._journal.check_latest,
        )
        self._seal()
        self._accepted: dict[str, Decided] = {}
        self._replaying = False
        self._to_replay = self.past > 0
        self._fits = FitStore(run.interventions)
        self._concluded: set[str] = set()
        self._cut_from: dict[str, int] = {}
        self._tables = {
            name: TableWriter(
                run.tables.at(name),
                schema,
                [c for c in cuts if c.table == name],
                self._cut,
                self._write_part,
                clock,
                max_rows,
                max_seconds,
            )
            for name, schema in TABLES.items()
        }

    def history(self) -> Iterator[tuple[JournalledEvent, ...]]:
        """What the drivers before were told, in batches; to look at only. Raises: StoreError for
        damage."""
        for entries in batches(read_journal(self._run.journal, until=self._read)):
            batch = tuple(e for e in entries if isinstance(e, JournalledEvent))
            if batch:
                yield batch

    def retry(self, retried: Retried) -> None:
        """Journals that failures of `history` are tried again; before `replay`, which ends with it
        and leaves their rows out.

        Raises: StoreError if the store refuses; TakenOverError.
        """
        assert self._to_replay, "what is written once is not taken back"
        self._journal.append([retried])
        self._journal.check_latest()  # a later driver may not have read of it, and writes the same parts otherwise
        self._withdrawn.ahead(retried)
        self._retry = retried

    def replay(self) -> Iterator[tuple[JournalledEvent, ...]]:
        """The events of the drivers before, in batches, for `search.tell`, whose notes belong to
        `notes` as ever.

        A new run has none. Must be used up before the first `events`. Raises: StoreError for
        damage.
        """
        assert not self._replaying, "one replay for each ledger"
        self._replaying = True
        for batch in chain(self.history(), [(self._retry,)] if self._retry else []):
            self._project(batch)
            yield batch
        self._replaying = self._to_replay = False

    def events(self, events: Sequence[Event]) -> None:
        """Makes the events durable, together. Raises: StoreError if the store refuses."""
        assert not self._to_replay, "replay the journal first: the search must know what was seen"
        for event in events:
            if isinstance(event, Fitted):
                self._fits.keep(event.tensors)
        self._journal.append(events)
        self._project(events)
        self._tick()

    def tensors(self, task: Task) -> Mapping[str, bytes]:
        """What a replica needs for `task`, by digest. Raises: StoreError where it is not there, or
        not what it was."""
        return {digest: self._fits.read(digest) for digest in task.digests}

    def notes(self, notes: Sequence[Record]) -> None:
        """Projects what the search says to the tables and the mirror. Raises: StoreError if the
        store refuses; TakenOverError."""
        if new := self._suggested[self._suggestions :]:
            self._keep_entries(new)
            self._suggestions += len(new)
        for note in notes:
            self._keep(note)
        if self._observer is not None and notes:
            self._observer.notes(notes, replayed=self._replaying)
        self._tick()

    def snapshot(self, snapshot: Snapshot) -> None:
        """Tells the mirror where the search stands; closes parts that are old. Cheap: call it at
        every turn."""
        if self._observer is not None and not self._to_replay:
            self._observer.snapshot(snapshot)
        self._tick()

    def close(self, status: str) -> None:
        """Writes what is left and journals the end. `status`: "done", or e.g. "interrupted",
        "failed": `resume` goes on.

        Raises: StoreError if the store refuses, or at "done" if a replay did not repeat the
        journal's rows; TakenOverError.
        """
        self._journal.check_latest()
        if status == "done":
            for note in self._accepted.values():
                self._tables["verdicts"].add(verdict_row(note, None))
            self._accepted.clear()
            for table in self._tables.values():
                table.check_whole()
            self._fits.keep_only(self._concluded)
        if not self._to_replay:
            for table in self._tables.values():
                table.flush()
        self._journal.append([Ended(status)])
        self._journal.close()
        self._remember_observer()

    def abandon(self) -> None:
        """Lets go of the journal and writes nothing more: after an error of the store, which
        `resume` will find as after a crash."""
        self._journal.close()

    def _look_back(self, said: list[str]) -> list[Cut]:
        """The cuts that the journal holds; counts its lines and events; reads every line, so that
        damage shows before work begins."""
        cuts: list[Cut] = []
        for line in read_journal(
            self._run.journal, said.append, history(self._run.journal, self._journal.driver)
        ):
            self._read[line.driver] += 1
            kind = line.raw.get("type")
            if kind not in OF_DRIVERS:
                self.past += 1
                if kind != "retried":
                    continue
            entry = decode(line.raw)
            if isinstance(entry, Retried):
                self._withdrawn.ahead(entry)
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
                self._tables["failures"].add(failure_row(event))
            elif isinstance(event, Retried):
                self._withdrawn.passed(event)

    def _keep(self, note: Record) -> None:
        withdrawn = self._withdrawn.has(note)
        match note:
            case Proposed():
                self._tables["hypotheses"].add(hypothesis_row(note))
            case Weighed():
                self._add("effects", effect_rows(note))
            case Counted():
                self._tables["observations"].add(observation_row(note))
            case Conflicted():
                self._tables["failures"].add(conflict_row(note))
            case Trained():
                self._add("fits", course_rows(note), withdrawn)
            case Concluded():
                self._concluded.add(note.event.fit)
                self._add("fits", [fit_row(note)])
            case Decided():
                self._add("sets", set_rows(note), withdrawn)
                if note.verdict == "accept":
                    self._accepted[note.hypothesis.id] = note
                else:
                    self._add("verdicts", [verdict_row(note, None)], withdrawn)
            case Estimated():
                name = note.hypothesis.id
                decided = self._accepted[name] if withdrawn else self._accepted.pop(name)
                self._add("verdicts", [verdict_row(decided, note)], withdrawn)
                self._add("fits", seed_rows(note), withdrawn)
            case Blocked():
                kept = read_pairs(self._run.folder)
                content = pairs_content(kept.pairs, kept.encoded, note.pairs, kept.left_out)
                self._seals.write(self._run.folder, "", PAIRS_FILE, content)
                self._add("dropped", dropped_rows(note))

    def _add(self, table: str, rows: Sequence[dict[str, Any]], withdrawn: bool = False) -> None:
        for row in rows:
            if withdrawn:
                self._tables[table].pass_over()
            else:
                self._tables[table].add(row)

    def _cut(self, table: str, rows: int, content: bytes) -> None:
        """Makes a cut durable, its part named by the entries of this driver's journal that it
        covers; then writes the part."""
        seq = self._journal.next_seq
        part = f"{self._journal.driver}-{self._cut_from.get(table, 0):08d}-{seq:08d}"
        self._cut_from[table] = seq + 1
        self._write_part(table, f"{part}{PART}", content, [Cut(table, part, rows)])

    def _write_part(
        self, table: str, name: str, content: bytes, before: Sequence[JournalEntry] = ()
    ) -> None:
        self._seals.write(self._run.tables.at(table), f"{DIGESTED}/{table}/", name, content, before)

    def _keep_entries(self, entries: Sequence[JournalEntry]) -> None:
        """Durable before a file is written; a later driver may not have read of them."""
        self._journal.append(entries)
        self._journal.check_latest()

    def _seal(self) -> None:
        """digests.json is as the journal. The pairs, written before there is a journal, are sealed.

        Raises: StoreError where pairs.parquet is neither what the journal says nor what
        digests.json says, which may be ahead of it.
        """
        folder = self._run.folder
        if folder.exists(PAIRS_FILE):
            content = folder.read(PAIRS_FILE)
            if digest_of(content) != self._sealed.get(PAIRS_FILE):
                read_checked(folder, PAIRS_FILE)
                self._seals.seal(PAIRS_FILE, content)
        self._seals.show()

    def _tick(self) -> None:
        if self._to_replay:
            return
        for table in self._tables.values():
            table.tick()
        self._remember_observer()

    def _remember_observer(self) -> None:
        """run.json names the tracker's run as soon as there is one, for a resume after kill -9."""
        if self._observer is not None and self._observer.run_id:
            self._run.update(tracking_run_id=self._observer.run_id)


def _started(run: RunFolder) -> Started:
    at = datetime.now(UTC).isoformat()
    return Started(at, installed_versions(), run.info.evidence_version, run.info.model_digest)
