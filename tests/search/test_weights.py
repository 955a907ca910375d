"""Weights: what each hypothesis spends of the chance of a false accept, by effects on fit pairs."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysearch.core.events import Event, Task
from raysearch.core.hypothesis import Intervention, Site, Subspace, Unit
from raysearch.core.records import Weighed
from raysearch.core.space import Grid, HypothesisSpace
from raysearch.proposers.attribution import Attribution
from raysearch.proposers.refine import Refine
from raysearch.proposers.weights import weigh, weights
from raysearch.search.criteria import DecisionRule
from raysearch.search.search import Search
from tests.search.worlds import Cluster, World, lost, raising

EFFECTS = st.lists(
    st.tuples(st.sampled_from("vw"), st.one_of(st.just(0.0), st.floats(1e-6, 3))), min_size=1
)
WEIGHTED = DecisionRule(weighted=True)


def world(seed: int = 3, **more: object) -> World:
    """The higher a layer, the larger its effect, and the likelier a match."""
    found = World(seed, layers=12, fit=40, test=150, max_pairs=150, rule=WEIGHTED, **more)  # type: ignore[arg-type]
    return replace(found, effects=lambda unit, variable: unit.site.layer / 12)


def driven(asked: World, chaos: int = 0, **faults: float) -> Search:
    return Cluster(asked, 3, chaos, **faults).drive(asked.search())  # type: ignore[arg-type]


@settings(max_examples=200, deadline=None)
@given(EFFECTS)
def test_weights_sum_to_one_at_most_and_none_costs_more_than_one_nat(
    effects: list[tuple[str, float]],
) -> None:
    found = weigh(effects)
    assert (found == []) == (not any(effect for _, effect in effects))
    assert math.fsum(found) <= 1 + 1e-9
    assert all(weight >= 1 / (math.e * len(effects)) for weight in found)
    if found:
        assert math.fsum(found) >= 0.9, "rounding down gives away a tenth at most"


@settings(max_examples=100, deadline=None)
@given(EFFECTS, st.randoms())
def test_a_larger_effect_has_no_smaller_weight_and_the_order_does_not_count(
    effects: list[tuple[str, float]], rng: Callable[[], float]
) -> None:
    found = dict(zip(range(len(effects)), weigh(effects), strict=False))
    for i in found:
        for j in found:
            same = effects[i][0] == effects[j][0]
            assert not same or effects[i][1] < effects[j][1] or found[i] >= found[j]
    order = list(range(len(effects)))
    rng.shuffle(order)  # type: ignore[attr-defined]
    again = weigh([effects[i] for i in order])
    assert again == [found[i] for i in order if found]


def test_a_needle_in_ten_thousand_is_spared_three_nats() -> None:
    effects = [("v", 0.9)] * 100 + [("v", 0.01)] * 9_900
    found = weigh(effects)
    assert math.log(10_000 * found[0]) > 3
    assert math.log(10_000 * found[-1]) >= -1


def test_subspaces_share_the_effect_of_their_site_and_a_set_has_the_sum_of_its_places() -> None:
    here = [Site(layer, "residual", "last") for layer in range(3)]
    pair = Intervention((Unit(here[0]), Unit(here[1])))
    grid = Grid("residual", (0, 1, 2), (None,), ("last",), (Subspace(), Subspace("das", 2)))
    space = HypothesisSpace(("v",), (grid,), (pair,))
    found = weights(space, {"v": {Unit(here[0]): 0.2, Unit(here[1]): 0.3, Unit(here[2]): None}})
    by = {(len(h.intervention.units), h.intervention.units[0]): found[h.id] for h in space}
    assert len(found) == 7
    assert by[1, Unit(here[1])] == by[1, Unit(here[1], Subspace("das", 2))] < by[2, Unit(here[0])]
    assert by[1, Unit(here[2])] == min(found.values()), "an effect that is not known is none"


def test_all_are_tested_at_levels_that_spend_no_more_than_is_allowed() -> None:
    search = driven(world())
    levels = [d.level or 0.0 for d in search.verdicts.values()]
    assert len(levels) == 24
    assert math.fsum(levels) <= 0.05
    assert min(levels) >= 0.05 / (math.e * 24)
    assert max(levels) > 0.05 / 24


def test_a_hypothesis_with_a_larger_effect_is_accepted_after_fewer_pairs() -> None:
    asked = replace(world(), rates=lambda layer: 1.0)
    pairs = {
        d.hypothesis.intervention.units[0].site.layer: d.n
        for d in driven(asked).verdicts.values()
        if d.hypothesis.variable == "v"
    }
    even = driven(replace(asked, rule=DecisionRule()))
    assert pairs[0] > pairs[11]
    assert {d.n for d in even.verdicts.values() if d.hypothesis.variable == "v"} == {33}
    assert pairs[11] < 33


@settings(max_examples=8, deadline=None)
@given(chaos=st.integers(0, 999), rows=st.sampled_from([4, 32, 100]))
def test_levels_and_verdicts_do_not_depend_on_order_losses_or_repeats(
    chaos: int, rows: int
) -> None:
    wanted = driven(world()).verdicts
    asked = replace(world(), rows=rows)
    assert driven(asked, chaos, lost=0.2, twice=0.3).verdicts == wanted


def test_a_search_that_is_told_its_journal_again_has_the_same_levels() -> None:
    asked = world()
    cluster = Cluster(asked, 3, 5, lost=0.2)
    wanted = cluster.drive(asked.search()).verdicts
    again = asked.search()
    for event in cluster.told:
        again.tell([event])
    assert again.verdicts == wanted


@pytest.mark.parametrize("proposer", [Refine, Attribution])
def test_a_proposer_that_chooses_weighs_all_that_it_could_propose(proposer: type) -> None:
    asked = world()
    made = proposer(asked.space)
    search = Cluster(asked, 2, 0).drive(asked.search(made))
    levels = {name: d.level or 0.0 for name, d in search.verdicts.items()}
    family = list(made.family(search.preparation.effects))
    assert len(family) == made.max_hypotheses
    own = weights(family, search.preparation.effects)
    assert levels == {name: pytest.approx(0.05 * own[name]) for name in levels}


def _given_up(asked: World, ends: Callable[[Task], Event]) -> Search:
    search = asked.search()
    while not search.done:
        for task in search.ask(2):
            search.tell([ends(task)] if task.kind == "attribute" else asked.run(task))
            search.validate()
    return search


def test_where_there_is_no_gradient_weights_are_even() -> None:
    asked = world()
    search = _given_up(asked, lambda task: raising(task, None))
    even = driven(replace(asked, rule=DecisionRule()))
    assert {d.level for d in search.verdicts.values()} == {0.05 / 24}
    assert search.verdicts == even.verdicts


def test_an_effect_that_arrives_after_it_was_given_up_changes_nothing() -> None:
    asked = world()
    late: list[Event] = []

    def ends(task: Task) -> Event:
        late.extend(asked.run(task))
        return lost(task, "worker")

    search = _given_up(asked, ends)
    wanted = dict(search.verdicts)
    assert search.tell(late) == []
    assert dict(search.verdicts) == wanted


def test_without_a_fit_pair_that_the_model_solves_weights_are_even() -> None:
    asked = replace(world(), fit=0)
    assert {d.level for d in driven(asked).verdicts.values()} == {0.05 / 24}


def test_effects_for_weights_alone_are_told_in_the_table() -> None:
    cluster = Cluster(world(), 2, 0)
    cluster.drive(cluster.world.search())
    (record,) = (n for n in cluster.notes if isinstance(n, Weighed))
    assert {e.unit.site.layer for e in record.effects} == set(range(12))
