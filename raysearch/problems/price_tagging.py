"""Price tagging: is a price between a lower and an upper bound? The problem of Boundless DAS.

"Please say yes only if it costs between 2.00 and 5.00 dollars, otherwise no. 3.50 dollars:" -> "
yes"

It has two boundary variables (Wu et al., 2023, "Interpretability at Scale: Identifying Causal
Mechanisms in Alpaca", section 4); the prompt is our own, shorter.

Invariants: money is in whole cents; lower < upper; prices at a bound count as between; every span
covers exactly its own word; base and source are drawn independently, each below, between or above
its bounds with equal chance.
"""

import random
from functools import partial
from typing import Literal

from raysearch.causal import CausalModel, Input, Problem, Setting, Value, Variable
from raysearch.errors import CausalModelError
from raysearch.problems.option_checks import whole

POSITIONS = ("lower", "and", "upper", "dollars", "price", "unit")
"""The two bounds and the word after each, the price and the "dollars" after it; the ":" is the
built-in position "last".
"""

State = Literal["below", "between", "above"]
STATES: tuple[State, ...] = ("below", "between", "above")
"""The states of a price; the two boundary variables are never false at once."""


HIGHEST, STEP = 975, 25
"""The highest price and the step between prices, in cents: forty prices, each one token of the
model in jobs/models."""

MOST = 99_999
"""The highest price that a problem may have, in cents: the causal model lists the prices."""


def problem(highest: int = HIGHEST, step: int = STEP) -> Problem:
    """Returns the problem over the prices 0, `step`, ... `highest`, in cents.

    Variables: lower, upper, price; lower_bound_ok = lower <= price, upper_bound_ok = price <=
    upper; answer = both. A pair's set is the states of base and source, such as "below_above".

    Raises:
        CausalModelError: a number is below 1 or above MOST, or there are fewer than three prices.
    """
    highest = whole("price_tagging", "highest", highest, 1, MOST, HIGHEST)
    step = whole("price_tagging", "step", step, 1, MOST, STEP)
    prices = tuple(range(0, highest + 1, step))
    if len(prices) < 3:
        raise CausalModelError(
            f"price_tagging: highest {highest} and step {step} leave {len(prices)} prices; need at "
            f"least 3, such as highest {2 * step}"
        )
    return Problem(
        name="price_tagging",
        model=_causal_model(prices),
        sample=partial(_sample, prices),
        render=_render,
        answer=_write,
        positions=POSITIONS,
        set_of=_set_of,
    )


def dollars(cents: int) -> str:
    """Formats cents: 350 is "3.50"."""
    return f"{cents // 100}.{cents % 100:02d}"


def state_of(values: Setting) -> State:
    """Returns where the price of a setting is."""
    lower, upper, price = (_cents(values[name]) for name in ("lower", "upper", "price"))
    return "below" if price < lower else "above" if price > upper else "between"


def _causal_model(prices: tuple[int, ...]) -> CausalModel:
    inputs = [Variable(name, prices) for name in ("lower", "upper", "price")]
    found = [
        Variable(name, (False, True)) for name in ("lower_bound_ok", "upper_bound_ok", "answer")
    ]
    return CausalModel(
        variables=(*inputs, *found),
        parents={
            "lower_bound_ok": ("lower", "price"),
            "upper_bound_ok": ("price", "upper"),
            "answer": ("lower_bound_ok", "upper_bound_ok"),
        },
        mechanisms={"lower_bound_ok": _in_order, "upper_bound_ok": _in_order, "answer": _both},
        output="answer",
    )


def _in_order(smaller: int, larger: int) -> Value:
    return smaller <= larger


def _both(lower_ok: bool, upper_ok: bool) -> Value:
    return lower_ok and upper_ok


def _sample(prices: tuple[int, ...], rng: random.Random) -> tuple[Setting, Setting]:
    """Draws a base and a source, independently."""
    return _draw(prices, rng), _draw(prices, rng)


def _draw(prices: tuple[int, ...], rng: random.Random) -> Setting:
    """Draws a state, then bounds and price uniformly among those in that state."""
    state = rng.choice(STATES)
    while True:
        lower, upper = sorted(rng.sample(prices, 2))
        values: Setting = {"lower": lower, "upper": upper, "price": rng.choice(prices)}
        if state_of(values) == state:
            return values


def _render(values: Setting) -> Input:
    """Returns the text with the span of each of POSITIONS."""
    lower, upper, price = (dollars(_cents(values[name])) for name in ("lower", "upper", "price"))
    text, spans = "Please say yes only if it costs between", {}
    for name, word in (
        ("lower", lower),
        ("and", "and"),
        ("upper", upper),
        ("dollars", "dollars"),
        (None, ", otherwise no."),
        ("price", price),
        ("unit", "dollars"),
    ):
        start = len(text) + (name is not None)
        text += f" {word}" if name else word
        if name:
            spans[name] = (start, len(text))
    return Input(text + ":", spans, dict(values))


def _write(answer: Value) -> str:
    return " yes" if answer else " no"


def _set_of(base: Setting, source: Setting) -> str:
    return f"{state_of(base)}_{state_of(source)}"


def _cents(value: Value) -> int:
    assert isinstance(value, int)
    return value
