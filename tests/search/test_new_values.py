"""A claim about new values: pairs that share none, e-values averaged over matchings, and where the
values are too few."""

import random
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysearch import CausalModel, Input, Problem, Variable
from raysearch.causal import PairSample, Split, draw_matched
from raysearch.core.population import about
from raysearch.core.records import Counted
from raysearch.errors import PairsError
from raysearch.search.pair_blocks import deal_out
from raysearch.stats.betting_test import BettingTest
from raysearch.stats.evidence import MATCHINGS, Evidence, looks
from raysearch.stats.paired_test import PairedTest
from tests.search.worlds import Cluster, World

COUNTS: dict[Split, int] = {"fit": 100, "test": 400, "holdout": 100}
ENDS = (2, 4)
TEST = BettingTest(0.75, 0.05, 0.05)


def items(n: int, sample: Callable[[random.Random], Any] | None = None) -> Problem:
    """Base and source are two different items; each has a colour, which no claim is about."""
    model = CausalModel(
        (Variable("x", tuple(range(n))), Variable("colour", (0, 1, 2)), Variable("y")),
        {"y": ("x",)},
        {"y": lambda x: x},
        "y",
    )

    def two(rng: random.Random) -> Any:
        return tuple({"x": x, "colour": rng.randrange(3)} for x in rng.sample(range(n), 2))

    render = lambda v: Input(f"item {v['x']} {v['colour']}", values=v)  # noqa: E731
    return Problem("items", model, sample or two, render, str, ())


def drawn(problem: Problem, seed: int) -> PairSample:
    return draw_matched(problem, ("x",), COUNTS, seed, "x", looks, MATCHINGS)


def test_pairs_of_a_matching_share_no_value_nor_do_those_of_two_blocks_or_of_two_splits() -> None:
    sample = drawn(items(40), 3)
    assert drawn(items(40), 3) == sample != drawn(items(40), 4)
    test = [p for p in sample.pairs if p.split == "test"]
    assert [p.index for p in sample.pairs] == list(range(len(sample.pairs)))
    values: dict[int, list[object]] = defaultdict(list)
    for p in test:
        assert p.matching is not None
        values[p.matching] += [i.values["x"] for i in (p.base, *p.sources.values())]
    assert all(len(set(of)) == len(of) for of in values.values())
    blocks = [set(values[m]) for m in sorted(values)]
    ends = looks((sample.values or 0) // 2)
    assert [len(of) for of in blocks] == [2 * (b - a) for a, b in pairwise((0, *ends))
                                          for _ in range(MATCHINGS)]  # fmt: skip
    for one, other in product(range(len(blocks)), repeat=2):
        same = one // MATCHINGS == other // MATCHINGS
        assert blocks[one] == blocks[other] if same else not blocks[one] & blocks[other]
    others = {
        i.values["x"]
        for p in sample.pairs
        if p.split != "test"
        for i in (p.base, *p.sources.values())
    }
    assert not others & set().union(*blocks)


def test_every_two_held_out_values_are_as_often_a_pair_however_often_the_sampler_draws_them() -> (
    None
):
    """The sampler draws item 0 in half of its pairs; a claim about values counts each alike."""

    def skewed(rng: random.Random) -> Any:
        a, b = rng.sample(range(6), 2)
        c, d = (0, rng.randrange(1, 6)) if rng.random() < 0.5 else (a, b)
        return {"x": c, "colour": 0}, {"x": d, "colour": 0}

    seen: Counter[int] = Counter()
    for seed in range(60):
        sample = draw_matched(items(6, skewed), ("x",), {"test": 40}, seed, "x", looks, MATCHINGS)
        seen.update(int(p.base.values["x"]) for p in sample.pairs)  # type: ignore[call-overload]
    assert sum(seen.values()) == 60 * MATCHINGS * 3
    assert sum((n - 120) ** 2 / 120 for n in seen.values()) < 20.5  # chi², 5 df, p = .001


def test_what_cannot_be_matched_is_refused_in_one_line() -> None:
    plain = items(8)
    undeclared = replace(plain.model, variables=(Variable("x"), *plain.model.variables[1:]))
    with pytest.raises(PairsError, match="does not list them; give its Variable a domain"):
        draw_matched(replace(plain, model=undeclared), ("x",), {"test": 8}, 0, "x", looks, 4)
    one = items(8, lambda rng: ({"x": 1, "colour": 0}, {"x": 1, "colour": 0}))
    with pytest.raises(PairsError, match="its sampler must join any two values"):
        draw_matched(one, ("x",), {"test": 8}, 0, "x", looks, 4)


MATCHED = [
    [(0, 1), (2, 3), (4, 5), (6, 7)],
    [(1, 2), (3, 0), (5, 6), (7, 4)],
    [(0, 2), (1, 3), (4, 6), (5, 7)],
    [(3, 1), (0, 2), (7, 6), (5, 4)],
]
"""Four matchings of two blocks of four values, by hand."""
PLACES = [
    (m + MATCHINGS * (i // 2), *dyad) for m, of in enumerate(MATCHED) for i, dyad in enumerate(of)
]
PLACES.sort(key=lambda place: place[0] // MATCHINGS)


@pytest.mark.parametrize(
    "matches",
    [lambda base, source: source, lambda base, source: base, lambda base, source: base == source],
    ids=["source", "base", "both"],
)
@pytest.mark.parametrize("blocks", [1, 2])
def test_the_e_value_is_expected_to_be_1_at_the_end_of_every_block_of_values(
    matches: Callable[[bool, bool], bool], blocks: int
) -> None:
    """Each value is True with some chance, independently, so that a pair matches with a chance of
    3/4; over all values that there can be, both e-values have a mean of exactly 1."""
    chance = 0.75 if matches(True, False) != matches(False, True) else (1 + 0.5**0.5) / 2
    places = [p for p in PLACES if p[0] < blocks * MATCHINGS]
    up = down = total = 0.0
    for values in product([False, True], repeat=4 * blocks):
        hits = tuple(float(matches(values[a], values[b])) for _, a, b in places)
        evidence = Evidence(len(hits), 0, hits, tuple(m for m, _, _ in places))
        weight = np.prod([chance if v else 1 - chance for v in values])
        logs = TEST.log_evidence(evidence)
        total += weight
        up, down = up + weight * np.exp(logs[0]), down + weight * np.exp(logs[1])
    assert (total, up, down) == pytest.approx((1, 1, 1), abs=1e-9)


@given(st.lists(st.booleans(), min_size=1, max_size=30))
def test_one_matching_of_each_block_is_the_test_of_independent_pairs(hits: list[bool]) -> None:
    scores = tuple(map(float, hits))
    plain = TEST.log_evidence(Evidence(len(hits), 0, scores))
    same = [tuple(m for _ in range(MATCHINGS) for m in scores)]
    numbers = tuple(m for m in range(MATCHINGS) for _ in scores)
    again = TEST.log_evidence(Evidence(len(same[0]), 0, same[0], numbers))
    assert again == pytest.approx(plain, abs=1e-9)
    apart = tuple(
        i * MATCHINGS for i in range(len(hits))
    )  # the other three have no pair: a factor of 1
    assert TEST.log_evidence(Evidence(len(hits), 0, scores, apart))[0] <= plain[
        0
    ] + 1e-9 or not all(hits)


def test_the_paired_test_takes_matchings_too() -> None:
    differences = [1.0] * 12 + [0.0] * 4
    plain = PairedTest().interval(differences)
    shared = PairedTest().interval(differences, tuple(i // 4 for i in range(16)))
    assert shared[0] < plain[0] - 0.1  # sixteen pairs of eight values are four of independent ones


@settings(max_examples=6)
@given(st.integers(0, 10**6), st.integers(1, 5), st.sampled_from([16, 64]))
def test_verdicts_are_a_function_of_the_outputs_whatever_is_lost_or_repeated_or_comes_late(
    seed: int, workers: int, rows: int
) -> None:
    rates = lambda layer: (0.2, 1.0)[layer % 2]  # noqa: E731
    world = World(
        seed % 7, layers=2, test=240, max_pairs=240, rows=rows, rates=rates, new_values=True
    )
    told = []
    for chaos in (seed, seed + 1):
        cluster = Cluster(world, workers, chaos, lost=0.2, twice=0.3)
        search = cluster.drive(world.search())
        told.append(search.verdicts)
        for note in cluster.notes:
            if isinstance(note, Counted) and note.observation.split == "test":
                assert len({world.pairs[p].value_block for p in note.observation.pairs}) == 1
    assert told[0] == told[1]
    assert {d.verdict for d in told[0].values() if d.hypothesis.variable == "v"} >= {
        "accept",
        "reject",
    }
    assert {(d.population, d.population_size, d.score) for d in told[0].values()} == {
        ("new_values", None, None)
    }


def test_a_block_of_evidence_ends_where_values_end_though_pairs_drop_out() -> None:
    world = World(1, test=120, new_values=True)
    left = tuple(p for p in range(120) if p % 3)
    (part,) = deal_out([left], 100, True, world.pairs)
    blocks = [{world.pairs[p].value_block for p in block.pairs} for block in part.blocks]
    assert all(len(of) == 1 for of in blocks)
    assert [of.pop() for of in blocks] == list(range(len(blocks)))
    assert sum(len(b.pairs) for b in part.blocks) == len(left[:100])


def test_the_population_says_that_it_is_of_new_values() -> None:
    assert about("new_values", 38, ("country",)) == (
        "pairs of this sampler of any two new values of country, each as likely as any other (the "
        "38 held out for the test count as draws of such values) that the model solves on both "
        "sides and on which the variable changes the answer"
    )
