"""Addition of two two-digit numbers, asked one digit at a time: is there a carry variable?

"47+35=" -> "8" asks the tens of the sum; "47+35=8" -> "2" its ones; "47+35=" -> "82" the whole sum,
an answer of two tokens.

Invariants: every span covers exactly its own digit; the numbers are 10 to 49, so that no sum
exceeds 99 under any interchange, and the digit after "=" is always that of the tens; base and
source ask the same digit.
"""

import random
from functools import partial
from itertools import product

from raysearch.causal import CausalModel, Input, Problem, Setting, Value, Variable
from raysearch.errors import CausalModelError
from raysearch.problems.option_checks import share
from raysearch.problems.text_template import fill

POSITIONS = ("a_tens", "a_ones", "plus", "b_tens", "b_ones", "equals")
"""The characters of the text in their order; if the ones are asked, "last" is the tens after the
"=".
"""

ASKED = ("tens", "ones", "sum")
"""Part of the sum that is asked: the values of `asked`."""

ASKS_ONES = 0.5
"""Share of pairs that ask the ones; `carry` and `tens` change answers only where the tens are
asked.
"""

OTHER_CARRY = 0.5
"""Share of pairs whose source has the other carry."""

_TWO_TENS = tuple(product(range(1, 5), range(1, 5)))
_TWO_ONES = tuple(product(range(10), range(10)))


def problem(
    asks_ones: float = ASKS_ONES, other_carry: float = OTHER_CARRY, whole: bool = False
) -> Problem:
    """Returns the problem over all sums of two numbers from 10 to 49.

    Variables: the inputs `asked` and the four digits `a_tens`, `a_ones`, `b_tens`, `b_ones`;
    `carry` (0 or 1), `ones` and `tens` of the sum, `total` (the sum) and the output `digit`, the
    part that is asked. A pair's set names what is asked and whether the carries agree: "tens, other
    carry".

    Args:
        asks_ones: share in [0, 1] of pairs that ask the ones.
        other_carry: share in [0, 1] of pairs whose source has the other carry.
        whole: whether all pairs ask the sum; `digit` is then the whole sum, to be compared as a
            sequence.

    Raises:
        CausalModelError: a share is out of range.
    """
    if not isinstance(whole, bool):
        raise CausalModelError(
            f"two_digit_addition: whole: got {whole!r}; it must be true or false"
        )
    return Problem(
        name="two_digit_addition",
        model=_causal_model(),
        sample=partial(
            _sample,
            whole,
            share("two_digit_addition", "asks_ones", asks_ones, ASKS_ONES),
            share("two_digit_addition", "other_carry", other_carry, OTHER_CARRY),
        ),
        render=_render,
        answer=str,
        positions=POSITIONS,
        set_of=_set_of,
    )


def _causal_model() -> CausalModel:
    digits, tens = tuple(range(10)), tuple(range(1, 5))
    return CausalModel(
        variables=(
            Variable("asked", ASKED),
            *(Variable("a_tens", tens), Variable("a_ones", digits)),
            *(Variable("b_tens", tens), Variable("b_ones", digits)),
            *(
                Variable("carry", (0, 1)),
                Variable("ones", digits),
                Variable("tens", tuple(range(2, 10))),
            ),
            *(Variable("total", tuple(range(20, 100))), Variable("digit", tuple(range(100)))),
        ),
        parents={
            "carry": ("a_ones", "b_ones"),
            "ones": ("a_ones", "b_ones"),
            "tens": ("a_tens", "b_tens", "carry"),
            "total": ("tens", "ones"),
            "digit": ("total", "asked"),
        },
        mechanisms={
            "carry": _carry,
            "ones": _ones,
            "tens": _tens,
            "total": _total,
            "digit": _digit,
        },
        output="digit",
    )


def _carry(a_ones: int, b_ones: int) -> Value:
    return (a_ones + b_ones) // 10


def _ones(a_ones: int, b_ones: int) -> Value:
    return (a_ones + b_ones) % 10


def _tens(a_tens: int, b_tens: int, carry: int) -> Value:
    return a_tens + b_tens + carry


def _total(tens: int, ones: int) -> Value:
    return 10 * tens + ones


def _digit(total: int, asked: str) -> Value:
    return {"tens": total // 10, "ones": total % 10, "sum": total}[asked]


def _sample(
    whole: bool, asks_ones: float, other_carry: float, rng: random.Random
) -> tuple[Setting, Setting]:
    """Draws a base and a source that ask the same; tens of both and ones of the base are
    uniform.
    """
    digit = "ones" if rng.random() < asks_ones else "tens"
    asked = "sum" if whole else digit
    ones = rng.choice(_TWO_ONES)
    differ = rng.random() < other_carry
    others = [o for o in _TWO_ONES if (_carry(*o) != _carry(*ones)) == differ]
    return _sum(asked, rng.choice(_TWO_TENS), ones), _sum(
        asked, rng.choice(_TWO_TENS), rng.choice(others)
    )


def _sum(asked: str, tens: tuple[int, int], ones: tuple[int, int]) -> Setting:
    return {
        "asked": asked,
        "a_tens": tens[0],
        "a_ones": ones[0],
        "b_tens": tens[1],
        "b_ones": ones[1],
    }


def _render(values: Setting) -> Input:
    """Returns the text, such as "47+35=" or "47+35=8", with the span of each of POSITIONS."""
    digits = {name: str(values[name]) for name in ("a_tens", "a_ones", "b_tens", "b_ones")}
    given = str(values["tens"]) if values["asked"] == "ones" else ""
    frame = "{a_tens}{a_ones}{plus}{b_tens}{b_ones}{equals}" + given
    return Input(*fill(frame, {**digits, "plus": "+", "equals": "="}), dict(values))


def _set_of(base: Setting, source: Setting) -> str:
    same = _carry_of(base) == _carry_of(source)
    return f"{base['asked']}, {'same' if same else 'other'} carry"


def _carry_of(values: Setting) -> Value:
    a, b = values["a_ones"], values["b_ones"]
    assert isinstance(a, int)
    assert isinstance(b, int)
    return _carry(a, b)
