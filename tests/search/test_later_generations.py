"""Later generations: what is true is found there, and verdicts follow from outputs alone, whatever
is lost, repeated, resumed or tried again."""

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysearch.proposers.base import judged_at
from raysearch.search.pair_blocks import ENOUGH, deal
from raysearch.search.screening import GENERATIONS
from raysearch.search.search import Search
from raysearch.stats.match_test import MatchTest
from raysearch.stats.power import power
from tests.search.sick import Sick, sick_of
from tests.search.test_generations import Batches
from tests.search.test_retry import failed, outcome, retry, told_again
from tests.search.worlds import Cluster, World

SIZES = [2, 3, 4, 3]


def world(seed: int) -> World:
    rates = lambda layer: (0.3, 0.7, 0.95, 0.85, 0.95, 1.0)[layer % 6]  # noqa: E731
    return World(seed, layers=6, test=900, max_pairs=150, rates=rates)


def batches(of: World, sizes: list[int] = SIZES) -> Batches:
    return Batches(of.space, sizes)


def parts_of(search: Search) -> dict[str, float]:
    return {name: d.level or 0.0 for name, d in search.verdicts.items()}


@pytest.mark.slow
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), dies=st.booleans())
def test_what_failed_in_any_generation_keeps_its_pairs_and_level_when_it_is_tried_again(
    seed: int, dies: bool
) -> None:
    of, rng = world(seed % 4), random.Random(seed)
    wanted = Cluster(of, 1, 0).drive(of.search(batches(of)))
    sick = Sick(of, 3, seed, 0.1, 0.3, sick=sick_of(of, rng), dies=dies)
    sick.drive(of.search(batches(of)))
    again = told_again(of, sick.told, batches(of))
    assert failed(again)
    retry(again)
    mended = Cluster(of, 3, seed, lost=0.2, twice=0.3).drive(again)
    assert parts_of(mended) == parts_of(wanted)
    assert outcome(mended) == outcome(wanted)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), cut=st.floats(0, 1))
def test_a_search_that_is_cut_off_in_any_generation_comes_to_the_same_when_it_is_resumed(
    seed: int, cut: float
) -> None:
    of = world(seed % 4)
    whole = Cluster(of, 3, seed, lost=0.2, twice=0.3)
    wanted = whole.drive(of.search(batches(of)))
    resumed = told_again(of, whole.told[: int(cut * len(whole.told))], batches(of))
    Cluster(of, 2, seed + 1, lost=0.2, twice=0.3).drive(resumed)
    assert outcome(resumed) == outcome(wanted)


@pytest.mark.slow
@pytest.mark.parametrize("generation", [2, 5])
def test_a_set_whose_true_iia_is_95_is_accepted_in_nine_of_ten_runs(generation: int) -> None:
    """20 runs each; where nine of ten are accepted, fewer than 14 are seen twice in a thousand
    times."""
    accepted = 0
    for seed in range(20):
        of = World(
            seed, layers=generation, test=GENERATIONS * 290, holdout=0, max_pairs=290, rows=1024,
            rates=lambda layer: 0.95 if layer == generation - 1 else 0.1,
        )  # fmt: skip
        last = [h for h in of.space if h.intervention.units[0].site.layer == generation - 1]
        search = Cluster(of, 1, 0).drive(of.search(batches(of, [2] * generation)))
        accepted += (
            next(search.verdicts[h.id] for h in last if h.variable == "v").verdict == "accept"
        )
    assert accepted >= 14


@pytest.mark.parametrize("asked", [256, 512])
def test_each_generation_has_enough_pairs_until_there_are_none_left(asked: int) -> None:
    """A true IIA of 95 % is to be accepted in nine of ten runs. What is missing to .98 is what the
    futility stop gives up, for fewer pairs of all that lies near the threshold."""
    sizes = [len(part) for part in deal(tuple(range(GENERATIONS * asked)), asked)]
    assert min(sizes) >= ENOUGH
    assert len(sizes) >= GENERATIONS
    for g, size in enumerate(sizes, 1):
        test = MatchTest(0.8, 0.05, 0.05, judged_at(None, 100, g))
        assert power(test, 0.95, size).accept > 0.93
        assert power(replace(test, futility=0), 0.95, size).accept > 0.98


def test_of_few_pairs_the_first_generation_gets_half_and_the_second_what_is_left() -> None:
    assert [len(part) for part in deal(tuple(range(300)), 512)] == [150, 150]
    assert [len(part) for part in deal(tuple(range(700)), 512)] == [350, 256, 94]
    assert [len(part) for part in deal(tuple(range(6)), 512)] == [6]


def test_controls_spend_nothing_in_a_later_generation_either() -> None:
    of = replace(world(2), controls=("placebo",))
    plain = Cluster(world(2), 1, 0).drive(world(2).search(batches(of)))
    beside = Cluster(of, 1, 0).drive(of.search(batches(of)))
    mine = {k: v for k, v in parts_of(beside).items() if k in plain.verdicts}
    assert mine == parts_of(plain)
    assert len(beside.verdicts) > len(mine)
