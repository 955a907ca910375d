"""Withdrawn: which rows of the tables a later retry of the journal has taken back.

Invariants: a row is withdrawn where a `Retried` that names it stands after it in the journal,
however often its hypothesis was tried again; so a replay, which has read all of the journal before
it begins, writes none of these rows, and one table never has two verdicts of a hypothesis.
"""

from collections import Counter

from raysearch.core.events import Retried
from raysearch.core.records import Decided, Estimated, Record, Trained


class Retractions:
    """Retries in, as the journal is read (`ahead`); out, as it is replayed (`passed`)."""

    def __init__(self) -> None:
        self._hypotheses: Counter[str] = Counter()
        self._fits: Counter[str] = Counter()
        self._estimates: Counter[str] = Counter()

    def ahead(self, retried: Retried) -> None:
        """The journal has it."""
        self._hypotheses.update(retried.hypotheses)
        self._fits.update(retried.fits)
        self._estimates.update(retried.estimates)

    def passed(self, retried: Retried) -> None:
        """What is noted from here on comes after it."""
        self._hypotheses.subtract(retried.hypotheses)
        self._fits.subtract(retried.fits)
        self._estimates.subtract(retried.estimates)

    def has(self, note: Record) -> bool:
        """Whether the note's rows are taken back: of a failure, of an estimate that broke off, of
        the course of a fit that came to nothing and begins anew."""
        match note:
            case Decided():
                return note.verdict == "failed" and self._hypotheses[note.hypothesis.id] > 0
            case Estimated():
                return self._estimates[note.hypothesis.id] > 0
            case Trained():
                return self._fits[note.event.intervention] > 0
            case _:
                return False
