"""The verdict at every threshold: what the evidence of one test says of all of them at once."""

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysearch.search.criteria import THRESHOLDS, Criterion, DecisionRule
from raysearch.stats.anytime_test import AnytimeTest
from raysearch.stats.betting_test import BettingTest
from raysearch.stats.evidence import Evidence, looks
from raysearch.stats.match_test import MatchTest
from tests.search.test_baseline_policies import near, verdicts
from tests.search.worlds import Cluster, World

TEST = MatchTest(0.8, 0.05, 0.05, hypotheses=20)
NOTHING = Evidence()


def spans_of(criterion: Criterion, change: Evidence, keep: Evidence = NOTHING) -> list[str | None]:
    """The verdict at each threshold, without the code that is tested."""
    found: list[str | None] = []
    for t in THRESHOLDS:
        moved = replace(criterion.change, threshold=t)
        kept = criterion.keep
        if kept is not None and kept.threshold == criterion.change.threshold:
            kept = replace(kept, threshold=t)
        found.append(replace(criterion, change=moved, keep=kept).verdict(change, keep))
    return found


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 60), st.integers(0, 60), st.sampled_from([None, 150]), st.booleans(),
    st.sampled_from([None, 0.8, 0.6]),
)  # fmt: skip
def test_a_span_is_the_verdict_at_each_threshold(
    s: int, f: int, population: int | None, scores: bool, keep_threshold: float | None
) -> None:
    kind: type[AnytimeTest] = BettingTest if scores else MatchTest
    test = kind(0.8, 0.05, 0.05, 20, population=population)
    values = tuple([1.0] * s + [0.0] * f) if scores else ()
    change, keep = Evidence(s + f, s, values), Evidence(40, 39, (0.9,) * 40 if scores else ())
    other = None if keep_threshold is None else replace(test, threshold=keep_threshold)
    criterion = Criterion(test, other)
    verdicts = spans_of(criterion, change, keep)
    accept_to, reject_from = criterion.span(change, keep)
    accepted = [t for t in THRESHOLDS if accept_to is not None and t <= accept_to]
    rejected = [t for t in THRESHOLDS if reject_from is not None and t >= reject_from]
    assert all(verdicts[THRESHOLDS.index(t)] == "accept" for t in accepted)
    assert all(verdicts[THRESHOLDS.index(t)] == "reject" for t in rejected)
    assert "accept" not in verdicts[len(accepted) :][:1]
    assert "reject" not in verdicts[: len(verdicts) - len(rejected)][-1:]


def test_a_band_of_indifference_shortens_the_list() -> None:
    test = MatchTest(0.8, 0.05, 0.05, indifference=0.1)
    accept_to, reject_from = Criterion(test).span(Evidence(400, 400), NOTHING)
    assert (accept_to, reject_from) == (0.85, None)


@pytest.mark.parametrize("share", [0.62, 0.8, 0.93])
def test_no_threshold_is_falsely_passed_more_often_than_one_may_be(share: float) -> None:
    """Of all thresholds together: a run at 0.7 that stops when it is decided there. At 20 hypotheses
    and 5 % a false accept has 0.0025, a false reject 0.05."""
    criterion = Criterion(replace(TEST, threshold=0.7, false_accept=0.8))  # 0.04 each, to see some
    rng, runs, above, below = random.Random(5), 600, 0, 0
    for _ in range(runs):
        seen = Evidence()
        for n in looks(150):
            new = sum(rng.random() < share for _ in range(n - seen.n))
            seen = Evidence(n, seen.matches + new)
            if criterion.verdict(seen, NOTHING) is not None:
                break
        accept_to, reject_from = criterion.span(seen, NOTHING)
        above += accept_to is not None and accept_to >= share
        below += reject_from is not None and reject_from <= share
    assert above <= 0.04 * runs + 3 * (0.04 * runs) ** 0.5
    assert below <= 0.05 * runs + 3 * (0.05 * runs) ** 0.5


def test_a_row_has_the_span_of_its_evidence_and_none_that_is_not_above_its_baseline() -> None:
    world = World(3)
    search = Cluster(world, 2, 0).drive(world.search())
    found = search.verdicts.values()
    assert {d.verdict for d in found} >= {"accept", "reject"}
    for d in found:
        own = THRESHOLDS.index(0.8)
        criterion = Criterion(replace(TEST, hypotheses=len(world.space)))
        assert (d.accept_to, d.reject_from) == criterion.span(Evidence(d.n, d.matches), NOTHING)
        if d.verdict == "accept":
            assert d.accept_to is not None
            assert THRESHOLDS.index(d.accept_to) >= own
        if d.verdict == "reject":
            assert d.reject_from is not None
            assert d.reject_from <= 0.8


def test_what_does_not_beat_its_baseline_is_accepted_at_no_threshold() -> None:
    world = near(0.97)
    assert verdicts(world)["v", 1].accept_to is not None
    world.rule = DecisionRule(above_baselines=True)
    gated = verdicts(world)["v", 1]
    assert (gated.verdict, gated.accept_to) == ("undecided", None)
