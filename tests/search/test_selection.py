"""What all tests of a search accept together (e-BH), and the intervals of what it accepted (e-BY)."""

import math
import random
from dataclasses import replace
from typing import Any

import pytest

from raysearch.core.records import Decided, Selected
from raysearch.proposers.base import Proposer
from raysearch.proposers.refine import Refine
from raysearch.search.criteria import DecisionRule
from raysearch.search.search import Search
from raysearch.stats.anytime_test import LEVEL
from raysearch.stats.evidence import Evidence
from raysearch.stats.exact_test import ExactTest
from raysearch.stats.false_discovery import e_bh
from raysearch.stats.match_test import MatchTest
from tests.search.sick import Sick, sick_of
from tests.search.test_retry import retry, told_again
from tests.search.worlds import Cluster, World

FDR = DecisionRule(fdr=True)
HALF = lambda layer: float(layer % 2)  # noqa: E731
SHORT = World(3, layers=12, rates=HALF, max_pairs=32, rule=FDR)
"""Its true hypotheses have an e-value of some 100, and K / false_accept is 480."""
NEAR = World(4, layers=12, rates=lambda layer: (0.1, 0.82, 0.9, 0.97)[layer % 4], rule=FDR)
BOTH = World(5, layers=8, rates=HALF, spares=lambda layer: 0.95, max_pairs=80,
             rule=DecisionRule("both", keep_threshold=0.3, fdr=True))  # fmt: skip
MANY = World(5, layers=16, rates=lambda layer: (0.97, 0.1)[layer > 12], max_pairs=78, rule=FDR)
WORLDS = {
    "short": SHORT,
    "many": MANY,
    "near": NEAR,
    "both": BOTH,
    "controls": replace(NEAR, controls=("random_model",)),
    "weights": replace(NEAR, fit=20, rule=DecisionRule(fdr=True, weighted=True)),
    "baselines": replace(SHORT, rule=DecisionRule(fdr=True, above_baselines=True)),
    "scores": replace(
        SHORT,
        layers=4,
        max_pairs=50,
        scores=("probability",),
        rule=DecisionRule(fdr=True, score="probability"),
    ),
}


def driven(world: World, seed: int = 1, **given: Any) -> tuple[Search, dict[str, Selected]]:
    cluster = Cluster(world, 3, seed, **given)
    search = cluster.drive(world.search())
    found = [r for r in cluster.notes if isinstance(r, Selected)]
    assert len({r.hypothesis.id for r in found}) == len(found)
    return search, {r.hypothesis.id: r for r in found}


def accepted(verdicts: dict[str, Decided] | Any) -> set[str]:
    return {
        name for name, d in verdicts.items()
        if d.verdict == "accept" and d.hypothesis.intervention.control is None
    }  # fmt: skip


def fwer(world: World) -> World:
    return replace(world, rule=replace(world.rule, fdr=False))


def test_what_is_undecided_alone_is_accepted_beside_others() -> None:
    alone, beside = driven(fwer(SHORT))[0], driven(SHORT)[0]
    assert accepted(alone.verdicts) == set()
    found = accepted(beside.verdicts)
    assert len(found) == 6  # of v at every other layer
    assert set(beside.estimates) == found


@pytest.mark.slow_unless(which=["short", "both", "controls", "scores"])
@pytest.mark.parametrize("which", WORLDS)
def test_verdicts_and_selection_do_not_depend_on_the_order_of_what_arrives(which: str) -> None:
    world = WORLDS[which]
    search, selected = driven(world)
    for seed in (2, 3):
        again, same = driven(world, seed, lost=0.2, twice=0.3)
        assert again.verdicts == search.verdicts
        assert same == selected
        assert again.estimates == search.estimates


def test_with_fwer_too_the_selection_says_what_fdr_would_accept() -> None:
    search, selected = driven(fwer(MANY))
    found = {name for name, row in selected.items() if row.fdr_verdict == "accept"}
    assert accepted(search.verdicts) < found
    assert {search.verdicts[name].verdict for name in found} == {"accept", "undecided"}
    beside = {name for name in found if selected[name].selected is None}
    assert beside == found - accepted(search.verdicts)
    assert all(selected[name].fcr_low is None for name in beside)


@pytest.mark.parametrize("which", WORLDS)
def test_each_accept_has_the_e_value_that_e_bh_asks(which: str) -> None:
    """By the evidence of the records, without the code that is tested."""
    world = WORLDS[which]
    search, selected = driven(world)
    found = accepted(search.verdicts)
    assert found
    for name in found:
        decided = search.verdicts[name]
        assert decided.level is not None
        assert decided.log_evidence >= -math.log(decided.level * len(found)) - 1e-9
        assert selected[name].selected == len(found)
        assert selected[name].fdr_verdict == "accept"
    if which in ("short", "many"):  # one generation, of which nothing more could be accepted
        excesses = [
            d.log_evidence + math.log(d.level or 1)
            for d in search.verdicts.values()
            if d.verdict in ("accept", "undecided") and d.log_evidence >= math.log(20)
        ]
        assert len(found) == e_bh(excesses)


@pytest.mark.parametrize("which", WORLDS)
def test_fdr_accepts_all_that_fwer_accepts_and_rejects_the_same(which: str) -> None:
    world = WORLDS[which]
    one, other = driven(fwer(world))[0].verdicts, driven(world)[0].verdicts
    assert accepted(one) <= accepted(other)
    real = [n for n, d in one.items() if d.hypothesis.intervention.control is None]
    assert all(other[n].verdict in ("reject", "accept") for n in real if one[n].verdict == "reject")


@pytest.mark.parametrize("fdr", [False, True])
def test_a_corrected_interval_has_the_level_of_all_that_were_accepted(fdr: bool) -> None:
    search, selected = driven(MANY if fdr else fwer(MANY))
    found = accepted(search.verdicts)
    assert found == {name for name, row in selected.items() if row.selected is not None}
    assert 1 < len(found) < len(MANY.space)
    test = MatchTest(0.8, 0.05, 0.05)
    for name in found:
        row, decided = selected[name], search.verdicts[name]
        level = 1 - 0.05 * len(found) / len(MANY.space)
        assert row.fcr_level == pytest.approx(level)
        ends = test.interval(Evidence(decided.n, decided.matches), level)
        assert (row.fcr_low, row.fcr_high) == pytest.approx(ends)
        assert row.fcr_low is not None
        assert row.fcr_high is not None
        assert row.fcr_low < decided.low <= decided.high <= row.fcr_high


def test_one_look_by_tails_is_corrected_by_e_values() -> None:
    world = World(
        5, rates=lambda layer: (0.0, 0.5, 0.82, 0.95)[layer % 4], rule=DecisionRule(at_end=True)
    )
    search, selected = driven(world)
    found = accepted(search.verdicts)
    assert found
    for name in found:
        decided, row = search.verdicts[name], selected[name]
        evidence = Evidence(decided.n, decided.matches)
        assert (decided.low, decided.high) == ExactTest(0.8, 0.05, 0.05).interval(evidence, LEVEL)
        assert row.fcr_level is not None
        ends = MatchTest(0.8, 0.05, 0.05).interval(evidence, row.fcr_level)
        assert (row.fcr_low, row.fcr_high) == pytest.approx(ends)


@pytest.mark.parametrize("continued", [False, True])
def test_in_a_continued_run_each_hypothesis_counts_as_if_it_were_alone(continued: bool) -> None:
    search, _ = driven(fwer(MANY))
    if continued:
        search._decisions.selection.withdraw([])
    found = {r.hypothesis.id: r for r in search._decisions.selection.records()}
    alone = accepted(search.verdicts)
    assert {n for n, r in found.items() if r.selected} == alone
    assert {n for n, r in found.items() if r.fdr_verdict} == (alone if continued else set(found))
    of = 1 if continued else len(alone)
    assert {r.fcr_level for r in found.values() if r.selected} == {1 - (1 - LEVEL) * of / 32}


class Halves(Proposer):
    """Open-ended: one half of the space, then the other."""

    name = "halves"
    max_hypotheses = None

    def __init__(self, world: World) -> None:
        self._space = list(world.space)

    def propose(self, known: Any) -> Any:
        half = len(self._space) // 2
        return self._space[known.generations * half : (known.generations + 1) * half]


@pytest.mark.parametrize("kind", [Halves, lambda world: Refine(world.space)])
def test_generations_settle_one_by_one_and_together_hold_the_rate(kind: Any) -> None:
    world = World(6, layers=12, test=900, rates=lambda layer: (1.0, 0.9, 0.3)[layer % 3],
                  max_pairs=48, rule=FDR)  # fmt: skip
    found = []
    for seed in (1, 2):
        cluster = Cluster(world, 3, seed, lost=0.1)
        found.append(cluster.drive(world.search(kind(world))))
    assert found[0].verdicts == found[1].verdicts
    chosen = accepted(found[0].verdicts)
    assert chosen
    for name in chosen:
        decided = found[0].verdicts[name]
        assert decided.log_evidence >= -math.log((decided.level or 1) * len(chosen)) - 1e-9


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_what_failed_and_is_tried_again_is_settled_with_what_was_accepted(seed: int) -> None:
    sick = Sick(NEAR, 3, seed, sick=sick_of(NEAR, random.Random(seed)), shaky=0.2)
    search = sick.drive(NEAR.search())
    assert "failed" in {d.verdict for d in search.verdicts.values()}
    before = accepted(search.verdicts)
    again = told_again(NEAR, sick.told)
    retry(again)
    mended = Cluster(NEAR, 3, seed)
    mended.drive(again)
    assert "failed" not in {d.verdict for d in again.verdicts.values()}
    assert before <= accepted(again.verdicts)
    last = [r for r in mended.notes if isinstance(r, Selected) and r.selected is not None]
    assert {r.hypothesis.id for r in last} == accepted(again.verdicts)
    assert {r.selected for r in last} == {len(last)}
