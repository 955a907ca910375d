"""A position as a job writes it: a name, tokens to take of a named one, or tokens by their index.

Invariants: what takes tokens of a position has one form, the name that the tables have
(`country.last`).
"""

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator, WithJsonSchema

from raysearch.causal import LAST, TAKES, token_index

TokenIndices = dict[str, dict[str, tuple[int, ...]]]
"""{name: {tokens: indices}}"""

_WOULD_DO = (
    "should be a name, {country: {take: last}} (or first, align_right), or {x: {tokens: [12, 13]}}"
)


def position_name(position: str | TokenIndices) -> str:
    """Returns the name of a position in tables."""
    return position if isinstance(position, str) else next(iter(position))


def tokens_of(position: str | TokenIndices) -> tuple[int, ...] | None:
    """Returns the tokens that the job itself gives a position; None where it gives none."""
    return None if isinstance(position, str) else next(iter(position.values()))["tokens"]


def declared_positions(positions: Iterable[str | TokenIndices]) -> dict[str, tuple[int, ...]]:
    """Returns the tokens of the positions that have them by index. Raises: ValueError where one
    name is given others."""
    found: dict[str, tuple[int, ...]] = {}
    for position in positions:
        name, tokens = position_name(position), tokens_of(position)
        if tokens is not None and found.setdefault(name, tokens) != tokens:
            raise ValueError(
                f"position {name!r} is tokens {list(found[name])} and {list(tokens)}; give it one "
                f"meaning"
            )
    return found


def _in_one_form(raw: Any) -> str | TokenIndices:
    if isinstance(raw, str):
        return raw
    if not isinstance(raw, dict) or len(raw) != 1:
        raise ValueError(f"{_WOULD_DO} (got {raw!r:.60})")
    ((name, rest),) = raw.items()
    if not isinstance(name, str) or not isinstance(rest, dict) or len(rest) != 1:
        raise ValueError(f"{_WOULD_DO} (got {raw!r:.60})")
    if "take" in rest:
        if rest["take"] not in TAKES:
            raise ValueError(f"take should be {', '.join(TAKES)} (got {rest['take']!r:.60})")
        return f"{name}.{rest['take']}"
    if "tokens" not in rest:
        raise ValueError(f"{_WOULD_DO} (got {raw!r:.60})")
    if name == LAST or token_index(name) is not None:
        raise ValueError(f"{name!r} has its tokens already; name these otherwise")
    return {name: {"tokens": _indices(rest["tokens"])}}


def _indices(raw: Any) -> tuple[int, ...]:
    found = tuple(raw) if isinstance(raw, list | tuple) else ()
    if not found or any(isinstance(i, bool) or not isinstance(i, int) or i < 0 for i in found):
        raise ValueError(f"tokens should be indices from 0, such as [12, 13] (got {raw!r:.60})")
    if len(set(found)) < len(found):
        raise ValueError(
            f"tokens names {next(i for i in found if found.count(i) > 1)} twice; name each once"
        )
    return found


def _as_written(position: str | TokenIndices) -> Any:
    tokens = tokens_of(position)
    return position if tokens is None else {position_name(position): {"tokens": list(tokens)}}


_INDICES = {
    "type": "array",
    "items": {"type": "integer", "minimum": 0},
    "minItems": 1,
    "uniqueItems": True,
}
_SAID = [
    {"type": "object", "properties": {key: value}, "required": [key], "additionalProperties": False}
    for key, value in (("take", {"enum": [*TAKES]}), ("tokens", _INDICES))
]

PositionKey = Annotated[
    str | TokenIndices,
    PlainValidator(_in_one_form),
    PlainSerializer(_as_written),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {
                    "type": "object",
                    "additionalProperties": {"anyOf": _SAID},
                    "minProperties": 1,
                    "maxProperties": 1,
                },
            ]
        }
    ),
]
