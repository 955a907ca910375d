"""Weights: the share of the chance of a false accept that each hypothesis of a fixed family spends.

Effects on fit pairs say where the truth is likely; a hypothesis with a larger effect gets a larger
share, and needs fewer pairs to be accepted. All are tested. Invariants: a function of the job and
of the effects alone, so that weights are fixed before the first test pair; they sum to 1 at most;
none is below 1/(e K), so none costs more than 1 nat.
"""

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping

from raysearch.core.hypothesis import Hypothesis
from raysearch.proposers.base import Effects, whole_vectors

WEIGHTED_FROM = 300
"""Hypotheses from which on effects cost less than what they save."""
PAIRS = 32
"""Fit pairs that effects are computed on for weights alone."""
STEPS = 4
"""Steps of a weight from one to the next, in a factor of 2; weights are rounded down to them, so that
few thresholds are in use."""


def weights(family: Iterable[Hypothesis], effects: Effects) -> dict[str, float]:
    """Returns the weight in (0, 1) of each hypothesis by its id; empty if effects tell none apart.

    A share of 1/e is even. The rest is divided among variables by their numbers of hypotheses, and
    within a variable one half in proportion to 1/rank, the other to the square of the effect.
    """
    found = {h.id: (h.variable, effect_of(h, effects)) for h in family}
    by_variable: dict[str, dict[str, float]] = defaultdict(dict)
    for name, (variable, effect) in found.items():
        by_variable[variable][name] = effect
    if not any(any(of.values()) for of in by_variable.values()):
        return {}
    least = 1 / (math.e * len(found))
    made = {}
    for of in by_variable.values():
        shared = (1 - 1 / math.e) * len(of) / len(found)
        for name, share in _shares(of).items():
            made[name] = _rounded_down(least + shared * share, least)
    return made


def effect_of(hypothesis: Hypothesis, effects: Effects) -> float:
    """Returns the sum of the effects of a hypothesis's places; 0 if one is not known."""
    of = effects.get(hypothesis.variable, {})
    known = [of.get(unit) for unit in whole_vectors(hypothesis.intervention)]
    return 0.0 if None in known else math.fsum(filter(None, known))


def _shares(effects: Mapping[str, float]) -> dict[str, float]:
    """Returns the shares of one variable's hypotheses, which sum to 1; even without any effect.
    Equal effects have equal shares.
    """
    squares = {name: effect * effect for name, effect in effects.items()}
    total = math.fsum(squares.values())
    if not total:
        return dict.fromkeys(effects, 1 / len(effects))
    ranks = _ranks(effects)
    inverse = math.fsum(1 / rank for rank in ranks.values())
    return {n: (1 / ranks[n] / inverse + squares[n] / total) / 2 for n in effects}


def _ranks(effects: Mapping[str, float]) -> dict[str, int]:
    """Returns the rank of each effect from 1, the largest; equal ones share the last of theirs."""
    ordered = sorted(effects.values())
    return {name: len(ordered) - bisect_left(ordered, effect) for name, effect in effects.items()}


def _rounded_down(weight: float, least: float) -> float:
    steps = math.floor(STEPS * math.log2(weight / least) + 1e-9)
    return float(least * 2 ** (steps / STEPS))
