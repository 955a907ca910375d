"""JSON as a file of pairs may hold it: strict where Python's reader is lenient.

Invariants: a key given twice, NaN, infinity and half a character are refused, not taken for something.
"""

import json
from collections.abc import Sequence
from typing import Any


def json_of(line: str) -> Any:
    """The value of a line. Raises: JSONDecodeError for what is no JSON, ValueError (one line) for what is not to be relied on."""
    try:
        value = json.loads(line, object_pairs_hook=_once, parse_constant=_refused)
    except RecursionError as e:
        raise ValueError("is nested too deep to be read; a pair has three or four levels") from e
    if "\\u" in line:  # only an escape can bring half a character into a text in UTF-8
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as e:
            raise ValueError(
                f"holds half a character ({e.object[e.start]!r}); write the character itself, or both of its escapes"
            ) from e
    return value


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"{key[:60]}: is given twice; keep one")
        found[key] = value
    return found


def _refused(constant: str) -> Any:
    raise ValueError(f"holds {constant}, which is no number of JSON; leave it out")
