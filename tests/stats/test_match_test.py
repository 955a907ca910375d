"""The sequential test: its true error rates by exact dynamic programming, both claims, intervals,
looks."""

from fractions import Fraction
from itertools import permutations
from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysearch.stats.evidence import Evidence, looks
from raysearch.stats.match_test import MatchTest
from raysearch.stats.power import power

ALONE = MatchTest(threshold=0.8, false_accept=0.05, miss=0.05)
THOUSAND = MatchTest(threshold=0.8, false_accept=0.05, miss=0.05, hypotheses=1000)


def test_looks_are_at_each_pair_from_2_to_40_then_a_twentieth_further() -> None:
    assert looks(512)[:39] == tuple(range(2, 41))
    assert looks(512)[39:46] == (42, 44, 46, 48, 50, 52, 54)
    assert looks(512)[-3:] == (470, 493, 512)
    assert looks(2) == (2,)
    assert looks(1) == (1,)
    assert looks(0) == ()
    assert looks(100)[-2:] == (97, 100)


def test_error_rates_at_the_threshold_are_those_of_the_design() -> None:
    at = power(ALONE, 0.8, 1000)
    assert at.accept == pytest.approx(0.0385, abs=0.001)
    assert at.reject == pytest.approx(0.0457, abs=0.0015)


@pytest.mark.parametrize(
    ("iia", "pairs"),
    [(0.0, 2), (0.1, 3), (0.3, 6.6), (0.5, 20), (0.7, 199), (0.9, 315), (0.95, 121), (1.0, 50)],
)
def test_expected_pairs_are_those_of_the_design(iia: float, pairs: float) -> None:
    assert power(THOUSAND, iia, 1000).pairs == pytest.approx(pairs, rel=0.02)


@settings(max_examples=40, deadline=None)
@given(
    threshold=st.sampled_from([0.3, 0.5, 0.8, 0.95]),
    error=st.sampled_from([0.01, 0.05, 0.2]),
    k=st.sampled_from([1, 20, 1000]),
    shift=st.floats(0, 0.2),
    population=st.sampled_from([None, 40, 97]),
    indifference=st.sampled_from([0.0, 0.02]),
)
def test_errors_keep_to_their_budget(
    threshold: float,
    error: float,
    k: int,
    shift: float,
    population: int | None,
    indifference: float,
) -> None:
    # Without futility, which only takes chances of a verdict away: nothing hides a false one.
    test = MatchTest(threshold, error, error, k, indifference, population, futility=0.0)
    last = population or 300
    below, above = threshold - indifference - shift, threshold + indifference + shift
    if population:  # the nearest shares that lie within each null
        below, above = (
            np.floor(below * population) / population,
            np.ceil(above * population) / population,
        )
    if below >= 0:
        assert power(test, below, last).accept <= error / k + 1e-12
    if above <= 1:
        assert power(test, above, last).reject <= error + 1e-12


def test_power_sums_to_one_and_grows_with_the_distance() -> None:
    for population in (None, 100):
        test = MatchTest(0.8, 0.05, 0.05, 10, population=population)
        chances = [power(test, iia, 100) for iia in (0.8, 0.85, 0.9, 0.95, 1.0)]
        assert all(p.accept + p.reject + p.undecided == pytest.approx(1) for p in chances)
        assert sorted(p.accept for p in chances) == [p.accept for p in chances]


def test_the_formula_for_draws_is_the_mixture_by_numerical_integration() -> None:
    n, s = 20, 18
    grid = np.linspace(0.8, 1, 200_001)
    likelihood = grid**s * (1 - grid) ** (n - s)
    mixture = 0.75 * np.trapezoid(likelihood, grid) / 0.2  # the spike at 1 allows no other output
    by_hand = np.log(mixture / (0.8**s * 0.2 ** (n - s)))
    assert ALONE.log_evidence(Evidence(n, s))[0] == pytest.approx(by_hand, abs=1e-6)


def test_fixed_pairs_agree_with_enumeration() -> None:
    """N = 6, every order of every population, by hand: the e-value is the ratio of mixture and null
    chances."""
    population, n, s, null = 6, 3, 3, 3
    test = MatchTest(0.5, 0.05, 0.05, population=population)

    def chance(total: int) -> float:
        orders = set(permutations([1] * total + [0] * (population - total)))
        return sum(o[:n] == (1, 1, 1) for o in orders) / len(orders)

    alternatives = range(null + 1, population + 1)
    slab = sum(chance(m) for m in alternatives) / len(alternatives)
    by_hand = (0.25 * chance(population) + 0.75 * slab) / chance(null)
    assert test.log_evidence(Evidence(n, s))[0] == pytest.approx(float(np.log(by_hand)))


@settings(max_examples=100, deadline=None)
@given(population=st.integers(1, 60), tenths=st.integers(1, 9), data=st.data())
def test_fixed_pairs_are_decided_exactly_once_all_are_seen(
    population: int, tenths: int, data: st.DataObject
) -> None:
    s = data.draw(st.integers(0, population))
    test = MatchTest(tenths / 10, 1e-9, 1e-9, 10**6, population=population)
    share, threshold = Fraction(s, population), Fraction(tenths, 10)
    wanted = "accept" if share > threshold else "reject" if share < threshold else None
    assert test.verdict(Evidence(population, s)) == wanted
    low, high = test.interval(Evidence(population, s))
    assert low == high == s / population


def test_a_state_that_is_impossible_under_a_null_decides_at_once() -> None:
    test = MatchTest(0.5, 1e-9, 1e-9, 10**6, population=10)
    assert test.log_evidence(Evidence(6, 6)) == (inf, -inf)
    assert test.verdict(Evidence(6, 6)) == "accept"
    assert test.verdict(Evidence(6, 0)) == "reject"
    assert test.verdict(Evidence(5, 5)) is None


def test_far_tails_stay_finite() -> None:
    for n, s in ((5000, 0), (5000, 5000), (5000, 4000)):
        up, down = THOUSAND.log_evidence(Evidence(n, s))
        assert not np.isnan(up)
        assert not np.isnan(down)
    big = MatchTest(0.8, 0.05, 0.05, 1000, population=100_000)
    assert big.verdict(Evidence(1000, 1000)) == "accept"
    assert big.verdict(Evidence(1000, 100)) == "reject"


@settings(max_examples=60, deadline=None)
@given(n=st.integers(0, 60), data=st.data(), population=st.sampled_from([None, 60]))
def test_an_interval_holds_the_share_seen_and_lies_in_the_unit(
    n: int, data: st.DataObject, population: int | None
) -> None:
    s = data.draw(st.integers(0, n))
    low, high = MatchTest(0.8, 0.05, 0.05, population=population).interval(Evidence(n, s))
    assert 0 <= low <= high <= 1
    if n and population is None:
        assert low <= s / n <= high


def test_the_interval_covers_at_every_time_at_once() -> None:
    """Exact, by following all paths of 60 draws: the chance that the interval ever leaves out theta
    is at most 5 %."""
    theta = 0.7
    alive = {0: 1.0}
    for n in range(1, 61):
        step: dict[int, float] = {}
        for s, chance in alive.items():
            step[s] = step.get(s, 0) + chance * (1 - theta)
            step[s + 1] = step.get(s + 1, 0) + chance * theta
        alive = {
            s: c
            for s, c in step.items()
            if (i := ALONE.interval(Evidence(n, s)))[0] <= theta <= i[1]
        }
    assert 0.95 <= sum(alive.values()) < 1


def test_an_interval_of_a_million_pairs_of_which_one_matched_has_its_ends() -> None:
    test = MatchTest(0.8, 0.05, 0.05)
    few, many = test.interval(Evidence(1_000_000, 1)), test.interval(Evidence(1_000_000, 999_999))
    assert 0 == few[0] < few[1] < 1e-4
    assert 1 - 1e-4 < many[0] < many[1] == 1


def test_a_prior_without_spikes_is_the_slab_alone() -> None:
    without, small = (
        MatchTest(0.8, 0.05, 0.05, population=40, spikes=(spike, spike)) for spike in (0.0, 1e-9)
    )
    found, wanted = (test.log_evidence(Evidence(10, 9)) for test in (without, small))
    assert found == pytest.approx(wanted)
