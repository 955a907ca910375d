"""Frozen dataclasses from plain JSON values: journal entries, the cards of saved interventions, the
facts of a model.

Invariants: a value of another type is refused in one line that names its key, never converted, so
that what is read is exactly what was written; nothing is pickled.
"""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, get_args, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, PydanticSerializationError, from_json, to_json

from raysearch.core.pydantic_words import brief, in_words
from raysearch.errors import StoreError
from raysearch.suggest import did_you_mean

T = TypeVar("T")


def to_json_values(value: Any) -> Any:
    """Returns a dataclass as the plain values that a JSON file of it holds: lists, no tuples."""
    return from_json(to_json(value))


def from_json_values(cls: type[T], raw: Any, where: str, way_out: str = "") -> T:
    """Returns the `cls` of plain JSON values; `where` names them in errors, and `way_out` ends
    these. Raises: StoreError."""
    try:
        # as JSON, in which strict checking takes a list for a tuple and an object for a dataclass
        adapter = _reader(cls)  # type: ignore[arg-type]
        found: list[T] = adapter.validate_json(b"[%b]" % to_json(raw))
    except ValidationError as e:
        why = _in_a_line(e.errors()[0], cls)
        raise StoreError(f"{where}: {why}{way_out and f' ({way_out})'}") from e
    except PydanticSerializationError as e:
        raise StoreError(f"{where}: has what no JSON file in UTF-8 holds ({e})") from e
    return found[0]


@cache
def _reader(cls: Any) -> TypeAdapter[Any]:
    """Returns the reader of a list of `cls`: only what holds a dataclass may have a
    configuration."""
    return TypeAdapter(list[cls], config=ConfigDict(strict=True, extra="forbid"))


def _in_a_line(error: ErrorDetails, cls: type) -> str:
    keys = error["loc"][1:]
    path = "".join(f"[{k}]" if isinstance(k, int) else f".{k}" for k in keys).lstrip(".")
    if error["type"] == "unexpected_keyword_argument":
        known = _names_at(cls, keys[:-1])
        hint = did_you_mean(str(keys[-1]), known) or f"it may have {', '.join(known)}"
        return f"{path}: unknown key; {hint.strip()}"
    if error["type"] == "missing":
        return f"{path}: missing; it is needed"
    return f"{path or 'this'}: {in_words(error)} (got {brief(error['input'])})"


def _names_at(cls: type, keys: tuple[int | str, ...]) -> list[str]:
    """Returns the names of the fields of the dataclass at a key path."""
    for key in keys:
        if isinstance(key, str):
            cls = next(_dataclasses_in(get_type_hints(cls)[key]))
    return [field.name for field in fields(cls)]


def _dataclasses_in(hint: Any) -> Iterator[type]:
    if is_dataclass(hint):
        yield hint  # type: ignore[misc]
    for part in get_args(hint):
        yield from _dataclasses_in(part)
