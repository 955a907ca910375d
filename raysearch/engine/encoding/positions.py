"""Where the positions of a pair are: token indices in its base and in each of its sources.

Invariants: at every position the base and each source have as many tokens; what is taken of a
position is a function of the pair alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from raysearch.causal import EVERY, LAST, Take, split_take, token_index, token_name
from raysearch.core.events import Encoded, Ids
from raysearch.errors import PositionError


@dataclass(frozen=True, slots=True)
class PairSide:
    """The base or a source. `known`: the positions of its own; `at`: the tokens of one of them;
    `own`: all its tokens but special ones and those of a chat template; `last`: the last token of
    all that the model is given."""

    name: str
    known: tuple[str, ...]
    at: Callable[[str], Ids]
    own: range
    last: int


def located(
    pair: int, sides: Sequence[PairSide], positions: Sequence[str]
) -> list[Mapping[str, Ids]]:
    """The tokens of `positions`, and of "last", in each of `sides`, the base first.

    Raises: PositionError, which names the pair, for a position not there, or of another number of
    tokens in base and source.
    """
    asked = [p for p in dict.fromkeys(positions) if p not in (EVERY, LAST)]
    if EVERY in positions:
        asked += [
            token_name(i) for i in range(_same_count(pair, sides)) if token_name(i) not in asked
        ]
    found: dict[str, list[Ids]] = {}
    for position in asked:
        found[position] = _taken(sides, position)
        _check_counts(pair, sides, position, found[position])
    found[LAST] = [(side.last,) for side in sides]
    return [{position: at[i] for position, at in found.items()} for i in range(len(sides))]


def every(encoded: Sequence[Encoded]) -> int:
    """How many tokens every input has, where each of them is a position. Raises: PositionError
    where they are not all as long."""
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
                f"has {len(base.own)}, the {side.name} "
                f"{len(side.own)}; name positions, or tokens of them such as "
                f"{{country: {{take: last}}}}"
            )
    return len(base.own)


def _taken(sides: Sequence[PairSide], position: str) -> list[Ids]:
    """Its tokens in each of the sides."""
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
                f"{len(theirs)} in the {side.name}; they must "
                f"be as many: say which to take, such as {{{position}: {{take: last}}}} (or first, "
                f"align_right)"
            )
