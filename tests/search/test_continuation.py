"""Searches that go on: undecided hypotheses on further pairs, by the same evidence, or anew where the
horizon is fixed."""

import math
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysearch.core.events import Continued, JournalledEvent, Measured
from raysearch.core.hypothesis import Subspace
from raysearch.core.records import Counted, Decided, Record
from raysearch.proposers.base import Proposer
from raysearch.search.criteria import DecisionRule
from raysearch.search.search import Search
from raysearch.stats.evidence import Evidence, looks
from raysearch.stats.exact_test import ExactTest
from raysearch.stats.match_test import MatchTest
from tests.search.sick import Sick, sick_of
from tests.search.test_retry import outcome
from tests.search.worlds import Cluster, World

RATES = (0.6, 0.74, 0.78, 0.8, 0.82, 0.86, 0.95)


def near(layer: int) -> float:
    return RATES[layer % len(RATES)]


def open_world(seed: int = 0, **keys: Any) -> World:
    """Rates near the threshold; 30 pairs, then 40 and 50 more, which a sampler drew."""
    keys = {"layers": 7, "test": 30, "max_pairs": 30, "more": (60, 70), "rates": near} | keys
    return World(seed, **keys)


def go_on(
    search: Search, told: list[JournalledEvent], pairs: int, cluster: Cluster
) -> list[Record]:
    """Continues a search that is done, and drives it to its end; adds to `told` what it was told."""
    event = search.continuation(pairs)
    if not event.hypotheses:
        return []
    cluster.notes += search.tell([event])
    search.validate()
    told.append(event)
    cluster.drive(search)
    told += cluster.told
    return cluster.notes


def continued(
    world: World, pairs: Sequence[int] = (40, 50), cluster: Any = Cluster, **how: Any
) -> tuple[Search, list[JournalledEvent], list[Record]]:
    """A search of the world that was continued by so many pairs, one after the other."""
    first = cluster(world, how.pop("workers", 2), how.pop("seed", 0), **how)
    search = first.drive(world.search(how.pop("proposer", None), continued=True))
    told: list[JournalledEvent] = [*first.told]
    notes = [*first.notes]
    for number, n in enumerate(pairs):
        notes += go_on(search, told, n, cluster(world, 1 + number, number, **how))
    return search, told, notes


def test_without_futility_the_verdicts_are_those_of_a_search_that_had_as_many_pairs_from_the_start() -> (
    None
):
    """A search of 70 pairs looks where one of 30 and 40 more does, but after the 30th; what is undecided
    there is decided alike."""
    for seed in range(3):
        world = open_world(seed, layers=5, test=70, more=(), futility=0.0)
        long = Cluster(replace(world, max_pairs=70), 1, 0).drive(
            replace(world, max_pairs=70).search()
        )
        search, told, _ = continued(world, (40,))
        went_on = [name for e in told if isinstance(e, Continued) for name in e.hypotheses]
        assert went_on
        for name in went_on:
            assert search.verdicts[name] == long.verdicts[name]


@pytest.mark.parametrize("kind", ["drawn", "at hand", "these pairs"])
def test_evidence_goes_on_block_by_block_from_where_a_hypothesis_stopped(kind: str) -> None:
    """By brute force, futility stops included: 30 pairs, 40 and 50 more of one order of pairs."""
    for seed in range(2):
        more: dict[str, Any] = {} if kind == "drawn" else {"test": 150, "more": ()}
        world = open_world(seed, layers=5, these_pairs=kind == "these pairs", **more)
        _, told, notes = continued(world)
        rounds = [e for e in told if isinstance(e, Continued)]
        assert len(rounds) == 2
        made: dict[str, list[Decided]] = defaultdict(list)
        for note in notes:
            if isinstance(note, Decided):
                made[note.hypothesis.id].append(note)
        for name, decided in made.items():
            stopped = 0
            for at, verdict in enumerate(decided):
                most = (30, 70, 120)[at]
                assert (at > 0) == (at > 0 and name in rounds[at - 1].hypotheses)
                n, wanted = by_hand(world, verdict.hypothesis, stopped, most)
                used = sum(1 for p in order(world)[:n] if counts(world, p, verdict))
                assert (verdict.verdict, verdict.n) == (wanted, used), (name, at)
                stopped = n


def order(world: World) -> list[int]:
    return [p for p, e in world.pairs.items() if e.split == "test"]


def counts(world: World, pair: int, decided: Decided) -> bool:
    return world.pairs[pair].changes(decided.hypothesis.variable)


def by_hand(world: World, hypothesis: Any, stopped: int, most: int) -> tuple[int, str]:
    """The pair at which a test stops that looks from `stopped` on, and its verdict."""
    v, pairs = hypothesis.variable, order(world)
    change = [p for p in pairs[:150] if world.pairs[p].changes(v)]
    test = MatchTest(
        0.8, 0.05, 0.05, len(world.space), population=len(change) if world.these_pairs else None
    )
    last = sum(world.pairs[p].changes(v) for p in pairs[:most])
    ends = sorted({n for end in (30, 70, 120) if end <= most for n in looks(end)})
    for n in (n for n in ends if n > stopped):
        seen = [p for p in pairs[:n] if world.pairs[p].changes(v)]
        matches = sum(
            world.output(hypothesis.intervention, p) == world.pairs[p].counterfactual[v]
            for p in seen
        )
        evidence = Evidence(len(seen), matches)
        verdict = test.verdict(evidence)
        if verdict is not None:
            return n, verdict
        if n == most or sum(test.chances(evidence, last)) < test.futility:
            return n, "undecided"
    raise AssertionError(stopped)


WORLDS = {
    "drawn": open_world(3, controls=("placebo",), solved=0.9),
    "at hand": open_world(4, test=150, more=(), these_pairs=True),
    "both kinds": open_world(
        1, test=60, max_pairs=60, rule=DecisionRule(kinds="both"), spares=lambda layer: 0.95
    ),
    "fits": open_world(
        6,
        layers=3,
        subspaces=(Subspace("das", 2), Subspace("pca", 3)),
        fit=24,
        rungs=(),
        controls=("random_subspace",),
        rates=lambda x: (0.74, 0.86, 1.0)[x],
    ),
    "fixed": open_world(7, rule=DecisionRule(at_end=True, fixed_horizon=True, reserve=0.4)),
}


@pytest.mark.slow_unless(kind=["at hand", "both kinds", "fits", "fixed"])
@pytest.mark.parametrize("kind", WORLDS)
@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 10_000), cut=st.floats(0.3, 1))
def test_verdicts_depend_on_no_order_no_loss_no_repeat_and_no_interruption(
    kind: str, seed: int, cut: float
) -> None:
    world, rng = WORLDS[kind], random.Random(seed)
    calm, _, _ = continued(world)
    wild, told, notes = continued(
        world, workers=rng.randrange(1, 5), seed=seed, lost=0.2, twice=0.2, otherwise=kind != "fits"
    )
    assert outcome(wild) == outcome(calm)
    replayed = world.search(continued=True)
    assert replayed.tell(told) == notes
    kept = told[: int(cut * len(told))]
    half = world.search(continued=True)
    half.tell(kept)
    rest = [e for e in told[len(kept) :] if isinstance(e, Continued)]
    more: list[JournalledEvent] = []
    Cluster(world, 3, seed).drive(half)
    for event in rest:
        go_on(half, more, event.pairs, Cluster(world, 2, seed))
    assert outcome(half) == outcome(calm)


def test_what_is_decided_keeps_its_verdict_and_costs_nothing() -> None:
    world = WORLDS["drawn"]
    search, told, notes = continued(world, (40,))
    at = next(i for i, e in enumerate(told) if isinstance(e, Continued))
    went_on = set(told[at].hypotheses)  # type: ignore[union-attr]
    first = {n.hypothesis.id: n for n in notes if isinstance(n, Decided)}
    again = Counter(n.hypothesis.id for n in notes if isinstance(n, Decided))
    new = {n.hypothesis.id for n in notes if isinstance(n, Decided)} - set(went_on)
    assert all(again[name] == 1 for name in new)
    assert all(
        again[name] == 2 for name in went_on if first[name].hypothesis.intervention.control is None
    )
    measured = {e.intervention for e in told[at:] if isinstance(e, Measured) and e.split == "test"}
    alive = {search.verdicts[name].hypothesis.intervention.id for name in went_on}
    later = {
        d.hypothesis.intervention.id
        for d in search.verdicts.values()
        if d.hypothesis.intervention.control
    }
    assert {name.partition("@")[0] for name in measured} <= alive | later
    assert measured


def test_what_was_measured_for_another_variable_counts_and_is_not_measured_again() -> None:
    """A hypothesis that stopped as futile goes on from there, over blocks that its trial has seen."""
    world = open_world(11, layers=14)
    _, told, notes = continued(world, (40,))
    counted = [n.observation for n in notes if isinstance(n, Counted)]
    assert max(Counter(seen.key for seen in counted).values()) == 1
    at = next(i for i, e in enumerate(told) if isinstance(e, Continued))
    again = {e.key for e in told[at:] if isinstance(e, Measured)}
    assert not again & {seen.key for seen in counted if seen in told[:at]}
    decided = [n for n in notes if isinstance(n, Decided)]
    by = defaultdict(dict)
    for d in decided:
        by[d.hypothesis.intervention.id].setdefault(d.hypothesis.variable, d)
    early = [
        of
        for of in by.values()
        if len(of) == 2
        and any(d.reason for d in of.values())
        and not all(d.reason for d in of.values())
    ]
    assert early, "no hypothesis stopped as futile before its sibling"


@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_what_failed_may_be_tried_again_after_a_continuation(seed: int) -> None:
    """It then comes to what a search comes to that never failed."""
    world = open_world(seed % 5, futility=0.0, layers=3)
    calm, _, _ = continued(world, (40,))
    rng = random.Random(seed)
    first = Sick(world, 2, seed, sick=sick_of(world, rng))
    search = first.drive(world.search(continued=True))
    told: list[JournalledEvent] = [*first.told]
    notes = [*first.notes]
    notes += go_on(search, told, 40, Cluster(world, 2, seed))
    if not search.failed.is_empty:
        told.append(search.failed)
        last = Cluster(world, 2, seed)
        last.notes += search.tell(told[-1:])
        last.drive(search)
        told += last.told
        notes += last.notes
    if any(isinstance(e, Continued) for e in told):
        assert {k: d.verdict for k, d in search.verdicts.items()} == {
            k: d.verdict for k, d in calm.verdicts.items()
        }
        replayed = world.search(continued=True)
        assert replayed.tell(told) == notes


class InTurns(Proposer):
    """Some layers at a time, of no set that is fixed before."""

    name = "in turns"
    max_hypotheses = None

    def __init__(self, world: World, most: int) -> None:
        self.space, self.most = list(world.space), most

    def propose(self, known: Any) -> Any:
        at = min(known.generations * 4, self.most)
        return self.space[at : min(at + 4, self.most)]


def test_each_generation_goes_on_on_pairs_of_its_own_and_later_ones_see_none_of_them() -> None:
    world = open_world(2, test=120, max_pairs=20, more=(400,), layers=14)
    proposer = InTurns(world, 12)
    search = Cluster(world, 1, 0).drive(world.search(proposer, continued=True))
    event = search.continuation(30)
    generation = {h.id: i // 4 for i, h in enumerate(proposer.space)}
    proposer.most = 20  # what it sees now has it propose more
    cluster = Cluster(world, 1, 0)
    search.tell([event])
    cluster.drive(search)
    assert len({generation[name] for name in event.hypotheses}) > 1
    seen: dict[int, set[int]] = defaultdict(set)
    of = {h.intervention.id: generation[h.id] for h in proposer.space}
    for e in cluster.told:
        if isinstance(e, Measured) and e.split == "test":
            seen[of[e.intervention]] |= set(e.pairs)
    assert any(g > 2 for g in seen), "no generation came after the continuation"
    for g, pairs in seen.items():
        for other, others in seen.items():
            assert g == other or not pairs & others
    drawn = {p for p, e in world.pairs.items() if e.added}
    assert not any(pairs & drawn for g, pairs in seen.items() if g > 2)


def test_a_fixed_horizon_tests_anew_on_new_pairs_alone_at_the_level_that_was_reserved() -> None:
    world = WORLDS["fixed"]
    search, told, notes = continued(world)
    rounds = [e for e in told if isinstance(e, Continued)]
    made: dict[str, list[Decided]] = defaultdict(list)
    for note in notes:
        if isinstance(note, Decided):
            made[note.hypothesis.id].append(note)
    spent = [sum(d[0].level or 0 for d in made.values())]
    for number, event in enumerate(rounds, start=1):
        of = [made[name][number] for name in event.hypotheses]
        levels = {d.level for d in of}
        assert len(levels) == 1
        level = levels.pop()
        criterion = search.preparation.criteria.of(of[0].hypothesis, number)
        assert criterion.change.miss == pytest.approx(0.05 * 0.4 / (number * (number + 1)))
        spent.append(len(of) * level)  # type: ignore[operator]
        assert spent[-1] == pytest.approx(0.05 * 0.4 / (number * (number + 1)))
        first, last = ((0, 40), (40, 90))[number - 1]
        drawn = [p for p, e in world.pairs.items() if e.added][first:last]
        for d in of:
            v = d.hypothesis.variable
            seen = [p for p in drawn if world.pairs[p].changes(v)]
            right = [
                world.output(d.hypothesis.intervention, p) == world.pairs[p].counterfactual[v]
                for p in seen
            ]
            test = ExactTest(0.8, d.level or 0, 0.05 * 0.4 / (number * (number + 1)))
            assert (d.n, d.matches) == (len(seen), sum(right))
            assert d.verdict == (test.verdict(Evidence(d.n, d.matches)) or "undecided")
    assert spent[0] == pytest.approx(0.05 * 0.6)
    assert sum(spent) < 0.05


def test_pairs_that_were_tested_on_do_not_count_on_the_holdout() -> None:
    world = open_world(1, holdout=20, threshold=0.6, rates=lambda x: 1 - x / 12)
    holdout = [p for p, e in world.pairs.items() if e.split == "holdout"]
    drawn = [p for p, e in world.pairs.items() if e.added]
    shared = dict(zip(holdout[:8], drawn[:8], strict=True))
    world.pairs = {
        p: replace(e, contents=(f"pair {shared.get(p, p)}",)) for p, e in world.pairs.items()
    }
    search, told, _notes = continued(world, (40,))
    event = next(e for e in told if isinstance(e, Continued))
    for name, estimate in search.estimates.items():
        used = holdout[8:] if name in event.hypotheses else holdout
        v = estimate.hypothesis.variable
        assert estimate.n == sum(world.pairs[p].changes(v) for p in used)
    assert {name in event.hypotheses for name in search.estimates} == {True, False}


def test_all_fixed_pairs_that_are_seen_make_the_verdict_exact() -> None:
    world = open_world(8, test=60, more=(), these_pairs=True)
    search, _, _ = continued(world, (1000,))
    for d in search.verdicts.values():
        assert d.verdict != "undecided"
        v, pairs = d.hypothesis.variable, list(world.pairs)[:60]
        change = [p for p in pairs if world.pairs[p].changes(v)]
        right = sum(
            world.output(d.hypothesis.intervention, p) == world.pairs[p].counterfactual[v]
            for p in change
        )
        assert (
            d.verdict == ("accept" if right / len(change) >= 0.8 else "reject")
            or right / len(change) == 0.8
        )


def chances_of_error(test: MatchTest, again: int, searches: int) -> float:
    """The share of searches with a false accept, where somebody looks and continues, by 100 pairs, up to
    `again` times, if the best of the undecided hypotheses is promising."""
    rng, wrong = np.random.default_rng(5), 0
    for _ in range(searches):
        pairs = 100 * (1 + again)
        seen = np.cumsum(rng.random((test.hypotheses, pairs)) < 0.8, axis=1)
        alive = np.ones(test.hypotheses, dtype=bool)
        before, accepted = 0, False
        for end in range(100, pairs + 1, 100):
            ends = [end] if isinstance(test, ExactTest) else [n for n in looks(end) if n > before]
            for n in ends:
                fewest, most = test.bounds(n)
                at = seen[:, n - 1]
                accepted |= bool((alive & (at >= fewest)).any())
                alive &= (at < fewest) & (at > most)
            before = end
            best = (seen[alive, end - 1] / end).max(initial=0.0)
            if accepted or best < 0.82:
                break
        wrong += accepted
    return wrong / searches


@pytest.mark.slow
def test_who_looks_first_and_continues_what_is_promising_accepts_nothing_false_too_often() -> None:
    """All true rates are at the threshold. The exact test of one look, looked at again, is far above the
    bound: so this test can fail, and a fixed horizon is not continued without a reserve."""
    bound = 0.05 + 3.1 * math.sqrt(0.05 * 0.95 / 600)
    assert chances_of_error(MatchTest(0.8, 0.05, 0.05, 10), 5, 600) <= bound
    assert chances_of_error(ExactTest(0.8, 0.05, 0.05, 10), 5, 600) > bound


def test_what_is_fixed_by_the_first_pairs_does_not_move_with_further_ones() -> None:
    """Labels of the control `arbitrary_labels`, the best policies, and what is expected without
    intervention, though further pairs have answers that no first one has."""
    world = open_world(1, layers=2)
    alone = replace(world, more=())
    world.pairs = {
        p: replace(e, counterfactual={**e.counterfactual, "v": (77,)}) if e.added else e
        for p, e in world.pairs.items()
    }
    found = []
    for one in (world, alone):
        criteria = Cluster(one, 1, 0).drive(one.search(continued=True)).preparation.criteria
        found.append((criteria.labels, criteria.policies, criteria.base_match))
    assert found[0] == found[1]
