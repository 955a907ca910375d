"""The test of a bounded score: its errors by simulation, what it has in common with the test of
matches, intervals, set logic."""

from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from raysearch.stats.anytime_test import SPIKES, AnytimeTest
from raysearch.stats.betting_test import BettingTest, log_wealth
from raysearch.stats.evidence import Evidence
from raysearch.stats.match_test import MatchTest

Floats = NDArray[np.float64]
RATES = 0.8, 0.05, 0.05
ALONE, BY_MATCHES = BettingTest(*RATES), MatchTest(*RATES)
RUNS, PAIRS = 600, 90
UNIT = st.floats(0, 1)
POPULATIONS = st.sampled_from([None, 40, 57])


def seen(*scores: float) -> Evidence:
    return Evidence(len(scores), 0, tuple(map(float, scores)))


def crossed(scores: Floats, mean: float, population: int | None = None) -> float:
    """The share of runs (rows) that some look, after any pair, would have decided at 0.05 against a
    mean of at most `mean`."""
    return float((log_wealth(scores, mean, population).max(axis=-1) >= np.log(1 / 0.05)).mean())


def spread(kind: str, mean: float, rng: np.random.Generator) -> Floats:
    """Independent scores of that mean: as far apart as can be, spread out, close together, or of
    two kinds of pairs."""
    size = RUNS, PAIRS
    if kind == "far":
        return (rng.random(size) < mean).astype(float)
    if kind == "near":
        return rng.beta(60 * mean, 60 * (1 - mean), size)
    if kind == "wide":
        return rng.beta(2 * mean, 2 * (1 - mean), size)
    edge = min(mean, 1 - mean)
    return np.where(rng.random(size) < 0.5, mean - edge, mean + edge)


@pytest.mark.parametrize("kind", ["far", "near", "wide", "two"])
@pytest.mark.parametrize("mean", [0.3, 0.8])
def test_at_the_threshold_a_false_verdict_at_any_look_is_no_more_likely_than_allowed(
    kind: str, mean: float
) -> None:
    """600 runs looked at after every pair. Where 5 % are allowed more than 7.7 % are seen once in a
    thousand times."""
    scores = spread(kind, mean, np.random.default_rng([7, len(kind), round(10 * mean)]))
    assert crossed(scores, mean) <= 0.077
    assert crossed(1 - scores, 1 - mean) <= 0.077


@pytest.mark.parametrize("kind", ["far", "wide"])
def test_of_fixed_pairs_in_a_random_order_too(kind: str) -> None:
    rng = np.random.default_rng(11)
    pairs = (np.arange(PAIRS) < 72).astype(float) if kind == "far" else rng.beta(1.6, 0.4, PAIRS)
    mean = float(pairs.mean())
    orders = rng.permuted(np.tile(pairs, (RUNS, 1)), axis=1)
    assert crossed(orders, mean, PAIRS) <= 0.077
    assert crossed(1 - orders, 1 - mean, PAIRS) <= 0.077


@pytest.mark.parametrize("population", [None, PAIRS])
def test_the_wealth_is_expected_to_shrink_under_the_null(population: int | None) -> None:
    """Of independent scores of 0 and 1 exactly, of fixed ones over many orders: the e-value's mean
    is at most 1."""
    if population is None:
        paths = np.array([[b >> i & 1 for i in range(10)] for b in range(1 << 10)], dtype=float)
        chances = np.prod(np.where(paths == 1, 0.8, 0.2), axis=1)
        expected = (np.exp(log_wealth(paths, 0.8)) * chances[:, None]).sum(axis=0)
        assert expected == pytest.approx(np.ones(10))
        return
    pairs = np.random.default_rng(3).beta(1.6, 0.4, population)
    orders = np.random.default_rng(4).permuted(np.tile(pairs, (RUNS, 1)), axis=1)
    wealth = np.exp(log_wealth(orders, float(pairs.mean()), population))[:, : population // 2]
    assert (wealth.mean(axis=0) <= 1 + 4 * wealth.std(axis=0) / np.sqrt(RUNS)).all()


@given(outcomes=st.lists(st.booleans(), min_size=1, max_size=120))
def test_of_scores_of_0_and_1_it_is_the_test_of_matches(outcomes: list[bool]) -> None:
    ours = ALONE.log_evidence(seen(*outcomes))
    assert ours == pytest.approx(
        BY_MATCHES.log_evidence(Evidence(len(outcomes), sum(outcomes))), abs=1e-7
    )


def test_it_says_more_of_scores_that_lie_closer_together() -> None:
    """The growth of a bet is concave in the score: of one mean, scores of 0 and 1 are told latest."""
    half = np.tile([0.9, 0.98], 30)
    ends = np.tile(np.r_[np.ones(47), np.zeros(3)], 2)[:60]
    assert half.mean() == ends[:50].mean()
    assert ALONE.verdict(seen(*half)) == "accept"
    assert log_wealth(half[:50], 0.8)[-1] > log_wealth(np.sort(ends[:50]), 0.8)[-1] + 0.2


def test_power_is_that_of_a_sensible_test() -> None:
    """At K = 1000 and a mean of 0.9: half of the runs are accepted within 150 pairs, all of a mean
    of 0.2 rejected within 12."""
    rng = np.random.default_rng(5)
    good = log_wealth(rng.beta(9, 1, (200, 150)), 0.8)[:, -1] >= np.log(1000 / 0.05)
    bad = log_wealth(1 - rng.beta(0.4, 1.6, (200, 12)), 0.2)[:, -1] >= np.log(1 / 0.05)
    assert good.mean() > 0.5
    assert bad.all()


@settings(max_examples=60)
@given(
    scores=st.lists(UNIT, min_size=1, max_size=30),
    at=st.integers(0, 29),
    more=UNIT,
    population=POPULATIONS,
)
def test_evidence_rises_with_every_score_and_falls_with_the_threshold(
    scores: list[float], at: int, more: float, population: int | None
) -> None:
    at %= len(scores)
    higher = [*scores[:at], max(scores[at], more), *scores[at + 1 :]]
    one, two = (
        BettingTest(*RATES, population=population).log_evidence(seen(*s)) for s in (scores, higher)
    )
    assert one[0] <= two[0] + 1e-9
    assert one[1] >= two[1] - 1e-9
    lower = BettingTest(0.6, 0.05, 0.05, population=population).log_evidence(seen(*scores))
    assert lower[0] >= one[0] - 1e-9
    assert lower[1] <= one[1] + 1e-9


@given(scores=st.lists(UNIT, min_size=2, max_size=20))
def test_of_independent_draws_the_order_says_nothing(scores: list[float]) -> None:
    assert ALONE.log_evidence(seen(*scores)) == pytest.approx(
        ALONE.log_evidence(seen(*sorted(scores))), abs=1e-9
    )


@settings(max_examples=60)
@given(scores=st.lists(st.sampled_from([0.0, 0.25, 0.7, 0.8, 0.9, 1.0]), min_size=1, max_size=40))
def test_fixed_pairs_are_decided_exactly_once_all_are_seen(scores: list[float]) -> None:
    test: AnytimeTest = BettingTest(0.8, 1e-9, 1e-9, 10**6, population=len(scores))
    hundredths = sum(round(100 * x) for x in scores) - 80 * len(scores)
    assert test.verdict(seen(*scores)) == (
        "accept" if hundredths > 0 else "reject" if hundredths < 0 else None
    )
    low, high = test.interval(seen(*scores))
    assert low <= np.mean(scores) <= high
    assert high - low < 1e-8


def test_a_state_that_is_impossible_under_a_null_decides_at_once() -> None:
    test = BettingTest(0.5, 1e-9, 1e-9, 10**6, population=10)
    assert test.log_evidence(seen(*[0.9] * 6)) == (inf, -inf)
    assert test.log_evidence(seen(*[0.1] * 6)) == (-inf, inf)
    assert test.verdict(seen(*[0.9] * 5)) is None


def test_of_no_pairs_nothing_is_said() -> None:
    for population in (None, 0, 10):
        test = BettingTest(*RATES, population=population)
        assert test.verdict(Evidence()) is None
        assert test.interval(Evidence()) == (0.0, 1.0)


@pytest.mark.parametrize("population", [None, PAIRS])
def test_the_interval_covers_at_every_time_at_once(population: int | None) -> None:
    """A mean is outside at some time if either bet against it wins 2 / 0.05: counted over 600 runs,
    after every pair."""
    rng = np.random.default_rng(13)
    pairs = rng.beta(1.2, 0.8, PAIRS)
    scores = (
        rng.permuted(np.tile(pairs, (RUNS, 1)), axis=1)
        if population
        else rng.beta(1.2, 0.8, (RUNS, PAIRS))
    )
    mean = float(pairs.mean()) if population else 0.6
    low = log_wealth(scores, mean, population).max(axis=-1) >= np.log(2 / 0.05)
    high = log_wealth(1 - scores, 1 - mean, population).max(axis=-1) >= np.log(2 / 0.05)
    assert (low | high).mean() <= 0.077
    test = BettingTest(*RATES, population=population)
    for row in scores[:20]:
        ends = test.interval(seen(*row[:40]))
        won = [
            log_wealth(s[:40], m, population)[-1] >= np.log(40)
            for s, m in ((row, mean), (1 - row, 1 - mean))
        ]
        assert (ends[0] <= mean <= ends[1]) == (not any(won))


@settings(max_examples=40)
@given(scores=st.lists(UNIT, min_size=1, max_size=40), population=st.sampled_from([None, 41]))
def test_the_ends_of_an_interval_are_where_the_bets_are_won(
    scores: list[float], population: int | None
) -> None:
    test, step = BettingTest(*RATES, population=population), 2e-5
    low, high = test.interval(seen(*scores))
    assert 0 <= low <= high <= 1
    for end, x in ((low, np.array(scores)), (1 - high, 1 - np.array(scores))):
        sure = x.sum() / population if population else 0
        assert end >= sure - 1e-8
        if end > sure + step:
            assert log_wealth(x, end - step, population)[-1] >= np.log(2 / 0.05)
        assert log_wealth(x, min(end + step, 1), population)[-1] < np.log(2 / 0.05)
        if population is None:
            assert end <= x.mean() + 1e-9


def test_the_wealth_is_the_integral_written_out_at_the_price_of_what_is_left() -> None:
    """Two of four pairs at a mean of 0.6: the second is bet on at (2.4 - 0.5) / 3."""
    b = np.linspace(0, 1, 100_001)
    first = 1 + b * (0.5 / 0.6 - 1)
    for population, price in ((None, 0.6), (4, 1.9 / 3)):
        by_hand = np.trapezoid(first * (1 + b * (0.9 / price - 1)), b)
        assert np.exp(log_wealth(np.array([0.5, 0.9]), 0.6, population))[1] == pytest.approx(
            by_hand, abs=1e-7
        )


@pytest.mark.parametrize("population", [None, 30])
def test_within_the_band_of_indifference_neither_side_is_bet_against(
    population: int | None,
) -> None:
    x = np.array([0.9, 0.4, 0.75, 1.0, 0.8])
    test = BettingTest(*RATES, indifference=0.1, population=population)
    up, down = SPIKES
    sides = (
        log_wealth(x, 0.7, population, up)[-1],
        log_wealth(1 - x, 0.1, population, down)[-1],
    )
    assert test.log_evidence(seen(*x)) == pytest.approx(sides)
