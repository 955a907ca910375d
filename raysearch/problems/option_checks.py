"""Checks the options of ready problems: a number, a share, a list of words, a choice of known
names.

Invariants: an error names the problem and the option, what it got and what to give.
"""

from collections.abc import Collection, Sequence
from difflib import get_close_matches
from typing import Any

from raysearch.core.pydantic_words import brief
from raysearch.errors import CausalModelError


def whole(problem: str, option: str, value: Any, least: int, most: int, usual: int) -> int:
    """Checks that `value` is a whole number from `least` to `most`.

    Raises:
        CausalModelError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise CausalModelError(
            f"{problem}: {option}: got {brief(value)}; it must be a whole number from {least} to "
            f"{most}, such as {usual}"
        )
    return value


def share(problem: str, option: str, value: Any, usual: float) -> float:
    """Checks that `value` is a number in [0, 1].

    Raises:
        CausalModelError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise CausalModelError(
            f"{problem}: {option}: got {value!r}; it must be a number from 0 to 1, such as "
            f"{usual:g}"
        )
    return value


def words(
    problem: str, option: str, value: Any, least: int, such_as: Sequence[str]
) -> tuple[str, ...]:
    """Checks that `value` lists at least `least` words without blanks; returns each once.

    Raises:
        CausalModelError: it does not.
    """
    given = _listed(problem, option, value, such_as)
    for word in given:
        if not isinstance(word, str) or not word or any(c.isspace() for c in word):
            raise CausalModelError(
                f"{problem}: {option}: {word!r} is no word; give text without blanks, as "
                f"{such_as[0]}"
            )
    found = tuple(dict.fromkeys(given))
    if len(found) < least:
        raise CausalModelError(
            f"{problem}: {option}: got {len(found)}; it needs at least {least}, such as "
            f"{_as_list(such_as)}"
        )
    return found


def chosen_names(
    problem: str, option: str, value: Any, known: Collection[str], least: int = 1
) -> tuple[str, ...]:
    """Checks that `value` lists at least `least` of the names in `known`; returns each once.

    Raises:
        CausalModelError: it does not.
    """
    given = _listed(problem, option, value, tuple(known)[: max(2, least)])
    for name in given:
        if not isinstance(name, str) or name not in known:
            near = get_close_matches(str(name), known, n=3) or tuple(known)[:3]
            raise CausalModelError(
                f"{problem}: {option}: {name!r} is not one of the {len(known)} known; it could be "
                f"{', '.join(near)}"
            )
    found = tuple(dict.fromkeys(given))
    if len(found) < least:
        some = _as_list(tuple(known)[: max(2, least)])
        raise CausalModelError(
            f"{problem}: {option}: got {len(found)}; it needs at least {least}, such as {some}"
        )
    return found


def _listed(problem: str, option: str, value: Any, such_as: Sequence[str]) -> Sequence[Any]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise CausalModelError(
            f"{problem}: {option}: got {value!r}; it must be a list, such as {_as_list(such_as)}"
        )
    return value


def _as_list(names: Sequence[str]) -> str:
    return f"[{', '.join(names)}]"
