"""Retractions: the table rows that a later retry in the journal takes back.

Invariants: a row is taken back if a `Retried` event that names it comes after it in the journal,
however often its hypothesis was retried; so a replay, which has read all of the journal before it
starts, writes none of these rows, and a table never has two verdicts of a hypothesis.
"""

from collections import Counter

from raysearch.core.events import Retried
from raysearch.core.records import Decided, Estimated, Record, Selected, Trained


class Retractions:
    """Counts the retries that are still to come while the journal is replayed."""

    def __init__(self) -> None:
        self._hypotheses: Counter[str] = Counter()
        self._fits: Counter[str] = Counter()
        self._estimates: Counter[str] = Counter()
        self._retries = 0

    def add_retry(self, retried: Retried) -> None:
        """Adds a retry that is in the journal."""
        self._hypotheses.update(retried.hypotheses)
        self._fits.update(retried.fits)
        self._estimates.update(retried.estimates)
        self._retries += 1

    def pass_retry(self, retried: Retried) -> None:
        """Removes a retry that the replay has reached: later records are not taken back by it."""
        self._hypotheses.subtract(retried.hypotheses)
        self._fits.subtract(retried.fits)
        self._estimates.subtract(retried.estimates)
        self._retries -= 1

    def covers(self, record: Record) -> bool:
        """Whether the record's rows are taken back: a failure, a failed estimate, the course of a
        failed fit, or what the search as a whole had accepted.
        """
        match record:
            case Decided():
                return record.verdict == "failed" and self._hypotheses[record.hypothesis.id] > 0
            case Estimated():
                return self._estimates[record.hypothesis.id] > 0
            case Trained():
                return self._fits[record.event.intervention] > 0
            case Selected():
                return self._retries > 0
            case _:
                return False
