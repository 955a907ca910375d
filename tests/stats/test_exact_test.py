"""The exact test of a fixed number of pairs: errors and coverage by enumeration, and its power beside
that of a test that may look at any time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, hypergeom

from raysearch.stats.evidence import Evidence
from raysearch.stats.exact_test import ExactTest
from raysearch.stats.match_test import MatchTest
from raysearch.stats.power import power

SIZES = st.sampled_from([None, 40, 97])


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 40),
    threshold=st.sampled_from([0.3, 0.5, 0.8, 0.95]),
    k=st.sampled_from([1, 20]),
    population=SIZES,
)
def test_at_the_edge_of_each_null_errors_are_within_their_level(
    n: int, threshold: float, k: int, population: int | None
) -> None:
    test = ExactTest(threshold, 0.05, 0.05, k, population=population)
    below = above = threshold
    if population:
        below = np.floor(threshold * population + 1e-9) / population
        above = np.ceil(threshold * population - 1e-9) / population
    assert power(test, below, n, at_end=True).accept <= 0.05 / k + 1e-12
    assert power(test, above, n, at_end=True).reject <= 0.05 + 1e-12


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 40), share=st.floats(0, 1).map(lambda p: round(p, 6)), population=SIZES)
def test_intervals_cover_the_rate_as_often_as_they_say(
    n: int, share: float, population: int | None
) -> None:
    test = ExactTest(0.8, 0.05, 0.05, population=population)
    matches = np.arange(n + 1)
    if population is None:
        chances = binom.pmf(matches, n, share)
    else:
        share = round(share * population) / population
        chances = hypergeom.pmf(matches, population, round(share * population), n)
    covers = 0.0
    for s, chance in zip(matches, chances, strict=True):
        if chance > 1e-15:
            low, high = test.interval(Evidence(n, int(s)))
            covers += chance * (low - 1e-12 <= share <= high + 1e-12)
    assert covers >= 0.95 - 1e-9


@pytest.mark.parametrize(("n", "s"), [(1, 0), (10, 10), (50, 41), (128, 119)])
def test_for_draws_the_interval_is_that_of_clopper_and_pearson(n: int, s: int) -> None:
    wanted = binomtest(s, n).proportion_ci(0.95, method="exact")
    assert ExactTest(0.8, 0.05, 0.05).interval(Evidence(n, s)) == pytest.approx(tuple(wanted))


def test_one_look_accepts_nine_in_ten_where_the_test_for_any_time_accepts_six() -> None:
    exact, anytime = ExactTest(0.8, 0.05, 0.05), MatchTest(0.8, 0.05, 0.05)
    assert power(exact, 0.9, 128, at_end=True).accept > 0.9
    assert power(anytime, 0.9, 128, at_end=True).accept < 0.8


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 60), data=st.data(), population=st.sampled_from([None, 60]))
def test_bounds_are_where_the_verdict_changes(
    n: int, data: st.DataObject, population: int | None
) -> None:
    test = ExactTest(0.8, 0.05, 0.05, 3, population=population)
    fewest, most = test.bounds(n)
    s = data.draw(st.integers(0, n))
    assert (test.verdict(Evidence(n, s)) == "accept") == (s >= fewest)
    assert (test.verdict(Evidence(n, s)) == "reject") == (s <= most)


def test_fixed_pairs_that_are_all_seen_are_decided_but_at_the_threshold() -> None:
    test = ExactTest(0.8, 1e-9, 1e-9, population=10)
    given = [test.verdict(Evidence(10, s)) for s in range(11)]
    assert given == ["reject"] * 8 + [None] + ["accept"] * 2
    assert test.interval(Evidence(10, 7)) == (0.7, 0.7)
