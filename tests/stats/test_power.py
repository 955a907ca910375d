"""What `plan` says of chances and pairs, against a simulation of the test itself: pairs drawn,
looks taken, verdicts as they fall."""

import random
from functools import cache

import pytest

from raysearch.stats.evidence import Evidence, looks
from raysearch.stats.match_test import MatchTest
from raysearch.stats.power import power

TIMES = 3000


def _course(
    test: MatchTest, iia: float, last: int, dice: random.Random, at_end: bool
) -> tuple[str, int]:
    """One hypothesis to its verdict: which, after how many pairs."""
    if test.population is None:
        matches = [dice.random() < iia for _ in range(last)]
    else:
        total = round(iia * test.population)
        matches = dice.sample([True] * total + [False] * (test.population - total), last)
    for look in (last,) if at_end else looks(last):
        verdict = _stopped(test, look, sum(matches[:look]), last)
        if verdict is not None:
            return verdict, look
    return "undecided", last


@cache  # many hypotheses come by the same counts
def _stopped(test: MatchTest, look: int, matches: int, last: int) -> str | None:
    """The verdict at a look, "undecided" where none is likely any more; None: it goes on."""
    evidence = Evidence(look, matches)
    verdict = test.verdict(evidence)
    if verdict is None and sum(test.chances(evidence, last)) < test.futility:
        return "undecided"
    return verdict


@pytest.mark.slow_unless(at_end=[True])
@pytest.mark.slow_unless(population=[None], iia=[0.3, 0.8, 0.97])
@pytest.mark.slow_unless(population=[150], iia=[0.72])
@pytest.mark.parametrize("at_end", [False, True])
@pytest.mark.parametrize("population", [None, 150])
@pytest.mark.parametrize("iia", [0.3, 0.72, 0.8, 0.9, 0.97])
def test_the_chances_are_those_of_a_simulation(
    iia: float, population: int | None, at_end: bool
) -> None:
    test = MatchTest(0.8, 0.05, 0.05, hypotheses=540, population=population)
    dice = random.Random(f"{iia} {population} {at_end}")
    seen = [_course(test, iia, 150, dice, at_end) for _ in range(TIMES)]
    told = power(test, iia, 150, at_end)
    for name in ("accept", "reject", "undecided"):
        share, chance = sum(v == name for v, _ in seen) / TIMES, getattr(told, name)
        assert share == pytest.approx(
            chance, abs=4.5 * (max(chance * (1 - chance), 1 / TIMES) / TIMES) ** 0.5
        ), name
    mean = sum(n for _, n in seen) / TIMES
    spread = (sum((n - mean) ** 2 for _, n in seen) / TIMES) ** 0.5
    assert mean == pytest.approx(told.pairs, abs=max(4.5 * spread / TIMES**0.5, 1e-9))
