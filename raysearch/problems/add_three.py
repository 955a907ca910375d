"""Addition of three numbers, "3+5+4=" -> "12": is the intermediate sum represented in the network?

Invariants: every span covers exactly its own word; base and source are drawn independently, each
number uniformly.
"""

import random
from collections.abc import Iterator
from functools import partial
from itertools import product

from raysearch.causal import CausalModel, Input, Problem, Setting, Value, Variable
from raysearch.problems.option_checks import whole

POSITIONS = ("a", "plus1", "b", "plus2", "c")
"""The words of the text in their order; the "=" after them is the built-in position "last"."""


MOST = 9_999
"""Largest `highest`: the causal model lists the values of its variables."""


def problem(highest: int = 9) -> Problem:
    """Returns the problem over the numbers 0 to `highest`, both included.

    Variables: a, b, c, sum_ab = a + b, total = sum_ab + c.

    Raises:
        CausalModelError: `highest` is no whole number from 1 to MOST.
    """
    highest = whole("add_three", "highest", highest, 1, MOST, 9)
    return Problem(
        name="add_three",
        model=_causal_model(highest),
        sample=partial(_sample, highest),
        render=_render,
        answer=str,
        positions=POSITIONS,
        domain=partial(_domain, highest),
    )


def _causal_model(highest: int) -> CausalModel:
    numbers = [Variable(name, tuple(range(highest + 1))) for name in ("a", "b", "c")]
    sums = [
        Variable("sum_ab", tuple(range(2 * highest + 1))),
        Variable("total", tuple(range(3 * highest + 1))),
    ]
    return CausalModel(
        variables=(*numbers, *sums),
        parents={"sum_ab": ("a", "b"), "total": ("sum_ab", "c")},
        mechanisms={"sum_ab": _add, "total": _add},
        output="total",
    )


def _add(x: int, y: int) -> Value:
    return x + y


def _sample(highest: int, rng: random.Random) -> tuple[Setting, Setting]:
    """Draws a base and a source, independently."""
    base = {name: rng.randint(0, highest) for name in ("a", "b", "c")}
    source = {name: rng.randint(0, highest) for name in ("a", "b", "c")}
    return base, source


def _domain(highest: int) -> Iterator[tuple[Setting, Setting]]:
    """Yields every base with every source."""
    numbers = tuple(product(range(highest + 1), repeat=3))
    for base, source in product(numbers, numbers):
        yield dict(zip("abc", base, strict=True)), dict(zip("abc", source, strict=True))


def _render(values: Setting) -> Input:
    """Returns the text, such as "3+5+4=", with the span of each of POSITIONS."""
    words = (str(values["a"]), "+", str(values["b"]), "+", str(values["c"]))
    spans, end = {}, 0
    for name, word in zip(POSITIONS, words, strict=True):
        spans[name] = (end, end + len(word))
        end += len(word)
    return Input("".join(words) + "=", spans, dict(values))
