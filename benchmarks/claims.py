"""Whether a verdict's error bound and interval hold for the population that its row names.

Searches are simulated: pairs come from the drawing and the screening of a run, verdicts and
intervals from its tests; only the network is replaced, by a table of which pairs match. Each search
has 50 hypotheses. For the errors, all are as high as they can be without being above the threshold;
for the power, ten of them have a rate of 0.95 instead. Of `new_values` the items are draws, anew in
each search, and the true rate is that over all items that there could be.

    python -m benchmarks.claims                       # the table of RESULTS.md
    python -m benchmarks.claims --items 6 8 --searches 200

Columns: `false` is the share of searches with a false accept, `p` the chance of as many or more if
the bound (0.05) holds; `cover` is the share of hypotheses whose
interval, where they stopped, has the true rate; `fcr` is the mean share of accepted hypotheses
whose interval, at the level corrected for selection, misses it; `power` is the share of the
hypotheses of rate 0.95 that are accepted (a few items may not have that rate: then at least 0.9, or
"-"). Exits with 1 if a bound fails at p < .001.
"""

import argparse
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp
from scipy.stats import binom, norm

import raysearch as rs
from raysearch.causal import PairSample, Split, draw_sample, split_of
from raysearch.causal.value_matchings import matched_values
from raysearch.core.events import Screened
from raysearch.search.pair_blocks import ExpectedAnswers
from raysearch.search.screening import Screening, ScreeningPlan
from raysearch.stats.evidence import MATCHINGS, Evidence, looks
from raysearch.stats.false_discovery import e_by_level
from raysearch.stats.match_test import MatchTest
from raysearch.stats.power import fewest_pairs

ITEMS = (6, 8, 12, 20, 48, 100, 1000)
WAYS = (
    "sampler",
    "listed",
    "not_trained_on",
    "these_values",
    "these_values, trained",
    "new_values",
)
OUTCOMES = ("pair", "source", "both")
HYPOTHESES, TRUE_ONES, TRUE_RATE = 50, 10, 0.95
PAIRS, FIT = 256, 128
THRESHOLD, LEVEL = 0.8, 0.05
TEST = MatchTest(THRESHOLD, LEVEL, LEVEL, HYPOTHESES)
LARGEST = 60
"""Items up to which each search has tables of its own; larger domains share one set of tables."""

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Drawn:
    """The test pairs of one search, in order, and its population.

    `base` and `source` are items; `inside` (base, source) says which pairs the population has;
    `size` is its size if pairs are drawn without replacement.
    """

    base: Ints
    source: Ints
    inside: Bools
    size: int | None


def problem(items: int, listed: bool) -> rs.Problem:
    """Item x of base and source differ; every two items are equally likely."""
    values = tuple(range(items))
    model = rs.CausalModel(
        (rs.Variable("x", values), rs.Variable("y", values)), {"y": ("x",)}, {"y": _same}, "y"
    )
    inputs = [rs.Input(f"{x}", values={"x": x, "y": x}) for x in values]

    def sample(rng):  # type: ignore[no-untyped-def]
        a, b = rng.sample(values, 2)
        return {"x": a}, {"x": b}

    def domain():  # type: ignore[no-untyped-def]
        return (({"x": a}, {"x": b}) for a in values for b in values if a != b)

    return rs.Problem(
        "items", model, sample, lambda v: inputs[v["x"]], str, (), domain=domain if listed else None
    )


def _same(x: int) -> int:
    return x


def drawn(items: int, way: str, seed: int) -> Drawn | None:
    """Draws and screens the pairs of one search; None if its domain is too small for it."""
    trained = way in ("not_trained_on", "these_values, trained")
    disjoint = ("x",) if way.startswith("these_values") else ()
    counts: dict[Split, int] = {"test": PAIRS, "holdout": 64 if disjoint else 1}
    counts |= {"fit": FIT} if trained else {}
    splits = [split_of((f"x={x!r}",), counts, seed) for x in range(items)]
    if disjoint and min(splits.count(split) for split in counts) < 2:
        return None  # a part without a pair: the drawing says so, after very many draws
    try:
        sample = draw_sample(
            _problem(items, way == "listed"), (), counts, seed, disjoint, trained, PAIRS
        )
    except rs.RaysearchError:
        return None
    screening = _screened(sample, counts, trained)
    pairs = sample.pairs
    at = np.array(
        [
            (_item(pairs[p].base), _item(pairs[p].sources["source"]))
            for p in screening.usable("test")
        ]
    )
    inside = ~np.eye(items, dtype=bool)
    if trained:
        for p in screening.usable("fit"):
            inside[_item(pairs[p].base), _item(pairs[p].sources["source"])] = False
    if disjoint:
        held = np.array([split == "test" for split in splits])
        inside &= held[:, None] & held[None, :]
    return Drawn(at[:, 0], at[:, 1], inside, len(at) if sample.listed else None)


@lru_cache
def _problem(items: int, listed: bool) -> rs.Problem:
    return problem(items, listed)


def _item(one: rs.Input) -> int:
    return int(one.values["x"])  # type: ignore[call-overload]


def _screened(sample: PairSample, counts: dict[Split, int], trained: bool) -> Screening:
    """Screening by a model that solves every pair."""
    pairs = {
        p.index: ExpectedAnswers(p.split, (0,), {"source": (1,)}, {"x": (1,)}, contents=p.contents)
        for p in sample.pairs
    }
    screening = Screening(pairs, ScreeningPlan(counts, PAIRS, True, True, trained))
    while (task := screening.ask(0)) is not None:
        for block in task.blocks:
            answers = ((0,),) * len(block.pairs), {"source": ((1,),) * len(block.pairs)}
            screening.tell(
                Screened(0, block.split, block.index, block.pairs, *answers, 0, 0.0, "", "", 0)
            )
    return screening


def scores(items: int, outcome: str, rng: np.random.Generator) -> NDArray[np.float32]:
    """Returns (hypothesis, base, source) scores; a pair matches where its score is high."""
    own = rng.random((HYPOTHESES, items, items), dtype=np.float32)
    if outcome == "pair":
        return own
    source = rng.standard_normal((HYPOTHESES, 1, items), dtype=np.float32)
    if outcome == "source":
        return np.broadcast_to(source, own.shape)
    return source + rng.standard_normal((HYPOTHESES, items, 1), dtype=np.float32)


def at_most(rate: float, of: NDArray[np.float32], inside: Bools) -> Bools:
    """Returns which pairs match: those of the highest scores, as many as `rate` allows among the
    pairs that are inside."""
    among = of[:, inside]
    k = int(np.floor(rate * among.shape[1] + 1e-9))
    apart = ~np.eye(of.shape[1], dtype=bool)  # no pair is of an item and itself
    if k >= among.shape[1]:
        return np.broadcast_to(apart, of.shape)
    cut = -np.partition(-among, k, axis=1)[:, k]
    return (of > cut[:, None, None]) & apart


@dataclass
class Counts:
    searches: int = 0
    false: int = 0
    covered: int = 0
    intervals: int = 0
    missed: float = 0.0
    found: int = 0
    true_ones: int = 0


def searched(found: Drawn, matches: Bools) -> tuple[Bools, Ints, Ints]:
    """Returns, of each hypothesis, whether it was accepted, and n and matches when it stopped."""
    test = TEST if found.size is None else replace(TEST, population=found.size)
    x = matches[:, found.base, found.source].cumsum(axis=1)
    accepted = np.zeros(HYPOTHESES, dtype=bool)
    n, s = np.zeros(HYPOTHESES, dtype=int), np.zeros(HYPOTHESES, dtype=int)
    is_open = np.ones(HYPOTHESES, dtype=bool)
    for look in looks(x.shape[1]):
        fewest, most = test.bounds(look)
        now = x[:, look - 1]
        accept = is_open & (now >= fewest)
        stops = accept | (is_open & (now <= most))
        stops |= is_open if look == x.shape[1] else False
        n[stops], s[stops] = look, now[stops]
        accepted |= accept
        is_open &= ~stops
    return accepted, n, s


@lru_cache(maxsize=1 << 20)
def _interval(size: int | None, n: int, s: int, level: float) -> tuple[float, float]:
    return replace(TEST, population=size).interval(Evidence(n, s), level)


def _covers(found: Drawn, n: int, s: int, rate: float, level: float) -> bool:
    low, high = _interval(found.size, n, s, level)
    return low - 1e-9 <= rate <= high + 1e-9


def run(items: int, way: str, outcome: str, searches: int) -> Counts | None:
    """Simulates searches of one kind; None if the domain is too small for any."""
    if way == "new_values":
        return run_new_values(items, outcome, searches)
    counts = Counts()
    rng = np.random.default_rng([items, WAYS.index(way), OUTCOMES.index(outcome)])
    shared = scores(items, outcome, rng) if items > LARGEST else None
    everything = ~np.eye(items, dtype=bool)
    fixed = {}
    if shared is not None:
        fixed = {r: at_most(r, shared, everything) for r in (THRESHOLD - 0.002, TRUE_RATE)}
    whole = {r: _rates(t, everything) for r, t in fixed.items()}
    for found in _all_drawn(items, way, searches):
        if shared is None:
            own = scores(items, outcome, rng)
            tables = [at_most(r, own, found.inside) for r in (THRESHOLD, TRUE_RATE)]
            rates = [_rates(t, found.inside) for t in tables]
        else:
            tables = list(fixed.values())
            rates = [_rates_of(t, whole[r], found, everything) for r, t in fixed.items()]
        _count(counts, found, tables, rates)
    return counts if counts.searches else None


def run_new_values(items: int, outcome: str, searches: int) -> Counts | None:
    """Simulates searches about new values; None if too few values are held out to accept any."""
    rng = np.random.default_rng([items, OUTCOMES.index(outcome)])
    found = Counts()
    for seed in range(searches):
        splits = [
            split_of((f"x={x!r}",), {"test": PAIRS, "holdout": 64}, seed) for x in range(items)
        ]
        held = splits.count("test")
        if held < 2 * fewest_pairs(TEST):
            continue
        matched = matched_values(
            [str(v) for v in range(held)], looks(held // 2), MATCHINGS, random.Random(seed)
        )[: 2 * PAIRS]
        at = np.array([(m, int(a), int(b)) for m, a, b in matched])
        rates = np.full(HYPOTHESES, THRESHOLD)
        accepted, logs = _bets(_drawn_matches(rates, outcome, held, at, rng), at[:, 0], rates)
        found.searches += 1
        found.false += bool(accepted.any())
        found.covered += int((logs < np.log(2 / LEVEL)).sum())
        found.intervals += HYPOTHESES
        rates[:TRUE_ONES] = TRUE_RATE
        accepted, logs = _bets(_drawn_matches(rates, outcome, held, at, rng), at[:, 0], rates)
        found.found += int(accepted[:TRUE_ONES].sum())
        found.true_ones += TRUE_ONES
        chosen = int(accepted.sum())
        missed = logs[accepted] >= np.log(2 / (1 - e_by_level(1 / HYPOTHESES, max(chosen, 1))))
        found.missed += float(missed.sum()) / max(chosen, 1)
    return found if found.searches else None


def _drawn_matches(
    rates: NDArray[np.float64], outcome: str, values: int, at: Ints, rng: np.random.Generator
) -> Bools:
    """Returns (hypothesis, pair) matches: a pair matches with the rate of its hypothesis, over all
    values that there could be."""
    base, source = rng.standard_normal((2, HYPOTHESES, values))
    if outcome == "pair":
        _, same = np.unique(at[:, 1:], axis=0, return_inverse=True)
        both = rng.standard_normal((HYPOTHESES, len(at)))[:, same.ravel()]
    elif outcome == "source":
        both = source[:, at[:, 2]]
    else:
        both = (base[:, at[:, 1]] + source[:, at[:, 2]]) / np.sqrt(2)
    return np.asarray(both < norm.ppf(rates)[:, None])


def _bets(
    matches: Bools, matching: Ints, rates: NDArray[np.float64]
) -> tuple[Bools, NDArray[np.float64]]:
    """Returns which hypotheses are accepted, and the larger log e-value against the true rate
    where each stopped; looks are at the ends of blocks of values."""
    blocks = np.arange(matching.max() // MATCHINGS + 1)
    hits, misses = (
        np.stack([x[:, matching == m].sum(axis=1) for m in range(MATCHINGS * len(blocks))], axis=1)
        for x in (matches, ~matches)
    )
    tau, own = np.array([[THRESHOLD]]), rates[:, None]
    up, down = _log_wealth(hits, misses, tau), _log_wealth(misses, hits, 1 - tau)
    true = np.maximum(_log_wealth(hits, misses, own), _log_wealth(misses, hits, 1 - own))
    accepts = up >= TEST.accept_at
    stops = accepts | (down >= TEST.reject_at) | (blocks == blocks[-1])
    at = stops.argmax(axis=1)
    every = np.arange(len(matches))
    return accepts[every, at], true[every, at]


def _log_wealth(hits: Ints, misses: Ints, mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns (hypothesis, block) log e-values against means, of (hypothesis, matching) counts;
    written apart from the package's own."""
    nodes, weights = np.polynomial.legendre.leggauss(64)
    share = ((nodes + 1) / 2)[:, None, None]
    logs = hits * np.log1p(share * (1 / mean - 1)) + misses * np.log1p(-share)
    blocks = logs.reshape(64, len(hits), -1, MATCHINGS)
    factors = logsumexp(blocks, axis=-1) - np.log(MATCHINGS)
    mixed = factors.cumsum(axis=-1) + np.log(weights / 2)[:, None, None]
    return np.asarray(logsumexp(mixed, axis=0))


def _rates(table: Bools, inside: Bools) -> NDArray[np.float64]:
    return table[:, inside].mean(axis=1)


def _rates_of(
    table: Bools, whole: NDArray[np.float64], found: Drawn, everything: Bools
) -> NDArray[np.float64]:
    """The rates in the population, given those in the whole domain."""
    outside = everything & ~found.inside
    if not outside.any():
        return whole
    if outside.sum() * 4 < everything.sum():
        lost = table[:, outside].sum(axis=1)
        return (whole * everything.sum() - lost) / found.inside.sum()
    held = np.flatnonzero(found.inside.any(axis=1))
    return table[:, held[:, None], held[None, :]].sum(axis=(1, 2)) / found.inside.sum()


@lru_cache(maxsize=1)
def _all_drawn(items: int, way: str, searches: int) -> tuple[Drawn, ...]:
    made = (drawn(items, way, seed) for seed in range(searches))
    return tuple(d for d in made if d is not None and len(d.base) and d.inside.any())


def _count(
    counts: Counts, found: Drawn, tables: Sequence[Bools], of: Sequence[NDArray[np.float64]]
) -> None:
    below, above = tables
    rates = of[0]
    accepted, n, s = searched(found, below)
    counts.searches += 1
    counts.false += bool((accepted & (rates <= THRESHOLD + 1e-9)).any())
    for h in range(HYPOTHESES):
        counts.covered += _covers(found, int(n[h]), int(s[h]), float(rates[h]), 1 - LEVEL)
    counts.intervals += HYPOTHESES
    mixed = np.concatenate([above[:TRUE_ONES], below[TRUE_ONES:]])
    rates = np.concatenate([of[1][:TRUE_ONES], rates[TRUE_ONES:]])
    accepted, n, s = searched(found, mixed)
    high = rates[:TRUE_ONES] >= 0.9
    counts.found += int(accepted[:TRUE_ONES][high].sum())
    counts.true_ones += int(high.sum())
    chosen = np.flatnonzero(accepted)
    level = e_by_level(1 / HYPOTHESES, len(chosen))
    missed = [not _covers(found, int(n[h]), int(s[h]), float(rates[h]), level) for h in chosen]
    counts.missed += sum(missed) / max(len(missed), 1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, nargs="+", default=list(ITEMS))
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--searches", type=int, default=2000)
    asked = parser.parse_args()
    began, bad = time.perf_counter(), 0
    print("| items | population | outcome | searches | false | p | cover | fcr | power |")
    print("|---|---|---|---|---|---|---|---|---|")
    for items in asked.items:
        for way in asked.ways:
            if way == "listed" and items * (items - 1) > PAIRS:
                continue
            for outcome in OUTCOMES:
                c = run(items, way, outcome, asked.searches)
                if c is None:
                    print(f"| {items} | {way} | {outcome} | too few | | | | | |", flush=True)
                    continue
                p = float(binom.sf(c.false - 1, c.searches, LEVEL))
                cover = c.covered / c.intervals
                bad += p < 0.001 or cover < 1 - LEVEL or c.missed / c.searches > LEVEL
                print(
                    f"| {items} | {way} | {outcome} | {c.searches} | {c.false / c.searches:.4f} | "
                    f"{p:.3f} | {cover:.4f} | {c.missed / c.searches:.4f} | "
                    f"{f'{c.found / c.true_ones:.3f}' if c.true_ones else '-'} |",
                    flush=True,
                )
    print(f"bounds that fail: {bad}; {time.perf_counter() - began:.0f} s", file=sys.stderr)
    print(f"bounds that fail: {bad}")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
