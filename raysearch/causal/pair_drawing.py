"""Draws the pairs of a run from a problem.

Invariants: the same seed draws the same pairs; test pairs are independent draws of the sampler
(claim: sampler), of those pairs of it whose values are held out, or the whole domain, each pair
once. `draw_pairs` divides the domain before it draws, so that no pair is in two splits; a run keeps
tested pairs apart from others when it screens them (`search/screening.py`).
"""

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import replace
from itertools import islice

from raysearch.causal.make_pair import errors_of, make_pair
from raysearch.causal.pair_sample import LeftOutCount, LeftOutReason, PairSample
from raysearch.causal.pairs import SPLITS, Pair, Split
from raysearch.causal.problem import Problem
from raysearch.causal.splits import split_by_content, split_by_values, split_of_value
from raysearch.errors import PairsError

MISSES = 1_000
"""Draws in a row outside a split, times the inverse of its share, after which the split counts as
empty.
"""
MOST_MISSES = 300_000
"""Upper bound of these draws for rare splits: some ten seconds of drawing."""


def draw_pairs(
    problem: Problem,
    variables: tuple[str, ...],
    counts: Mapping[Split, int],
    seed: int,
    disjoint: Sequence[str] = (),
) -> tuple[Pair, ...]:
    """Draws pairs of every split, `counts[split]` each, with the counterfactual of each of
    `variables`.

    Args:
        disjoint: variables of which no value may be in two splits, in base or source; pairs with
            values of several splits are skipped.

    Raises:
        PairsError: a split's part of the domain seems to be empty, or no pair is asked for.
    """
    return draw_apart(problem, variables, counts, seed, disjoint).pairs


def draw_sample(
    problem: Problem,
    variables: tuple[str, ...],
    counts: Mapping[Split, int],
    seed: int,
    disjoint: Sequence[str] = (),
    trained: bool = False,
    listed: int = 0,
) -> PairSample:
    """Draws the pairs of a run, and counts the draws that were left out.

    Test pairs are draws from the whole sampler, or from the pairs whose values of `disjoint` are
    held out. A pair may be drawn for several splits: screening keeps them apart.

    Args:
        trained: whether fit pairs are trained on. They are then drawn from a part of the domain
            only, so that pairs to test are left in a small one too.
        listed: test pairs are all pairs of the domain, each once, if the problem lists at most so
            many.

    Raises:
        PairsError: as in `draw_pairs`, or no pair is left that was not drawn to be trained on.
    """
    if disjoint:
        return draw_apart(problem, variables, counts, seed, disjoint)
    draws = _Draws(problem, variables, counts, seed)
    fit, test = counts.get("fit", 0), counts.get("test", 0)
    found = draws.take("fit", fit, lambda p: not trained or draws.part_of(p) == "fit")
    fitted = {p.contents for p in found} if trained else set()
    whole = draws.whole_domain(listed) if test else None
    if whole is not None and any(p.contents not in fitted for p in whole):
        found += whole
    else:
        found += draws.take_around("test", test, fitted)
        whole = None
    found += draws.take_around("holdout", counts.get("holdout", 0), fitted)
    pairs = tuple(replace(p, index=i) for i, p in enumerate(found))
    return PairSample(pairs, listed=whole is not None)


def draw_more(
    problem: Problem,
    variables: tuple[str, ...],
    counts: Mapping[Split, int],
    seed: int,
    disjoint: Sequence[str],
    n: int,
    number: int,
    fitted: Set[tuple[str, ...]],
) -> tuple[Pair, ...]:
    """Draws `n` further test pairs of the population of `draw_sample`, which are independent of all
    pairs before; of those in `fitted`, which are trained on, any number beside.

    Args:
        counts: those that the domain was divided by when the run began.
        number: of the continuation, from 1; each draws others.

    Raises:
        PairsError: as in `draw_pairs`.
    """
    if disjoint:
        more: dict[Split, int] = {"test": n}
        return draw_apart(problem, variables, counts, seed, disjoint, None, more, number).pairs
    draws = _Draws(problem, variables, counts, seed, number)
    return tuple(draws.take_around("test", n, fitted))


def _generator(problem: Problem, seed: int, number: int) -> random.Random:
    more = f".more{number}" if number else ""
    return random.Random(f"{seed}.pairs.{problem.name}{more}")


class _Draws:
    """Independent draws from a problem's sampler, by one random generator."""

    def __init__(
        self,
        problem: Problem,
        variables: tuple[str, ...],
        counts: Mapping[Split, int],
        seed: int,
        number: int = 0,
    ) -> None:
        _check_asked(variables, counts)
        self._problem = problem
        self._variables = variables
        self._counts = counts
        self._seed = seed
        self._max_misses = _max_misses(counts, 1)
        self._rng = _generator(problem, seed, number)

    def part_of(self, pair: Pair) -> Split:
        """Returns the part of the domain that a pair belongs to."""
        return split_by_content(pair, self._counts, self._seed)

    def next(self, split: Split) -> Pair:
        """Returns the next draw, for a split."""
        return _draw(self._problem, self._variables, 0, self._rng, split)

    def take(self, split: Split, n: int, inside: Callable[[Pair], bool]) -> list[Pair]:
        """Returns the first `n` draws that are inside a part of the domain.

        Raises:
            PairsError: none was for very long.
        """
        found: list[Pair] = []
        misses = 0
        while len(found) < n:
            pair = self.next(split)
            if inside(pair):
                found.append(pair)
                misses = 0
            elif (misses := misses + 1) > self._max_misses:
                raise self._too_small(split, misses)
        return found

    def take_around(self, split: Split, n: int, fitted: Set[tuple[str, ...]]) -> list[Pair]:
        """Returns all draws up to the `n`-th that is not among `fitted`, at most 4 n.

        Which of `fitted` are trained on is not known before the model has run, so none is left out
        here: that would make the others rarer than the sampler has them.

        Raises:
            PairsError: all of them are among `fitted`.
        """
        found: list[Pair] = []
        outside = 0
        while outside < n and len(found) < 4 * n:
            found.append(self.next(split))
            outside += found[-1].contents not in fitted
        if n and not outside and split == "test":
            raise self._too_small(split, len(found))
        return found

    def whole_domain(self, most: int) -> list[Pair] | None:
        """Returns all pairs of the domain in a random order; None if it has more than `most`, or
        the problem does not list it.

        Raises:
            PairsError: the list has a pair twice.
        """
        if self._problem.domain is None or not most:
            return None
        with errors_of(self._problem):
            settings = list(islice(self._problem.domain(), most + 1))
            pairs = [make_pair(self._problem, self._variables, 0, *both) for both in settings]
        if not 0 < len(pairs) <= most:
            return None
        if len({p.contents for p in pairs}) < len(pairs):
            raise PairsError(
                f"problem {self._problem.name!r}: domain lists {len(pairs)} pairs, and some have "
                f"the same inputs; list each once, or leave domain out"
            )
        self._rng.shuffle(pairs)
        return pairs

    def _too_small(self, split: Split, draws: int) -> PairsError:
        less = "ask for fewer fit pairs (pairs.fit)"
        return _too_small(self._problem, split, draws, self._counts, less)


def _check_asked(variables: tuple[str, ...], counts: Mapping[Split, int]) -> None:
    if isinstance(variables, str):
        raise PairsError(
            f"variables is the text {variables!r}; give a tuple of names, ({variables!r},)"
        )
    if not any(counts.values()):
        raise PairsError(f'counts {dict(counts)} ask for no pair; give some, such as {{"test": 1}}')


def draw_apart(
    problem: Problem,
    variables: tuple[str, ...],
    counts: Mapping[Split, int],
    seed: int,
    disjoint: Sequence[str],
    skipped: Split | None = None,
    wanted: Mapping[Split, int] | None = None,
    number: int = 0,
) -> PairSample:
    """Draws pairs of which none is in two splits, because the domain (or, with `disjoint`, each
    variable's values) is divided by `counts` before anything is drawn; none for the `skipped`
    split, and of all others `wanted`, or as many as they count. `number`: as in `draw_more`.
    """
    _check_asked(variables, counts)
    rng = _generator(problem, seed, number)
    missing = {split: n for split, n in (wanted or counts).items() if split != skipped}
    pairs: list[Pair] = []
    left: Counter[tuple[LeftOutReason, Split | None, str | None]] = Counter()
    misses = 0
    max_misses = _max_misses(counts, max(1, 2 * len(disjoint)))
    while any(missing.values()):
        pair = _draw(problem, variables, len(pairs), rng)
        by = (counts, seed)
        split = split_by_values(pair, disjoint, *by) if disjoint else split_by_content(pair, *by)
        if split is not None and missing.get(split):
            misses = 0
            missing[split] -= 1
            pairs.append(replace(pair, split=split))
            continue
        left["disjoint" if split is None else "beyond", split, pair.set] += 1
        misses += 1
        if misses > max_misses:
            lacking = next(s for s in SPLITS if missing.get(s))
            less = f"ask for fewer splits (pairs.{lacking}: 0)"
            if disjoint:
                less += f", or name less in pairs.disjoint ({', '.join(disjoint)})"
            raise _too_small(problem, lacking, max_misses, counts, less)
    return PairSample(
        tuple(pairs),
        tuple(LeftOutCount(*key, pairs=n) for key, n in left.items()),
        _held_out(problem, disjoint, counts, seed),
    )


def _too_small(
    problem: Problem, split: Split, draws: int, counts: Mapping[Split, int], less: str
) -> PairsError:
    return PairsError(
        f"problem {problem.name!r}: no pair fell to split {split!r} in {draws} draws; its domain "
        f"is too small for splits {dict(counts)}; {less}"
    )


def _max_misses(counts: Mapping[Split, int], values: int) -> int:
    """Returns how many draws in a row may miss a split. `values`: how many values of a pair must
    all be of it.
    """
    rarest = max(1, sum(counts.values()) // min(n for n in counts.values() if n))
    return min(MISSES * int(rarest**values), MOST_MISSES)


def _held_out(
    problem: Problem, disjoint: Sequence[str], counts: Mapping[Split, int], seed: int
) -> int | None:
    """Counts the values of `disjoint` that are held out for the test; None if a domain is not
    declared.
    """
    domains = {v.name: v.domain for v in problem.model.variables if v.name in disjoint}
    if not domains or any(domain is None for domain in domains.values()):
        return None
    values = [(v, repr(value)) for v, domain in domains.items() for value in domain or ()]
    return sum(split_of_value(v, value, counts, seed) == "test" for v, value in values)


def _draw(
    problem: Problem,
    variables: tuple[str, ...],
    index: int,
    rng: random.Random,
    split: Split = "test",
) -> Pair:
    """Draws the next pair."""
    with errors_of(problem):
        return make_pair(problem, variables, index, *problem.sample(rng), split)
