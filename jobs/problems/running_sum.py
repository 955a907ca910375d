"""The running sum: digits 0, 1, 2 come one at a time; the answer is their sum modulo 3.

A network that reads them in order may keep the sum so far: sum2 (of the first two digits) to sum6,
the answer. Each is a variable, and so is each digit, digit1 to digit6.
"""

import random

import raysearch as rs
from raysearch.causal import Stimulus

STEPS, MODULUS = 6, 3
DIGITS = tuple(f"digit{i}" for i in range(1, STEPS + 1))
SUMS = tuple(f"sum{i}" for i in range(2, STEPS + 1))


def problem() -> rs.Problem:
    """Digits of base and source are uniform, and independent of each other."""
    values = tuple(range(MODULUS))
    return rs.Problem(
        name="running_sum",
        model=rs.CausalModel(
            variables=tuple(rs.Variable(name, values) for name in (*DIGITS, *SUMS)),
            parents=dict(zip(SUMS, zip((DIGITS[0], *SUMS), DIGITS[1:], strict=False), strict=True)),
            mechanisms=dict.fromkeys(SUMS, _plus),
            output=SUMS[-1],
        ),
        sample=lambda rng: (_digits(rng), _digits(rng)),
        render=_render,
        answer=str,
        positions=(),
    )


def _plus(before: int, digit: int) -> rs.Value:
    return (before + digit) % MODULUS


def _digits(rng: random.Random) -> rs.Setting:
    return {name: rng.randrange(MODULUS) for name in DIGITS}


def _render(values: rs.Setting) -> rs.Input:
    """Each digit is a row of a one in its place and zeros."""
    rows = [[float(values[name] == digit) for digit in range(MODULUS)] for name in DIGITS]
    return rs.Input(stimulus=Stimulus.of(rows), values=dict(values))
