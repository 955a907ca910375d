"""Journal entries to plain JSON values and back: events, and the entries of the journal's own.

Invariants: decode(encode(x)) == x; tuples come back as tuples; what is not exactly of this form is
a StoreError, never a guess. Nothing is pickled, so that a journal of today is read by tomorrow's
version or refused in one line.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from raysearch.core.events import (
    Attributed,
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
    """From here on `file` (its path in the run folder) has the content of this SHA-256. Written
    down before the file is."""

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

_TYPES: dict[str, type] = {
    "started": Started,
    "follows": Follows,
    "screened": Screened,
    "attributed": Attributed,
    "fitted": Fitted,
    "measured": Measured,
    "lost": Lost,
    "failed": Failed,
    "retried": Retried,
    "cut": Cut,
    "sealed": Sealed,
    "suggested": Suggested,
    "ended": Ended,
}
OF_DRIVERS = frozenset({"started", "follows", "cut", "sealed", "suggested", "ended"})
"""Types of entries that are a driver's own, no event of the search."""
_OTHER_VERSION = "read it with the version that wrote it"
_NAMES = {cls: name for name, cls in _TYPES.items()}
_BESIDE = ("tensors",)
"""Fields that are kept beside the journal."""
_SPARSE = ("scores",)
"""Fields that are written only where there is something in them."""
_FIELDS = {cls: tuple(f.name for f in fields(cls) if f.name not in _BESIDE) for cls in _NAMES}


def encode(entry: JournalEntry) -> dict[str, Any]:
    """The entry as values that json can write; `type` says which it is."""
    raw: dict[str, Any] = {"type": _NAMES[type(entry)]}
    for name in _FIELDS[type(entry)]:
        value = getattr(entry, name)
        if value is None and name in _SPARSE:
            continue
        raw[name] = dict(value) if isinstance(value, Mapping) else value
    return raw


def decode(raw: Mapping[str, Any]) -> JournalEntry:
    """The entry that `encode` wrote. Raises: StoreError for an unknown type, a missing or unknown
    field, a wrong value."""
    kind = raw.get("type")
    cls = _TYPES.get(kind) if isinstance(kind, str) else None
    if cls is None:
        raise StoreError(
            f"journal entry of type {kind!r}: this version knows {', '.join(_TYPES)}; "
            f"{_OTHER_VERSION}"
        )
    decoders, required = _decoders(cls)
    missing = required - raw.keys()
    unknown = raw.keys() - decoders.keys() - {"type"}
    if missing or unknown:
        what = f"lacks {min(missing)!r}" if missing else f"has an unknown field {min(unknown)!r}"
        raise StoreError(f"journal entry {kind!r} {what}; {_OTHER_VERSION}")
    values = {}
    for name, value in raw.items():
        if name != "type":
            try:
                values[name] = decoders[name](value)
            except (TypeError, ValueError) as e:
                raise StoreError(f"journal entry {kind!r}: {name} is {value!r:.80}; {e}") from e
    entry: JournalEntry = cls(**values)
    return entry


Decoder = Callable[[Any], Any]


@cache
def _decoders(cls: type) -> tuple[dict[str, Decoder], frozenset[str]]:
    """One decoder for each field, and the names of those without a default."""
    hints = get_type_hints(cls)
    required = frozenset(
        f.name
        for f in fields(cls)
        if f.default is MISSING and f.default_factory is MISSING and f.name not in _BESIDE
    )
    return {name: _decoder(hints[name]) for name in _FIELDS[cls]}, required


def _decoder(hint: Any) -> Decoder:
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return _one_of(args)
    if origin is UnionType:
        inner = _decoder(next(a for a in args if a is not NoneType))
        return lambda value: None if value is None else inner(value)
    if origin is tuple:
        return _run_of(args[0]) if args[0] in (int, str) else _many(_decoder(args[0]))
    if origin is Mapping:
        return _mapping(_decoder(args[1]))
    return _plain({float: (float, int)}.get(hint, (hint,)), hint)


def _plain(allowed: tuple[type, ...], target: type) -> Decoder:
    def read(value: Any) -> Any:
        if type(value) not in allowed:
            raise TypeError(f"need {target.__name__}")
        return target(value)

    return read


def _one_of(allowed: Sequence[Any]) -> Decoder:
    def read(value: Any) -> Any:
        if value not in allowed:
            raise ValueError(f"need one of {', '.join(map(str, allowed))}")
        return value

    return read


def _run_of(kind: type) -> Decoder:
    """As `_many` of plain values of one kind, a look at all of them at once: most of a journal is
    runs of ids."""
    only = {kind}

    def read(value: Any) -> tuple[Any, ...]:
        if type(value) is not list:
            raise TypeError("need a list")
        if not only.issuperset(map(type, value)):
            raise TypeError(f"need {kind.__name__}")
        return tuple(value)

    return read


def _many(inner: Decoder) -> Decoder:
    def read(value: Any) -> tuple[Any, ...]:
        if type(value) is not list:
            raise TypeError("need a list")
        return tuple([inner(v) for v in value])

    return read


def _mapping(inner: Decoder) -> Decoder:
    def read(value: Any) -> dict[str, Any]:
        if type(value) is not dict:
            raise TypeError("need an object")
        return {k: inner(v) for k, v in value.items()}

    return read
