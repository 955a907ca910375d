"""Scores in a search: what a test on one reads, its scale, what is told beside and decides nothing."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysearch.core.events import Event, Measured, Screened
from raysearch.core.records import Decided
from raysearch.errors import PairsError
from raysearch.search.criteria import DecisionRule
from raysearch.search.score_scale import ScoreScale
from raysearch.search.search import Search
from raysearch.stats.betting_test import BettingTest
from raysearch.stats.evidence import Evidence
from tests.search.worlds import Cluster, World

ON_PROBABILITY, ON_DIFFERENCE = (
    DecisionRule(score="probability"),
    DecisionRule(score="logit_difference"),
)
EVERY = ("logit_difference", "probability", "kl", "squared_error")


def driven(world: World, workers: int = 2, seed: int = 0, **trouble: float) -> Search:
    return Cluster(world, workers, seed, **trouble).drive(world.search())


def on_scores(rule: DecisionRule = ON_PROBABILITY, **changes: object) -> World:
    return World(
        **{"rule": rule, "scores": EVERY, "fit": 0 if rule is ON_PROBABILITY else 20, **changes}
    )  # type: ignore[arg-type]


def read(world: World, decided: Decided, name: str, changing: bool = True) -> list[float]:
    """The scores of the pairs of a kind up to the verdict, straight from the world; blocks that it
    did not see give none."""
    intervention, variable = decided.hypothesis.intervention, decided.hypothesis.variable
    tests = [
        p for p, e in world.pairs.items() if e.split == "test" and e.changes(variable) == changing
    ]
    count = decided.n if changing else decided.keep_n
    return [world.score(name, variable, p, world.output(intervention, p)) for p in tests[:count]]


@pytest.mark.parametrize("these_pairs", [False, True])
def test_a_verdict_on_a_score_is_that_of_the_scores_of_its_change_pairs_in_their_order(
    these_pairs: bool,
) -> None:
    world = on_scores(these_pairs=these_pairs)
    search = driven(world)
    assert {d.verdict for d in search.verdicts.values()} >= {"accept", "reject"}
    for d in search.verdicts.values():
        changing = sum(
            e.split == "test" and e.changes(d.hypothesis.variable) for e in world.pairs.values()
        )
        test = BettingTest(
            0.8, 0.05, 0.05, len(world.space), population=changing if these_pairs else None
        )
        scores = read(world, d, "probability")
        evidence = Evidence(d.n, 0, tuple(scores))
        assert d.verdict == (test.verdict(evidence) or "undecided")
        assert (d.low, d.high) == test.interval(evidence)
        assert d.score == pytest.approx(sum(scores) / d.n)
        kept = read(world, d, "probability", False)
        assert d.keep_score == (pytest.approx(sum(kept) / len(kept)) if kept else None)
        assert d.claim == ("these_pairs" if these_pairs else "sampler")


def test_every_declared_score_is_averaged_over_the_pairs_that_count_and_decides_nothing() -> None:
    told, silent = on_scores(DecisionRule()), World()
    with_scores, without = driven(told), driven(silent)
    for name, d in with_scores.verdicts.items():
        assert dict(d.means) == pytest.approx({s: sum(read(told, d, s)) / d.n for s in EVERY})
        assert d.score is None
        other = replace(without.verdicts[name], against=None)  # its baseline has other pairs
        assert replace(d, means=(), against=None) == other


def test_a_logit_difference_is_read_on_the_scale_that_fit_pairs_have_without_intervention() -> None:
    world = on_scores(ON_DIFFERENCE)
    search = driven(world)
    leads = [
        -world.score("logit_difference", v, p, None)
        for p, e in world.pairs.items()
        for v in ("v", "w")
        if e.split == "fit" and e.changes(v)
    ]
    scale = sum(leads) / len(leads)
    assert search.preparation.score_scale is not None
    assert search.preparation.score_scale.scale == pytest.approx(scale)
    for d in search.verdicts.values():
        wanted = [
            min(max((x + scale) / (2 * scale), 0), 1) for x in read(world, d, "logit_difference")
        ]
        assert d.score == pytest.approx(sum(wanted) / d.n)
        assert dict(d.means)["logit_difference"] == pytest.approx(
            sum(read(world, d, "logit_difference")) / d.n
        )


def test_the_scale_takes_an_unmoved_answer_to_0_and_one_moved_as_far_to_1() -> None:
    seen = Measured(
        0,
        "i",
        "test",
        0,
        (0,) * 5,
        (),
        0,
        0,
        0.0,
        "",
        "",
        0,
        {"logit_difference": {"v": (-9, -3, 0, 3, 4)}},
    )
    assert ScoreScale("logit_difference", 3.0).of(seen, "v") == (0.0, 0.0, 0.5, 1.0, 1.0)


@settings(max_examples=5, deadline=None)
@given(
    seed=st.integers(0, 1000),
    workers=st.integers(1, 5),
    kinds=st.sampled_from(["change", "both", "unfiltered"]),
)
def test_verdicts_on_a_score_do_not_depend_on_the_cluster(
    seed: int, workers: int, kinds: str
) -> None:
    world = on_scores(
        DecisionRule(kinds, at_end=bool(seed % 2), score="probability"), seed=seed % 5
    )  # type: ignore[arg-type]
    still, wild = driven(world, 1), driven(world, workers, seed, lost=0.3, twice=0.3)
    assert wild.verdicts == still.verdicts
    assert wild.estimates == still.estimates


def test_keep_pairs_decide_by_their_scores_too_where_both_kinds_do() -> None:
    world = on_scores(
        DecisionRule("both", score="probability"),
        rates=lambda layer: 1.0,
        spares=lambda layer: 1.0 if layer < 3 else 0.02,
        test=600,
        max_pairs=600,
    )
    search = driven(world)
    verdicts = {
        d.hypothesis.intervention.units[0].site.layer: d
        for d in search.verdicts.values()
        if d.hypothesis.variable == "v"
    }
    assert [verdicts[layer].verdict for layer in range(6)] == ["accept"] * 3 + ["reject"] * 3
    assert all((verdicts[layer].keep_score or 0) > 0.9 for layer in range(3))


def test_kinds_of_pairs_and_the_holdout_are_told_by_their_mean_scores() -> None:
    world = on_scores(rates=lambda layer: 1.0)
    search = driven(world)
    for d in search.verdicts.values():
        assert d.sets
        for kind in d.sets:
            assert kind.score is not None
            assert kind.low <= kind.score <= kind.high
        total = sum((s.score or 0) * s.n for s in d.sets)
        assert total <= (d.score or 0) * d.n
    assert search.estimates
    for name, e in search.estimates.items():
        found = search.verdicts[name].hypothesis
        pairs = [
            p for p, x in world.pairs.items() if x.split == "holdout" and x.changes(found.variable)
        ]
        scores = [
            world.score("probability", found.variable, p, world.output(found.intervention, p))
            for p in pairs
        ]
        assert e.score == pytest.approx(math.fsum(scores) / len(scores))
        assert all(r.score is not None for r in e.readings)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"fit": 0}, "there are none that the model solves"),
        ({"lead": -1.0}, "prefers the counterfactual by .* without any"),
    ],
)
def test_a_scale_that_cannot_be_taken_is_said_in_one_line(
    changes: dict[str, float], said: str
) -> None:
    with pytest.raises(PairsError, match=said) as error:
        driven(on_scores(ON_DIFFERENCE, **changes))
    assert "\n" not in str(error.value)


def test_scores_are_no_part_of_what_makes_a_repeat_another_answer() -> None:
    """Scores move in their last digits with the company of a row; outputs do not."""
    world = on_scores()
    cluster = Cluster(world, 2, 0)
    search = cluster.drive(world.search())
    told: list[Event] = [e for e in cluster.told if isinstance(e, Measured) and e.scores]
    search.tell([replace(e, scores=None) if isinstance(e, Measured) else e for e in told])
    assert search.snapshot().conflicts == 0


def test_the_scale_follows_from_what_is_journalled() -> None:
    world = on_scores(ON_DIFFERENCE)
    cluster = Cluster(world, 3, 5, lost=0.2, twice=0.2)
    search = cluster.drive(world.search())
    again = world.search()
    again.tell(cluster.told)
    assert any(isinstance(e, Screened) and e.scores for e in cluster.told)
    assert again.preparation.score_scale == search.preparation.score_scale
    assert again.verdicts == search.verdicts
