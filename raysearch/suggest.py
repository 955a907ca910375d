"""A name that a job gives, held against those that there are."""

import difflib
from collections.abc import Sequence

from raysearch.errors import JobError


def check_known(key: str, kind: str, name: str, known: Sequence[str], of: str) -> None:
    """Raises: JobError for a name that is none of `known`, with the nearest that is."""
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise JobError(
            f"{key}: {name!r} is no {kind} of {of}; {hint}it has {', '.join(known) or 'none'}"
        )
