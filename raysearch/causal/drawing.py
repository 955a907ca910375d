"""Draws the pairs of a run from a problem.

Invariants: the same seed draws the same pairs; test pairs are independent draws of the sampler
(claim: sampler), of those pairs of it whose values are held out, or the whole domain, each pair
once. `draw_pairs` divides the domain before it draws, so that no pair is in two splits; a run keeps
tested pairs apart from others when it screens them (`search/screening.py`).
"""

import hashlib
import random
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice

from raysearch.causal.model import Setting, Value
from raysearch.causal.pair_sample import LeftOutCount, LeftOutReason, PairSample
from raysearch.causal.pairs import ONE_SOURCE, SPLITS, Input, Pair, Split
from raysearch.causal.problem import Problem
from raysearch.errors import PairsError, RaysearchError
from raysearch.visible_text import one_line

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
        return _split_by_content(pair, self._counts, self._seed)

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
        return PairsError(
            f"problem {self._problem.name!r}: no pair fell to split {split!r} in {draws} draws; "
            f"its domain is too small for splits {dict(self._counts)}; ask for fewer fit pairs "
            f"(pairs.fit)"
        )


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
        split = (
            _split_by_values(pair, disjoint, counts, seed)
            if disjoint
            else _split_by_content(pair, counts, seed)
        )
        if split is None or not missing.get(split):
            left["disjoint" if split is None else "beyond", split, pair.set] += 1
            misses += 1
            if misses > max_misses:
                lacking = next(s for s in SPLITS if missing.get(s))
                raise PairsError(
                    f"problem {problem.name!r}: no pair fell to split {lacking!r} in {max_misses} "
                    f"draws; its domain is too small for splits {dict(counts)}; ask for fewer "
                    f"splits (pairs.{lacking}: 0)"
                    + (
                        f", or name less in pairs.disjoint ({', '.join(disjoint)})"
                        if disjoint
                        else ""
                    )
                )
            continue
        misses = 0
        missing[split] -= 1
        pairs.append(replace(pair, split=split))
    return PairSample(
        tuple(pairs),
        tuple(LeftOutCount(*key, pairs=n) for key, n in left.items()),
        _held_out(problem, disjoint, counts, seed),
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


@contextmanager
def errors_of(problem: Problem) -> Iterator[None]:
    """Raises PairsError where the problem's own code raises; the text says where and what."""
    try:
        yield
    except RaysearchError:
        raise
    except (Exception, SystemExit) as e:
        at = traceback.extract_tb(e.__traceback__)[-1]
        raise PairsError(
            f"problem {problem.name!r}: {at.name} raised {type(e).__name__}: {one_line(e)} "
            f"({at.filename}, line {at.lineno})"
        ) from e


def _answer(problem: Problem, value: Value) -> str:
    text = problem.answer(value)
    if not isinstance(text, str) or not text:
        raise PairsError(
            f"problem {problem.name!r}: answer({value!r}) is {text!r}; it must be the text that "
            f"follows, not empty"
        )
    return text


def make_pair(
    problem: Problem,
    variables: tuple[str, ...],
    index: int,
    base: Setting,
    source: Setting,
    split: Split = "test",
) -> Pair:
    model = problem.model
    base, source = model.run(base), model.run(source)
    return Pair(
        index=index,
        base=_rendered(problem, base),
        sources={ONE_SOURCE: _rendered(problem, source)},
        answers={
            "base": _answer(problem, base[model.output]),
            ONE_SOURCE: _answer(problem, source[model.output]),
        },
        counterfactual={
            v: _answer(problem, model.interchange(base, {v: source})) for v in variables
        },
        split=split,
        set=problem.set_of(base, source) if problem.set_of else None,
        choices=_choices(problem, base, source),
        values={v: {"base": _number(base[v]), ONE_SOURCE: _number(source[v])} for v in variables},
    )


def _rendered(problem: Problem, setting: Setting) -> Input:
    """Returns the input of a setting, with its values, which a problem need not give."""
    found = problem.render(setting)
    return found if found.values else replace(found, values=setting)


def _number(value: Value) -> int:
    """Returns a number for a value, the same wherever the value is met."""
    return int.from_bytes(hashlib.sha256(repr(value).encode()).digest()[:7])


def _choices(problem: Problem, *settings: Setting) -> tuple[str, ...]:
    if problem.choices is None:
        return ()
    return tuple(
        dict.fromkeys(
            _answer(problem, value) for values in settings for value in problem.choices(values)
        )
    )


def _split_by_content(pair: Pair, counts: Mapping[Split, int], seed: int) -> Split:
    return split_of((pair.base.content, *(s.content for s in pair.sources.values())), counts, seed)


def _split_by_values(
    pair: Pair, variables: Sequence[str], counts: Mapping[Split, int], seed: int
) -> Split | None:
    """Returns the split of all values of `variables`; None if they belong to several."""
    inputs = (pair.base, *pair.sources.values())
    values = {(v, repr(i.values[v])) for i in inputs for v in variables}
    splits = {split_of_value(v, value, counts, seed) for v, value in values}
    return splits.pop() if len(splits) == 1 else None


def split_of_value(variable: str, value: str, counts: Mapping[Split, int], seed: int) -> Split:
    return split_of((f"{variable}={value}",), counts, seed)


def split_of(contents: Sequence[str], counts: Mapping[Split, int], seed: int) -> Split:
    """Returns the split of a (base, sources), by a hash of its inputs' contents, in the ratio of
    `counts`.

    This divides the domain before anything is drawn, and needs no list of it.
    """
    return split_of_digest(digest_of(contents, seed), counts)


def digest_of(contents: Sequence[str], seed: int) -> bytes:
    """Returns 32 bytes that identify a (base, sources) by its inputs' contents."""
    return hashlib.sha256("\x00".join((str(seed), *contents)).encode()).digest()


def split_of_digest(digest: bytes, counts: Mapping[Split, int]) -> Split:
    """Returns the split of a digest, in the ratio of `counts`."""
    at = int.from_bytes(digest[:8], "big") / 2**64 * sum(counts.values())
    for split in SPLITS:
        at -= counts.get(split, 0)
        if at < 0:
            return split
    return next(s for s in reversed(SPLITS) if counts.get(s, 0))
