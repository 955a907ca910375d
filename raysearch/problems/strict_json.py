"""Reads JSON from files of pairs, strictly where Python's reader is lenient.

Invariants: duplicate keys, NaN, infinity and unpaired surrogates are refused, not interpreted.
"""

import json
import re
from collections.abc import Iterator, Sequence
from json.decoder import WHITESPACE  # type: ignore[attr-defined]
from typing import Any

_ESCAPED = re.compile(r"\\u[dD][89a-fA-F]")


def parse_json(line: str) -> Any:
    """Returns the value of a line.

    Raises:
        JSONDecodeError: it is no JSON.
        ValueError: it is JSON that is refused, with a text of one line.
    """
    try:
        value = _DECODER.decode(line)
    except RecursionError as e:
        raise ValueError("is nested too deep to be read; a pair has three or four levels") from e
    if _ESCAPED.search(line):  # in UTF-8, only an escape can be half a character
        _check_whole(value)
    return value


def array_values(text: str) -> Iterator[Any]:
    """Yields the entries of an array, one by one.

    Raises:
        JSONDecodeError: as in `parse_json`, and for anything after the array.
        ValueError: as in `parse_json`.
    """
    at = _after_blanks(text, 0)
    assert text[at] == "[", "an array is asked for"
    at = _after_blanks(text, at + 1)
    if text[at : at + 1] != "]":
        while True:
            try:
                value, at = _DECODER.raw_decode(text, at)
            except RecursionError as e:
                raise ValueError(
                    "is nested too deep to be read; a pair has three or four levels"
                ) from e
            _check_whole(value)
            yield value
            at = _after_blanks(text, at)
            if text[at : at + 1] == "]":
                break
            if text[at : at + 1] != ",":
                raise json.JSONDecodeError("Expecting ',' delimiter", text, at)
            at = _after_blanks(text, at + 1)
    if (end := _after_blanks(text, at + 1)) < len(text):
        raise json.JSONDecodeError("Extra data", text, end)


def _after_blanks(text: str, at: int) -> int:
    return int(WHITESPACE.match(text, at).end())


def _check_whole(value: Any) -> None:
    """Checks that a value has no unpaired surrogate.

    Raises:
        ValueError: it has.
    """
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as e:
        raise ValueError(
            f"holds half a character ({e.object[e.start]!r}); write the character itself, or both "
            f"of its escapes"
        ) from e


def _unique_keys(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [key for key, _ in pairs]
        twice = next(key for i, key in enumerate(names) if key in names[:i])
        raise ValueError(f"{twice[:60]}: is given twice; keep one")
    return found


def _refuse_constant(constant: str) -> Any:
    raise ValueError(f"holds {constant}, which is no number of JSON; leave it out")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)
