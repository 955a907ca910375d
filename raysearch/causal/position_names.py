"""The names of positions: what the inputs call theirs, and what can be said of any.

    country              the tokens that every input has under this name
    country.last         the last of them; country.first: the first; country.align_right: as many, counted from the end, as each input of
                         the pair has
    token_3              the token of index 3, special tokens not counted
    token_*              every token, one by one

Invariants: a name of an input's own comes before what it could be read as; a name means the same
tokens in every job.
"""

import re
from collections.abc import Sequence
from typing import Literal, get_args

Take = Literal["first", "last", "align_right"]
TAKES: tuple[Take, ...] = get_args(Take)
"""Which of a position's tokens can be taken."""

EVERY = "token_*"
"""Every token, each by itself."""

_TOKEN = re.compile(r"token_(0|[1-9]\d*)")


def token(index: int) -> str:
    """The name of the token of that index."""
    return f"token_{index}"


def index_of(name: str) -> int | None:
    """The index in the name of a single token; None for other names."""
    found = _TOKEN.fullmatch(name)
    return None if found is None else int(found[1])


def taken(name: str, known: Sequence[str]) -> tuple[str, Take | None]:
    """The position among `known` that `name` is of, and which of its tokens are taken; the name
    itself and None where it takes none."""
    of, _, take = name.rpartition(".")
    for choice in TAKES:
        if name not in known and of in known and take == choice:
            return of, choice
    return name, None
