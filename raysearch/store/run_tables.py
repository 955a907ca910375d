"""The tables of a run, as the records of its search fill them.

Invariants: an accepted hypothesis has its row in `verdicts` once its holdout estimate is there; a
row that a later retry or continuation takes back is counted, and not written.
"""

from collections.abc import Mapping, Sequence, Set
from typing import Any

from raysearch.core.events import Failed, Lost
from raysearch.core.records import (
    Blocked,
    Concluded,
    Conflicted,
    Counted,
    Decided,
    Estimated,
    Proposed,
    Record,
    Selected,
    Trained,
    Weighed,
)
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
    selection_row,
    set_rows,
    verdict_row,
)
from raysearch.store.table_writer import TableWriter


class RunTables:
    """The writers of all tables of a run, by name."""

    def __init__(self, writers: Mapping[str, TableWriter]) -> None:
        self._writers = writers
        self._accepted: dict[str, Decided] = {}
        self._concluded: set[str] = set()

    def add_failure(self, event: Failed | Lost) -> None:
        """Adds what went wrong in a task."""
        self._add("failures", [failure_row(event)])

    def add_record(self, record: Record, withdrawn: bool) -> None:
        """Adds the rows of a record. `withdrawn`: a later retry or continuation takes them back.

        Raises:
            StoreError: the store refuses.
            TakenOverError: a later driver is there.
        """
        match record:
            case Proposed():
                self._add("hypotheses", [hypothesis_row(record)])
            case Weighed():
                self._add("effects", effect_rows(record))
            case Counted():
                self._add("observations", [observation_row(record)])
            case Conflicted():
                self._add("failures", [conflict_row(record)])
            case Trained():
                self._add("fits", course_rows(record), withdrawn)
            case Concluded():
                self._concluded.add(record.event.fit)
                self._add("fits", [fit_row(record)])
            case Decided():
                self._add("sets", set_rows(record), withdrawn)
                if record.verdict == "accept":
                    self._accepted[record.hypothesis.id] = record
                else:
                    self._add("verdicts", [verdict_row(record, None)], withdrawn)
            case Estimated():
                name = record.hypothesis.id
                decided = self._accepted[name] if withdrawn else self._accepted.pop(name)
                self._add("verdicts", [verdict_row(decided, record)], withdrawn)
                self._add("fits", seed_rows(record), withdrawn)
            case Selected():
                self._add("selection", [selection_row(record)], withdrawn)
            case Blocked():
                self._add("dropped", dropped_rows(record), withdrawn)

    def finish(self) -> Set[str]:
        """Adds the accepted hypotheses that have no estimate; returns the digests of the fits that
        were concluded.

        Raises:
            StoreError: a replay did not repeat the journal's rows.
        """
        self._add("verdicts", [verdict_row(record, None) for record in self._accepted.values()])
        self._accepted.clear()
        for writer in self._writers.values():
            writer.check_whole()
        return self._concluded

    def flush(self) -> None:
        """Writes what is left."""
        for writer in self._writers.values():
            writer.flush()

    def tick(self) -> None:
        """Writes what has waited for long."""
        for writer in self._writers.values():
            writer.tick()

    def _add(self, table: str, rows: Sequence[dict[str, Any]], withdrawn: bool = False) -> None:
        writer = self._writers[table]
        for row in rows:
            if withdrawn:
                writer.skip_row()
            else:
                writer.add(row)
