"""Draws test pairs for a claim about new values: values matched into pairs that share none.

Pairs share values, so V values are not V independent observations. The held-out values are put in a
random order and cut into blocks; the values of a block are matched into disjoint pairs, several
times. Pairs of one matching are independent draws if the values are, and so are blocks; matchings
of one block are averaged (`stats/betting_test.py`).

Invariants: the same seed draws the same pairs; no two pairs of a matching share a value, nor do
pairs of two blocks; matchings are fixed before anything is drawn, and know no outcome.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from raysearch.causal.make_pair import errors_of, make_pair
from raysearch.causal.model import Setting, Value
from raysearch.causal.pair_drawing import draw_apart
from raysearch.causal.pair_sample import LeftOutCount, PairSample
from raysearch.causal.pairs import Pair, Split
from raysearch.causal.problem import Problem
from raysearch.causal.splits import split_of_value
from raysearch.errors import PairsError

MOST_DRAWS = 300_000
"""Draws in all that are made in search of the matched pairs: some seconds."""
DRAWS_EACH = 40
"""Draws for each two values of the domain: of a sampler that draws all alike, all are found."""

Matching = tuple[int, str, str]
"""(number of the matching, value of the base, value of the source)."""


def draw_matched(
    problem: Problem,
    variables: tuple[str, ...],
    counts: Mapping[Split, int],
    seed: int,
    variable: str,
    ends: Callable[[int], Sequence[int]],
    matchings: int,
) -> PairSample:
    """Draws test pairs from `matchings` matchings of each block of the values of `variable` that
    are held out, at most `counts["test"]`; other splits as with pairs.disjoint.

    Args:
        ends: for the number of disjoint pairs, how many of them each block ends at.

    Raises:
        PairsError: the domain of the variable is not declared, or no matched pair is ever drawn.
    """
    apart = draw_apart(problem, variables, counts, seed, (variable,), skipped="test")
    domain = next(v.domain for v in problem.model.variables if v.name == variable)
    if domain is None:
        raise PairsError(
            f"test.generalise: values matches the values of {variable!r}, and problem "
            f"{problem.name!r} does not list them; give its Variable a domain"
        )
    rng = random.Random(f"{seed}.matchings.{problem.name}")
    values = list(dict.fromkeys(map(repr, domain)))
    held = [v for v in values if split_of_value(variable, v, counts, seed) == "test"]
    rng.shuffle(held)
    wanted = matched_values(held, ends(len(held) // 2), matchings, rng)[: counts["test"]]
    budget = min(MOST_DRAWS, DRAWS_EACH * len(values) ** 2)
    found, left = _fill(problem, variables, variable, wanted, budget, rng)
    if not found:
        raise PairsError(
            f"problem {problem.name!r}: none of {len(wanted)} pairs of {len(held)} held-out values "
            f"of {variable!r} came in {budget} draws; its sampler must join any two values, and "
            f"pairs.disjoint must hold out some for the test (ask for fewer fit and holdout pairs)"
        )
    pairs = [*found, *apart.pairs]
    return PairSample(
        tuple(replace(p, index=i) for i, p in enumerate(pairs)),
        (*apart.left_out, *left),
        len(held),
    )


def _value(problem: Problem, setting: Setting, variable: str) -> Value:
    """Returns the value of a variable; the causal model is run only where the setting lacks it."""
    return setting[variable] if variable in setting else problem.model.run(setting)[variable]


def matched_values(
    values: Sequence[str], ends: Sequence[int], matchings: int, rng: random.Random
) -> list[Matching]:
    """Returns the pairs of all matchings, block by block."""
    found: list[Matching] = []
    start = 0
    for block, end in enumerate(ends):
        for m in range(block * matchings, (block + 1) * matchings):
            of = rng.sample(values[2 * start : 2 * end], 2 * (end - start))
            found += [(m, a, b) for a, b in zip(of[::2], of[1::2], strict=True)]
        start = end
    return found


def _fill(
    problem: Problem,
    variables: tuple[str, ...],
    variable: str,
    wanted: Sequence[Matching],
    draws: int,
    rng: random.Random,
) -> tuple[list[Pair], list[LeftOutCount]]:
    """Draws from the sampler until every matched pair has come, or `draws` were made."""
    places: dict[tuple[str, str], list[int]] = defaultdict(list)
    for at, (_, base, source) in enumerate(wanted):
        places[base, source].append(at)
    found: dict[int, Pair] = {}
    missed = 0
    for _ in range(draws):
        if len(found) == len(wanted):
            break
        with errors_of(problem):
            both = problem.sample(rng)
            base, source = (repr(_value(problem, setting, variable)) for setting in both)
            waiting = places.get((base, source))
            if not waiting:
                missed += 1
                continue
            pair = make_pair(problem, variables, 0, *both)
        at = waiting.pop()
        found[at] = replace(pair, matching=wanted[at][0])
    left = [LeftOutCount("beyond", "test", None, missed)] if missed else []
    return [found[at] for at in sorted(found)], left
