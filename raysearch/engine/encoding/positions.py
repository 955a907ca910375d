"""Positions of a pair as token indices in its base and in each source.

Invariants: at every position the base and each source have equally many tokens; the tokens of a
position are a function of the pair alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from raysearch.causal import EVERY, LAST, Take, split_take, token_index, token_name
from raysearch.core.events import Encoded, Ids
from raysearch.errors import PositionError


@dataclass(frozen=True, slots=True)
class PairSide:
    """The base or a source. `known`: its own positions; `at`: returns the tokens of one of them;
    `own`: its tokens without special ones and those of a chat template; `last`: the last token
    of the whole input."""

    name: str
    known: tuple[str, ...]
    at: Callable[[str], Ids]
    own: range
    last: int


def locate(
    pair: int, sides: Sequence[PairSide], positions: Sequence[str]
) -> list[Mapping[str, Ids]]:
    """Returns the tokens of `positions`, and of "last", in each of `sides`, the base first.

    Raises: PositionError, which names the pair, for a position that does not exist or has different
    numbers of tokens in base and source.
    """
    requested = [p for p in dict.fromkeys(positions) if p not in (EVERY, LAST)]
    if EVERY in positions:
        requested += [
            token_name(i) for i in range(_same_count(pair, sides)) if token_name(i) not in requested
        ]
    found: dict[str, list[Ids]] = {}
    for position in requested:
        found[position] = _taken(sides, position)
        _check_counts(pair, sides, position, found[position])
    found[LAST] = [(side.last,) for side in sides]
    return [{position: at[i] for position, at in found.items()} for i in range(len(sides))]


def common_length(encoded: Sequence[Encoded]) -> int:
    """Returns the number of tokens of every input, if each of them is a position. Raises:
    PositionError if lengths differ."""
    first, counts = (
        encoded[0],
        [sum(token_index(name) is not None for name in e.base_positions) for e in encoded],
    )
    for e, count in zip(encoded, counts, strict=True):
        if count != counts[0]:
            raise PositionError(
                f"pair {e.index}: positions: all needs inputs of as many tokens, and it has "
                f"{count}, pair {first.index} {counts[0]}; "
                "name positions, or tokens of them such as {country: {take: last}}"
            )
    return counts[0]


def _same_count(pair: int, sides: Sequence[PairSide]) -> int:
    base = sides[0]
    for side in sides[1:]:
        if len(side.own) != len(base.own):
            raise PositionError(
                f"pair {pair}: positions: all needs inputs of as many tokens, and the {base.name} "
                f"has {len(base.own)}, the {side.name} {len(side.own)}; name positions, or tokens "
                "of them such as {country: {take: last}}"
            )
    return len(base.own)


def _taken(sides: Sequence[PairSide], position: str) -> list[Ids]:
    """Returns the tokens of a position in each side."""
    whole, takes = [], []
    for side in sides:
        name, take = split_take(position, (*side.known, LAST))
        whole.append((side.last,) if name == LAST else side.at(name))
        takes.append(take)
    fewest = min(map(len, whole))
    return [_part(at, take, fewest) for at, take in zip(whole, takes, strict=True)]


def _part(at: Ids, take: Take | None, fewest: int) -> Ids:
    if take is None:
        return at
    return {"first": at[:1], "last": at[-1:], "align_right": at[len(at) - fewest :]}[take]


def _check_counts(pair: int, sides: Sequence[PairSide], position: str, at: Sequence[Ids]) -> None:
    for side, theirs in zip(sides[1:], at[1:], strict=True):
        if len(theirs) != len(at[0]):
            raise PositionError(
                f"pair {pair}: position {position!r} has {len(at[0])} tokens in the base and "
                f"{len(theirs)} in the {side.name}; they must be as many: say which to take, such "
                f"as {{{position}: {{take: last}}}} (or first, align_right)"
            )
