"""Names of positions: those that inputs declare, and forms that apply to any input.

    country              the tokens that every input has under this name
    country.last         its last token; country.first is its first
    country.align_right  as many tokens, counted from the end, as each input of the pair has
    token_3              the token of index 3, special tokens not counted
    token_*              every token, one by one

Invariants: a name that an input declares comes before any other reading of it; a name means the
same tokens in every job.
"""

import re
from collections.abc import Sequence
from typing import Literal, get_args

Take = Literal["first", "last", "align_right"]
TAKES: tuple[Take, ...] = get_args(Take)
"""The tokens of a position that can be taken."""

EVERY = "token_*"
"""Every token, each by itself."""

_TOKEN = re.compile(r"token_(0|[1-9]\d*)")


def token_name(index: int) -> str:
    """Returns the name of the token with that index."""
    return f"token_{index}"


def token_index(name: str) -> int | None:
    """Returns the index in the name of a single token; None for other names."""
    found = _TOKEN.fullmatch(name)
    return None if found is None else int(found[1])


def split_take(name: str, known: Sequence[str]) -> tuple[str, Take | None]:
    """Splits `name` into a position among `known` and the tokens taken of it; (name, None) if it
    takes none.
    """
    of, _, take = name.rpartition(".")
    for choice in TAKES:
        if name not in known and of in known and take == choice:
            return of, choice
    return name, None
