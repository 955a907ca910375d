"""The nearest of the names that there are, for an error about one that there is not."""

import difflib
from collections.abc import Iterable, Sequence

from raysearch.errors import JobError


def did_you_mean(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Returns "did you mean 'x'? " with the nearest of `known`, or "" where none is near."""
    near = difflib.get_close_matches(name, list(known), 1, cutoff)
    return f"did you mean {near[0]!r}? " if near else ""


def check_known(key: str, kind: str, name: str, known: Sequence[str], of: str) -> None:
    """Checks that `name` is one of `known`.

    Raises:
        JobError: it is not; the text suggests the nearest name.
    """
    if name not in known:
        raise JobError(
            f"{key}: {name!r} is no {kind} of {of}; {did_you_mean(name, known)}"
            f"it has {', '.join(known) or 'none'}"
        )
