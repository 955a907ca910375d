"""e-BH and e-BY: the definition, and what they promise over simulated selections of dependent
hypotheses."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysearch.stats.anytime_test import AnytimeTest
from raysearch.stats.betting_test import BettingTest
from raysearch.stats.evidence import Evidence
from raysearch.stats.exact_test import ExactTest
from raysearch.stats.false_discovery import e_bh, e_by_level
from raysearch.stats.match_test import MatchTest

EXCESSES = st.lists(st.floats(-6, 3) | st.sampled_from([0.0, math.inf, -math.inf, -math.log(2)]))
K, PAIRS = 200, 60


@given(EXCESSES)
def test_e_bh_accepts_the_largest_set_each_of_which_has_enough_for_its_size(
    excesses: list[float],
) -> None:
    count = e_bh(excesses)
    sizes = range(1, len(excesses) + 1)
    fits = [k for k in sizes if sum(e >= -math.log(k) for e in excesses) >= k]
    assert count == max(fits, default=0)
    assert count == e_bh(reversed(excesses))
    assert count >= sum(e >= 0 for e in excesses)
    if count:
        assert sum(e >= -math.log(count) for e in excesses) == count


@given(EXCESSES, EXCESSES)
def test_more_hypotheses_never_take_an_accept_back(some: list[float], more: list[float]) -> None:
    assert e_bh([*some, *more]) >= e_bh(some)


def rates_of(seed: int) -> np.ndarray:
    """(search, hypothesis, pair) matches of rate 0.8 that share much of their noise."""
    rng = np.random.default_rng(seed)
    shared, own = rng.standard_normal((300, 1, PAIRS)), rng.standard_normal((300, K, PAIRS))
    return np.asarray(math.sqrt(0.3) * shared + math.sqrt(0.7) * own < 0.8416212)


@pytest.mark.parametrize("of", [1, 10, K])
def test_intervals_of_the_best_ones_miss_no_more_often_than_they_say(of: int) -> None:
    matches = rates_of(of).sum(axis=2)
    best = np.sort(matches, axis=1)[:, -of:]
    test = MatchTest(0.8, 0.05, 0.05, K)

    def missing(level: float) -> float:
        ends = {int(s): test.interval(Evidence(PAIRS, int(s)), level) for s in np.unique(best)}
        return float(np.mean([not ends[s][0] <= 0.8 <= ends[s][1] for s in best.ravel().tolist()]))

    assert missing(e_by_level(1 / K, of)) <= 0.05
    if of == 1:
        assert missing(0.95) > 0.1  # so that a level without correction would be seen


@pytest.mark.parametrize("true", [20, 100])
def test_e_bh_accepts_few_false_ones_whatever_they_share(true: int) -> None:
    draws = rates_of(7)
    draws[:, :true] |= np.random.default_rng(8).random((300, true, PAIRS)) < 0.97
    test = MatchTest(0.8, 0.05, 0.05, K)
    e_values = np.array([test.log_evidence(Evidence(PAIRS, s))[0] for s in range(PAIRS + 1)])
    excesses = e_values[draws.sum(axis=2)] - test.accept_at
    shares, found, alone = [], 0, 0
    for one in excesses:
        count = e_bh(one.tolist())
        accepted = one >= -math.log(count) if count else one > math.inf
        shares.append(accepted[true:].sum() / max(count, 1))
        found += int(accepted[:true].sum())
        alone += int((one[:true] >= 0).sum())
    assert np.mean(shares) <= 0.05
    assert found > 1.3 * alone  # power is what it is for


def test_levels_fall_with_what_is_selected_and_are_never_below_that_of_one_alone() -> None:
    assert e_by_level(1 / 50, 1) == pytest.approx(1 - 0.05 / 50)
    assert e_by_level(1 / 50, 50) == pytest.approx(0.95)
    assert e_by_level(0.4, 30) == pytest.approx(0.95)  # of a large weight


@pytest.mark.parametrize("kind", [MatchTest, BettingTest, ExactTest])
def test_a_test_by_tails_has_a_twin_by_e_values(kind: type[AnytimeTest]) -> None:
    test = kind(0.8, 0.05, 0.05, 10, population=80)
    evidence = Evidence(40, 40, (1.0,) * 40)
    twin = test.by_e_values
    assert (twin is test) == (kind is not ExactTest)
    assert twin.accept_at == test.accept_at
    assert math.exp(twin.log_evidence(evidence)[0]) > 0
    if kind is ExactTest:
        assert twin == MatchTest(0.8, 0.05, 0.05, 10, population=80)
        low, high = twin.interval(evidence)
        assert low <= test.interval(evidence)[0] <= test.interval(evidence)[1] <= high
