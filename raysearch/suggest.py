"""Checks a name in a job against the names that exist, and suggests the nearest."""

import difflib
from collections.abc import Sequence

from raysearch.errors import JobError


def check_known(key: str, kind: str, name: str, known: Sequence[str], of: str) -> None:
    """Checks that `name` is one of `known`.

    Raises:
        JobError: it is not; the text suggests the nearest name.
    """
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise JobError(
            f"{key}: {name!r} is no {kind} of {of}; {hint}it has {', '.join(known) or 'none'}"
        )
