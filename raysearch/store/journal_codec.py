"""Journal entries to plain JSON values and back: events, and the entries of the journal's own.

Invariants: decode(encode(x)) == x; tuples come back as tuples; what is not exactly of this form is
a StoreError, never a guess. Nothing is pickled, so that a journal of today is read by tomorrow's
version or refused in one line.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from raysearch.core.codec import from_json_values
from raysearch.core.events import (
    Attributed,
    Continued,
    Failed,
    Fitted,
    JournalledEvent,
    Lost,
    Measured,
    Retried,
    Screened,
)
from raysearch.errors import StoreError


@dataclass(frozen=True, slots=True)
class Started:
    """A driver started. `at`: UTC, ISO 8601. `versions`: of the packages that it ran with."""

    at: str
    versions: Mapping[str, str]
    evidence_version: int
    model_digest: str | None = None


@dataclass(frozen=True, slots=True)
class Follows:
    """A driver goes on from what those before it had written: of each so many entries (`read`).
    What they write later does not count."""

    read: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Cut:
    """The next `rows` rows of `table` make the part named `part`. Counted in rows, not in time, so
    that a replay agrees."""

    table: str
    part: str
    rows: int


@dataclass(frozen=True, slots=True)
class Sealed:
    """A file (by its path in the run folder) has the content of this SHA-256 from here on.

    It is journalled before the file is written."""

    file: str
    digest: str


@dataclass(frozen=True, slots=True)
class Suggested:
    """The `hypotheses` (JSON of variable and intervention) that a proposer which is not ours
    proposed in one generation. `by`, `most`, `fit_pairs`: its name, its K, its fit pairs."""

    by: str
    most: int | None
    hypotheses: tuple[str, ...]
    fit_pairs: int = 0


@dataclass(frozen=True, slots=True)
class Ended:
    """A driver closed its books: "done", or why not."""

    status: str


JournalEntry = JournalledEvent | Started | Follows | Cut | Sealed | Suggested | Ended

_TYPES: dict[str, type[JournalEntry]] = {
    "started": Started,
    "follows": Follows,
    "screened": Screened,
    "attributed": Attributed,
    "fitted": Fitted,
    "measured": Measured,
    "lost": Lost,
    "failed": Failed,
    "retried": Retried,
    "continued": Continued,
    "cut": Cut,
    "sealed": Sealed,
    "suggested": Suggested,
    "ended": Ended,
}
OF_DRIVERS = frozenset({"started", "follows", "cut", "sealed", "suggested", "ended"})
"""Types of entries that are a driver's own, no event of the search."""
_OTHER_VERSION = "read it with the version that wrote it"
_NAMES = {cls: name for name, cls in _TYPES.items()}
_BESIDE: dict[type[JournalEntry], tuple[str, ...]] = {Fitted: ("tensors",), Measured: ("stopped",)}
"""Fields that are no part of the journal: tensors are stored beside it, and where a lease ended is
of use to a living search alone."""
_SPARSE = ("scores",)
"""Fields that are written only where there is something in them."""
_FIELDS = {
    cls: tuple(f.name for f in fields(cls) if f.name not in _BESIDE.get(cls, ())) for cls in _NAMES
}


def encode(entry: JournalEntry) -> dict[str, Any]:
    """Returns the entry as values that json can write; `type` says which it is."""
    raw: dict[str, Any] = {"type": _NAMES[type(entry)]}
    for name in _FIELDS[type(entry)]:
        value = getattr(entry, name)
        if value is None and name in _SPARSE:
            continue
        raw[name] = dict(value) if isinstance(value, Mapping) else value
    return raw


def decode(raw: Mapping[str, Any]) -> JournalEntry:
    """Returns the entry that `encode` wrote. Raises: StoreError for an unknown type, a missing or
    unknown field, a wrong value."""
    kind = raw.get("type")
    cls = _TYPES.get(kind) if isinstance(kind, str) else None
    if cls is None:
        raise StoreError(
            f"journal entry of type {kind!r}: this version knows {', '.join(_TYPES)}; "
            f"{_OTHER_VERSION}"
        )
    fields_of = {name: value for name, value in raw.items() if name != "type"}
    return from_json_values(cls, fields_of, f"journal entry {kind!r}", _OTHER_VERSION)
