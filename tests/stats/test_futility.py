"""The futility stop: when no verdict is likely any more, and that it changes no other verdict."""

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysearch.stats.betting_test import BettingTest
from raysearch.stats.evidence import Evidence, looks
from raysearch.stats.match_test import MatchTest
from raysearch.stats.power import power, verdicts

TEST = MatchTest(0.8, 0.05, 0.05, 500)
LAST = 200


def test_predictive_chances_are_those_of_a_rate_that_is_drawn_and_then_tested() -> None:
    """Rates from the prior, pairs from the rate; of those with 17 matches in the first 20, the share
    that the test accepts and rejects at the last pair, if it looks there alone."""
    dice = np.random.default_rng(3)
    spike = dice.random(400_000) < TEST.spikes[0]
    rates = np.where(spike, 1.0, dice.random(400_000))
    first = dice.binomial(20, rates)
    last = first + dice.binomial(LAST - 20, rates)
    fewest, most = TEST.bounds(LAST)
    for matches in (17, 20):
        of = last[first == matches]
        accept, reject = TEST.chances(Evidence(20, matches), LAST)
        assert (of >= fewest).mean() == pytest.approx(accept, abs=0.015)
        assert (of <= most).mean() == pytest.approx(reject, abs=0.015)


def test_bounds_are_where_the_verdict_changes() -> None:
    for n in (5, 60, 200):
        fewest, most = TEST.bounds(n)
        given = [TEST.verdict(Evidence(n, s)) for s in range(n + 1)]
        assert [v == "accept" for v in given] == [s >= fewest for s in range(n + 1)]
        assert [v == "reject" for v in given] == [s <= most for s in range(n + 1)]


@settings(max_examples=25, deadline=None)
@given(
    threshold=st.sampled_from([0.5, 0.8, 0.95]),
    k=st.sampled_from([1, 50, 10_000]),
    population=st.sampled_from([None, 150]),
    data=st.data(),
)
def test_the_stop_that_plan_counts_is_that_of_a_search(
    threshold: float, k: int, population: int | None, data: st.DataObject
) -> None:
    test = MatchTest(threshold, 0.05, 0.05, k, population=population)
    look = data.draw(st.sampled_from(looks(120)[:-1]))
    accepts, rejects, ends = verdicts(test, look, 120)
    for s in range(look + 1):
        futile = sum(test.chances(Evidence(look, s), 120)) < test.futility
        assert ends[s] == (futile and not accepts[s] and not rejects[s])


@pytest.mark.parametrize("iia", [0.0, 0.5, 0.72, 0.8, 0.9, 1.0])
def test_the_stop_takes_nothing_from_the_errors_and_never_adds_a_pair(iia: float) -> None:
    with_stop, without = power(TEST, iia, LAST), power(replace(TEST, futility=0.0), iia, LAST)
    assert with_stop.accept <= without.accept + 1e-12
    assert with_stop.reject <= without.reject + 1e-12
    assert with_stop.pairs <= without.pairs + 1e-9


def test_at_the_threshold_it_saves_three_quarters_and_far_from_it_nothing() -> None:
    without = replace(TEST, futility=0.0)
    assert power(TEST, 0.8, 512).pairs < 0.25 * power(without, 0.8, 512).pairs
    for iia in (0.0, 0.3, 1.0):
        assert power(TEST, iia, 512).pairs == pytest.approx(
            power(without, iia, 512).pairs, rel=0.01
        )


def test_all_matches_are_never_given_up_as_long_as_the_last_pair_can_accept() -> None:
    for last in (40, 48, 60, 200):
        assert last < TEST.bounds(last)[0] or all(
            sum(TEST.chances(Evidence(n, n), last)) >= TEST.futility for n in range(last)
        )


def test_fixed_pairs_that_are_all_seen_in_the_end_are_never_given_up() -> None:
    test = replace(TEST, population=60)
    dice = random.Random(1)
    for n in range(2, 60):
        s = dice.randint(0, n)
        assert sum(test.chances(Evidence(n, s), 60)) > test.futility


def test_a_test_on_a_score_waits_for_the_last_pair() -> None:
    test = BettingTest(0.8, 0.05, 0.05)
    assert test.chances(Evidence(3, 0, (0.8, 0.8, 0.8)), 4) == (1.0, 1.0)
