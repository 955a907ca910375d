"""The paired test, held to exact expectations, to simulations, and to its own interval."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysearch.stats.betting_test import log_wealth
from raysearch.stats.paired_test import PairedTest

DIFFERENCES = st.lists(
    st.sampled_from([-1.0, -0.5, 0.0, 0.25, 1.0]) | st.floats(-1, 1), max_size=40
)
RUNS, PAIRS = 600, 150


def test_the_wealth_is_that_of_spreading_over_all_shares_by_hand() -> None:
    # integral of (1 + b)(1 - b/2) over b from 0 to 1, and of (1 - b)(1 + b/2)
    up, down = PairedTest().log_evidence([1.0, -0.5])
    assert np.exp(up) == pytest.approx(1 + 1 / 4 - 1 / 6)
    assert np.exp(down) == pytest.approx(1 - 1 / 4 - 1 / 6)


@pytest.mark.parametrize("law", [{-1.0: 0.3, 0.0: 0.4, 1.0: 0.3}, {-0.5: 2 / 3, 1.0: 1 / 3}])
def test_the_wealth_of_both_sides_is_expected_to_be_one_where_the_means_are_equal(
    law: dict[float, float],
) -> None:
    expected = np.zeros(2)
    for sequence in product(law, repeat=6):
        chance = np.prod([law[d] for d in sequence])
        expected += chance * np.exp(PairedTest().log_evidence(sequence))
    assert expected == pytest.approx([1, 1])


@given(DIFFERENCES)
def test_exchanging_the_two_exchanges_the_answers(differences: list[float]) -> None:
    test, mirrored = PairedTest(), [-d for d in differences]
    low, high = test.interval(differences)
    assert test.interval(mirrored) == pytest.approx((-high, -low), abs=1e-4)
    assert test.log_evidence(mirrored) == pytest.approx(test.log_evidence(differences)[::-1])
    other = {"first": "second", "second": "first", None: None}
    assert test.higher(mirrored) == other[test.higher(differences)]


@given(DIFFERENCES, st.sampled_from([0.01, 0.05, 0.5]))
def test_it_decides_exactly_where_the_interval_leaves_out_zero(
    differences: list[float], error: float
) -> None:
    test = PairedTest(error)
    low, high = test.interval(differences)
    assert -1 <= low <= high <= 1
    assert test.higher(differences) == ("first" if low >= 0 else "second" if high <= 0 else None)


@given(DIFFERENCES, st.integers(0, 40))
def test_pairs_on_which_both_score_alike_change_nothing(
    differences: list[float], alike: int
) -> None:
    longer = [*differences[:3], *[0.0] * alike, *differences[3:]]
    test = PairedTest()
    assert test.log_evidence(longer) == pytest.approx(test.log_evidence(differences))


@pytest.mark.parametrize("agree", [0.0, 0.8])
def test_equal_means_are_told_apart_at_any_look_as_rarely_as_promised(agree: float) -> None:
    rng = np.random.default_rng(0)
    d = rng.choice([-1, 0, 1], (RUNS, PAIRS), p=[(1 - agree) / 2, agree, (1 - agree) / 2])
    ever = np.zeros(RUNS, bool)
    for side in (d, -d):
        ever |= (log_wealth((1 + side) / 2, 0.5) >= PairedTest()._test.accept_at).any(axis=-1)
    assert 0 < ever.mean() <= 0.05


def test_the_interval_has_the_true_difference_at_a_stopping_time_chosen_to_miss_it() -> None:
    rng, test, missed = np.random.default_rng(1), PairedTest(), 0
    for _ in range(150):
        x, y = rng.random(60) < 0.9, rng.random(60) < 0.7
        d = (x.astype(float) - y).tolist()
        looks = [test.interval(d[:n]) for n in (10, 20, 40, 60)]
        missed += any(not low <= 0.2 <= high for low, high in looks)
    assert missed <= 13  # of 150 at 5 %: more has a chance of less than .03


def test_a_pairing_that_takes_out_what_is_shared_decides_sooner() -> None:
    """Of 100 pairs both solve 70 and neither solves 20: the other 10 decide."""
    d = [1.0 if n % 10 == 0 else 0.0 for n in range(100)]
    assert PairedTest().higher(d) == "first"
    assert PairedTest().interval(d)[0] >= 0


def test_of_fixed_pairs_the_answer_is_exact_once_all_are_seen() -> None:
    d = [1.0, -1.0, 1.0, 0.0, 0.5]
    low, high = PairedTest(population=5).interval(d)
    assert low == pytest.approx(0.3, abs=1e-4)
    assert high == pytest.approx(0.3, abs=1e-4)
    assert PairedTest(population=5).higher(d) == "first"
    assert PairedTest(population=4).higher([1.0, -1.0, 0.5, -0.5]) is None
    assert PairedTest().higher(d) is None


def test_no_pairs_decide_nothing() -> None:
    assert PairedTest().higher([]) is None
    assert PairedTest().interval([]) == (-1.0, 1.0)
