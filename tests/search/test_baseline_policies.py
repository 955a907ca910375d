"""Baselines: what pure policies score, chosen from pairs that are never tested, and what they gate."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from raysearch.core.baselines import POLICIES, Baseline
from raysearch.core.records import Decided
from raysearch.search.baseline_policies import Policy, best_policies, policies_of
from raysearch.search.criteria import DecisionRule
from raysearch.search.pair_blocks import ExpectedAnswers
from tests.search.worlds import Cluster, World

ANSWERS = [(i,) for i in range(10)]


def pair(
    v: int, w: int, split: str = "fit", base: int = 0, source: int = 1, **other: int
) -> ExpectedAnswers:
    sources = {"source": (source,), **{name: (ids,) for name, ids in other.items()}}
    return ExpectedAnswers(split, (base,), sources, {"v": (v,), "w": (w,)})  # type: ignore[arg-type]


def shares(pairs: list[ExpectedAnswers], variable: str = "v") -> dict[str, float]:
    found = policies_of(dict(enumerate(pairs)), variable, "change")
    return {p.baseline.policy: p.baseline.share for p in found}


def test_there_are_these_policies_and_each_has_words() -> None:
    assert list(POLICIES) == ["copy", "act", "always", "keep"]
    told = [Baseline("v", policy, of, 0.5, 10).words for policy, of in
            (("copy", "source"), ("copy", "s2"), ("act", "w"), ("always", ""), ("keep", ""))]  # fmt: skip
    assert told == [
        "gives the answer of the source",
        "gives the answer of the source s2",
        "acts on w in its place",
        "always gives one answer",
        "keeps the base's answer",
    ]


def test_each_policy_scores_the_share_of_pairs_on_which_it_is_right() -> None:
    pairs = [pair(1, 5), pair(1, 1), pair(2, 2), pair(3, 3, source=3), pair(4, 5)]
    assert shares(pairs) == {"copy": 0.6, "act": 0.6, "always": 0.4, "keep": 0.0}


def test_pairs_that_the_variable_leaves_alone_do_not_count_unless_all_do() -> None:
    pairs = dict(enumerate([pair(0, 5), pair(0, 5), pair(1, 5)]))
    assert {p.baseline.pairs for p in policies_of(pairs, "v", "change")} == {1}
    unfiltered = policies_of(pairs, "v", "unfiltered")
    assert unfiltered[0].baseline == Baseline("v", "always", "", 2 / 3, 3)
    assert {"keep": 2 / 3}.items() <= {
        p.baseline.policy: p.baseline.share for p in unfiltered
    }.items()


def test_the_best_source_and_the_best_variable_are_taken() -> None:
    pairs = dict(enumerate([pair(2, 5, s2=2), pair(3, 3, s2=3), pair(4, 9, s2=4)]))
    best = policies_of(pairs, "v", "change")[0].baseline
    assert (best.policy, best.of, best.share, best.same) == ("copy", "s2", 1.0, True)


def test_scores_come_from_pairs_that_are_never_tested_where_there_are_any() -> None:
    tested = [pair(2, 2, "test")] * 5
    assert shares([*tested, pair(2, 3), pair(1, 3, "holdout")]) == {
        "copy": 0.5, "act": 0.0, "always": 0.5, "keep": 0.0,
    }  # fmt: skip
    assert shares(tested)["act"] == 1.0, "none is left: what all expect"


def test_a_policy_that_differs_on_a_tested_pair_alone_is_not_the_variable() -> None:
    pairs = {0: pair(2, 2), 1: pair(3, 3), 2: pair(4, 5, "test")}
    best = best_policies(pairs, "change")["v"]
    assert best is not None
    assert (best.baseline.policy, best.baseline.share, best.baseline.same) == ("act", 1.0, False)


def test_a_variable_without_a_pair_that_counts_has_no_baseline() -> None:
    assert best_policies({0: pair(0, 1)}, "change")["v"] is None


# --- in a search


def near(at: float) -> World:
    """A world whose v is what acting on w gives, on a share `at` of the pairs that v changes."""
    world = World(1, layers=2, rates=lambda layer: (0.3, 0.99)[layer])
    found: dict[int, ExpectedAnswers] = {}
    for i, e in world.pairs.items():
        v = (10 + i % 7,) if e.changes("v") else e.base
        w = v if e.changes("v") and i * 37 % 100 < 100 * at else (20,)
        found[i] = replace(e, counterfactual={"v": v, "w": w})
    world.pairs = found
    return world


def verdicts(world: World) -> Mapping[tuple[str, int], Decided]:
    search = Cluster(world, 3, 1).drive(world.search())
    found = {}
    for d in search.verdicts.values():
        layer = d.hypothesis.intervention.units[0].site.layer
        found[d.hypothesis.variable, layer or 0] = d
    return found


@pytest.mark.parametrize(("at", "gated"), [(0.0, "accept"), (0.97, "undecided"), (1.0, "accept")])
def test_the_gate_holds_back_what_does_not_beat_the_best_policy_where_the_two_differ(
    at: float, gated: str
) -> None:
    world = near(at)
    assert verdicts(world)["v", 1].verdict == "accept", "off by default"
    world.rule = DecisionRule(above_baselines=True)
    assert verdicts(world)["v", 1].verdict == gated
    assert verdicts(world)["v", 0].verdict == "reject"


def test_an_accept_has_its_margin_and_one_that_nothing_can_beat_has_none() -> None:
    clear = verdicts(near(0.0))["v", 1].against
    assert clear is not None
    assert clear.low is not None
    assert clear.high is not None
    assert 0 < clear.low <= 0.99 - clear.share <= clear.high <= 1
    close = verdicts(near(0.97))["v", 1].against
    assert close is not None
    assert close.baseline == Baseline("v", "act", "w", close.baseline.share, close.baseline.pairs)
    assert close.low is not None
    assert close.low <= 0
    same = verdicts(near(1.0))["v", 1].against
    assert same is not None
    assert (same.baseline.same, same.share, same.low, same.high) == (True, 1.0, None, None)
    refused = verdicts(near(0.0))["v", 0].against
    assert refused is not None
    assert (refused.low, refused.high) == (None, None)


def test_a_policy_answers_none_where_the_pair_lacks_what_it_needs() -> None:
    assert Policy(Baseline("v", "copy", "s2", 0.0, 1)).gives(pair(1, 2)) is None
    assert Policy(Baseline("v", "keep", "", 0.0, 1)).gives(pair(1, 2, base=7)) == (7,)
    assert Policy(Baseline("v", "always", "", 0.0, 1), (9,)).gives(pair(1, 2)) == (9,)
