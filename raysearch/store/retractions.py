"""Retractions: the table rows that a later retry or continuation in the journal takes back.

Invariants: a row is taken back if a `Retried` or `Continued` event that names it comes after it in
the journal, however often its hypothesis was; so a replay, which has read all of the journal before
it starts, writes none of these rows, and a table never has two verdicts of a hypothesis.
"""

from collections import Counter

from raysearch.core.events import Continued, Retried
from raysearch.core.records import Blocked, Decided, Estimated, Record, Selected, Trained


class Retractions:
    """Counts the retries and continuations that are still to come while the journal is replayed."""

    def __init__(self) -> None:
        self._to_come: Counter[tuple[str, str]] = Counter()

    def add(self, event: Retried | Continued) -> None:
        """Adds one that is in the journal."""
        self._to_come.update(_taken_back(event))

    def pass_by(self, event: Retried | Continued) -> None:
        """Removes one that the replay has reached: later records are not taken back by it."""
        self._to_come.subtract(_taken_back(event))

    def covers(self, record: Record) -> bool:
        """Says whether the record's rows are taken back: a failure, a failed estimate, the course
        of a failed fit, an undecided verdict, the counts of pairs before more of them were
        screened, or what the search as a whole had accepted."""
        match record:
            case Decided():
                return self._to_come[record.verdict, record.hypothesis.id] > 0
            case Estimated():
                return self._to_come["estimate", record.hypothesis.id] > 0
            case Trained():
                return self._to_come["fit", record.event.intervention] > 0
            case Blocked():
                return self._to_come["pairs", ""] > 0
            case Selected():
                return self._to_come["selection", ""] > 0
            case _:
                return False


def _taken_back(event: Retried | Continued) -> list[tuple[str, str]]:
    if isinstance(event, Continued):
        return [
            ("selection", ""),
            ("pairs", ""),
            *(("undecided", name) for name in event.hypotheses),
        ]
    again = [("selection", "")] * bool(event.hypotheses)  # estimates alone leave it as it is
    return [
        *again,
        *(("failed", name) for name in event.hypotheses),
        *(("fit", name) for name in event.fits),
        *(("estimate", name) for name in event.estimates),
    ]
