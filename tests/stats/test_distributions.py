"""The distributions of the tests are scipy.stats', which is imported in tests alone."""

import subprocess
import sys

import numpy as np
import pytest
import scipy.special
import scipy.stats
from numpy.testing import assert_allclose, assert_array_equal

from raysearch.stats.distributions import beta, binom, hypergeom, log_sum


@pytest.mark.parametrize("x", [1e-9, 0.3, 0.8, 0.85, 1 - 1e-9])
def test_the_tails_of_a_beta_are_those_of_scipy_bit_for_bit(x: float) -> None:
    a, b = (1.0 + grid for grid in np.meshgrid(np.arange(0, 600, 7), np.arange(0, 600, 7)))
    assert_array_equal(beta.logsf(x, a, b), scipy.stats.beta.logsf(x, a, b))
    assert_array_equal(beta.logcdf(x, a, b), scipy.stats.beta.logcdf(x, a, b))


@pytest.mark.parametrize("n", [1, 12, 400])
@pytest.mark.parametrize("p", [0.0, 0.2, 0.85, 1.0])
def test_the_chances_of_a_binomial_are_those_of_scipy(n: int, p: float) -> None:
    k = np.arange(n + 1)
    assert_allclose(binom.pmf(k, n, p), scipy.stats.binom.pmf(k, n, p), rtol=1e-10, atol=1e-300)


@pytest.mark.parametrize("drawn", [1, 30, 100])
@pytest.mark.parametrize("good", [0, 3, 85, 100])
def test_the_chances_of_a_draw_without_replacement_are_those_of_scipy(
    good: int, drawn: int
) -> None:
    k = np.arange(drawn + 1)
    expected = scipy.stats.hypergeom.pmf(k, 100, good, drawn)
    assert_allclose(hypergeom.pmf(k, 100, good, drawn), expected, rtol=1e-10, atol=1e-300)


@pytest.mark.parametrize("axis", [-2, -1])
def test_a_sum_of_logs_is_that_of_scipy(axis: int) -> None:
    made = np.random.default_rng(0)
    logs, weights = made.normal(scale=300, size=(65, 40)), made.random((65, 1))
    logs[:, 0], logs[3, 1], weights[7] = -np.inf, -np.inf, 0.0
    for given in (weights, None):
        expected = scipy.special.logsumexp(logs, axis=axis, b=given)
        assert_allclose(log_sum(logs, axis, given), expected, rtol=1e-13)


def test_a_test_of_matches_imports_no_scipy_stats() -> None:
    script = "import sys, raysearch.stats.power; print('scipy.stats' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
