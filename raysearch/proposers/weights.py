"""Weights: the share of the chance of a false accept that each hypothesis of a fixed family spends.

Effects on fit pairs say where the truth is likely; a hypothesis with a larger effect gets a larger
share, and needs fewer pairs to be accepted. All are tested. Invariants: a function of the job and
of the effects alone, so that weights are fixed before the first test pair; they sum to 1 at most;
none is below 1/(e K), so none costs more than 1 nat.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

from raysearch.core.hypothesis import Hypothesis
from raysearch.proposers.base import Effects, whole_vectors

WEIGHTED_FROM = 300
"""Hypotheses from which on effects cost less than what they save."""
PAIRS = 32
"""Fit pairs that effects are computed on for weights alone."""
STEPS = 8
"""Steps of a weight from one to the next, in a factor of 2; weights are rounded down to them, so
that few thresholds are in use."""


def weights(family: Iterable[Hypothesis], effects: Effects) -> dict[str, float]:
    """Returns the weight in (0, 1) of each hypothesis by its id; empty if effects tell none
    apart."""
    found = {h.id: (h.variable, _effect_of(h, effects)) for h in family}
    return dict(zip(found, weigh(list(found.values())), strict=False))


def weigh(effects: Sequence[tuple[str, float]]) -> list[float]:
    """Returns the weight of each hypothesis, given its variable and its effect, from 0; empty if no
    effect is above 0.

    A share of 1/e is even. The rest is divided among variables by their numbers of hypotheses, and
    within a variable one half in proportion to the effect, the other to its cube.
    """
    by_variable: dict[str, list[float]] = defaultdict(list)
    for variable, effect in effects:
        by_variable[variable].append(effect)
    if not any(map(any, by_variable.values())):
        return []
    sums = {v: (math.fsum(of), math.fsum(e**3 for e in of)) for v, of in by_variable.items()}
    least = 1 / (math.e * len(effects))

    def weight(variable: str, effect: float) -> float:
        first, third = sums[variable]
        each = 1 / len(by_variable[variable])
        share = (effect / first + effect**3 / third) / 2 if first else each
        over = share / each * (math.e - 1)
        steps = math.floor(STEPS * math.log2(1 + over) + 1e-9)
        return least * math.pow(2, steps / STEPS)

    return [weight(variable, effect) for variable, effect in effects]


def _effect_of(hypothesis: Hypothesis, effects: Effects) -> float:
    """Returns the sum of the effects of a hypothesis's places; 0 if one is not known."""
    of = effects.get(hypothesis.variable, {})
    known = [of.get(unit) for unit in whole_vectors(hypothesis.intervention)]
    return 0.0 if None in known else math.fsum(filter(None, known))
