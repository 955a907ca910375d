"""Attribution as a proposer: what is chosen by effects, at which K; its brain, which loses no block
and believes the first that is told."""

import math
from dataclasses import replace

import pytest

from raysearch.core.events import Attributed, Event
from raysearch.core.hypothesis import Hypothesis, Intervention, Site, Subspace, Unit
from raysearch.core.records import Blocked, Proposed, Weighed
from raysearch.core.space import Grid, HypothesisSpace
from raysearch.errors import PairsError, SearchFailedError
from raysearch.proposers.attribution import Attribution
from raysearch.proposers.base import History, attribution_plan
from raysearch.search.search import Search
from tests.proposers.proposer_contract import Make, ProposerContract
from tests.search.worlds import BASE, Cluster, World, lost, raising

HERE = tuple(Site(layer, "residual", "last") for layer in range(6))


def world(seed: int = 3, **more: object) -> World:
    """v has its largest effects above, w below."""

    def effects(unit: Unit, variable: str) -> float:
        return unit.site.layer if variable == "v" else 9.0 - unit.site.layer

    return World(seed, **{"fit": 40, "test": 60, "max_pairs": 60, "effects": effects, **more})  # type: ignore[arg-type]


class TestAttribution(ProposerContract):
    @pytest.fixture
    def world(self) -> World:
        return world(3, layers=12, fit=70)

    @pytest.fixture
    def make(self) -> Make:
        return lambda space: Attribution(space, share=0.4)


def proposed(search: World, proposer: Attribution) -> list[Hypothesis]:
    cluster = Cluster(search, 3, 0)
    cluster.drive(search.search(proposer))
    return [n.hypothesis for n in cluster.notes if isinstance(n, Proposed)]


def layers(found: list[Hypothesis], variable: str) -> list[int]:
    return [h.intervention.units[0].site.layer for h in found if h.variable == variable]


def test_each_variable_has_the_best_share_of_its_own_and_k_is_what_is_proposed() -> None:
    asked = world()
    proposer = Attribution(asked.space, share=0.5)
    found = proposed(asked, proposer)
    assert (layers(found, "v"), layers(found, "w")) == ([3, 4, 5], [0, 1, 2])
    assert len(found) == proposer.max_hypotheses == 6 < len(asked.space)


@pytest.mark.parametrize(
    ("share", "each"), [(0.01, 1), (1 / 6, 1), (0.3, 2), (0.5, 3), (0.9, 6), (1, 6)]
)
def test_a_share_is_rounded_up_for_each_variable(share: float, each: int) -> None:
    asked = world()
    assert Attribution(asked.space, share=share).max_hypotheses == 2 * each
    assert len(proposed(asked, Attribution(asked.space, share=share))) == 2 * each


def test_a_share_is_rounded_up_as_it_is_written_not_as_a_float_has_it() -> None:
    space = HypothesisSpace(("v",), (Grid("residual", tuple(range(30)), (None,), ("last",)),))
    assert 0.1 * 30 > 3 - 1e-9
    assert Attribution(space, share=0.1).max_hypotheses == 3
    assert 0.07 * 100 > 7
    assert (
        Attribution(
            replace(space, grids=(Grid("head", tuple(range(100)), (None,), ("last",)),)), share=0.07
        ).max_hypotheses
        == 7
    )


def told(
    space: HypothesisSpace, effects: dict[Unit, float | None], share: float
) -> list[Hypothesis]:
    return list(Attribution(space, share=share).propose(History(0, {}, {"v": effects})))


def test_ties_go_by_the_order_of_the_space_and_what_cannot_be_interchanged_comes_last() -> None:
    space = HypothesisSpace(("v",), (Grid("residual", tuple(range(6)), (None,), ("last",)),))
    effects: dict[Unit, float | None] = dict.fromkeys(map(Unit, HERE), 1.0)
    assert layers(told(space, effects, 0.5), "v") == [0, 1, 2]
    effects |= {Unit(HERE[0]): None, Unit(HERE[1]): -5.0, Unit(HERE[5]): 2.0}
    assert layers(told(space, effects, 0.5), "v") == [2, 3, 5]
    assert layers(told(space, effects, 0.8), "v") == [1, 2, 3, 4, 5]


def test_subspaces_share_the_effect_of_their_site_and_a_set_has_the_sum_of_its_places() -> None:
    subspaces = (Subspace(), Subspace(coordinates=(0,)), Subspace("das", 2))
    crossing = Unit(HERE[0], source_site=HERE[1])
    halves = tuple(Unit(HERE[2], Subspace(coordinates=(i,))) for i in range(2))
    sets = ((Unit(HERE[0]), Unit(HERE[1])), (crossing,), halves)
    space = HypothesisSpace(
        ("v",),
        (Grid("residual", (0, 1, 2), (None,), ("last",), subspaces),),
        tuple(map(Intervention, sets)),
    )
    plan = attribution_plan(Attribution(space), space)
    assert plan is not None
    assert set(plan.units) == {*map(Unit, HERE[:3]), crossing}
    assert len(plan.units) == 4
    effects: dict[Unit, float | None] = {
        Unit(HERE[0]): 2.0,
        Unit(HERE[1]): 3.0,
        Unit(HERE[2]): 2.5,
        crossing: 4.0,
    }
    order = []
    for count in range(1, 13):
        found = {h.intervention.units for h in told(space, effects, count / 12)}
        order += [u for u in found if u not in order]
    names = [(len(units), units[0].site.layer, units[0].source_site is not None) for units in order]
    assert names == [
        (2, 0, False),
        (1, 0, True),
        *[(1, 1, False)] * 3,
        *[(1, 2, False)] * 3,
        (2, 2, False),
        *[(1, 0, False)] * 3,
    ]


def test_what_is_fit_is_chosen_for_each_variable_by_itself() -> None:
    asked = world(
        subspaces=(Subspace(), Subspace("das", 1)), steps=4, rungs=(), seeds=(0,), holdout=4
    )
    found = proposed(asked, Attribution(asked.space, share=0.5))
    assert (sorted(layers(found, "v")), sorted(layers(found, "w"))) == (
        [3, 3, 4, 4, 5, 5],
        [0, 0, 1, 1, 2, 2],
    )
    assert {h.intervention.variable for h in found if h.intervention.is_fitted} == {"v", "w"}


def test_effects_come_after_screening_and_before_anything_is_proposed_on_fit_pairs_alone() -> None:
    asked = world(fit=70)
    search = asked.search(Attribution(asked.space, pairs=40))
    stages, kinds, notes = [], [], []
    while search.snapshot().stage in ("screening", "attributing"):
        stages.append(search.snapshot().stage)
        (task,) = search.ask(1)
        kinds.append(task.kind)
        assert task.kind != "attribute" or (task.interventions, task.keys, task.rows) == (
            (),
            (),
            len(task.blocks[0].pairs),
        )
        notes += search.tell(asked.run(task))
        search.validate()
    assert kinds == sorted(kinds, reverse=True)
    assert kinds.count("attribute") == stages.count("attributing") == 2
    assert [type(n) for n in notes] == [
        Blocked,
        Weighed,
        *[Proposed] * Attribution(asked.space).max_hypotheses,
    ]
    used = [p for p, e in asked.pairs.items() if e.split == "fit"][:40]
    assert set(search.preparation.effects["v"]) == set(map(Unit, HERE))
    changing = [p for p in used if asked.pairs[p].changes("v")]
    mean = (asked.effect(Unit(HERE[3]), "v", used) or 0) / len(changing)
    assert search.preparation.effects["v"][Unit(HERE[3])] == pytest.approx(mean, rel=1e-5)


def test_a_block_that_is_told_again_and_otherwise_changes_nothing() -> None:
    asked = world()
    search = attributing(asked)
    (first, second) = search.ask(9)
    search.tell(asked.run(first))
    (event,) = asked.run(first)
    assert isinstance(event, Attributed)
    search.tell(
        [
            replace(
                event, effects={v: tuple(-(e or 0) for e in of) for v, of in event.effects.items()}
            )
        ]
    )
    assert search.snapshot().stage == "attributing"
    search.tell(asked.run(second))
    wanted = Cluster(asked, 1, 0).drive(asked.search(Attribution(asked.space)))
    assert search.preparation.effects == wanted.preparation.effects


def test_a_block_that_is_lost_goes_out_again_and_three_failures_end_the_search_in_one_line() -> (
    None
):
    asked = world(fit=20)
    search = attributing(asked)
    for _ in range(5):
        (task,) = search.ask(9)
        search.tell([lost(task, "node")])
        assert (search.snapshot().queued, search.snapshot().out) == (1, 0)
    for _ in range(2):
        (task,) = search.ask(9)
        search.tell([raising(task, None)])
    (task,) = search.ask(9)
    with pytest.raises(
        SearchFailedError,
        match="attribution cannot be done: block 0 of the fit pairs raised ValueError 3 times",
    ):
        search.tell([raising(task, None)])


def attributing(asked: World) -> Search:
    """A search whose screening is over."""
    search = asked.search(Attribution(asked.space))
    while search.snapshot().stage == "screening":
        for task in search.ask(1):
            search.tell(asked.run(task))
    return search


def test_a_search_goes_on_in_the_middle_of_attribution_to_the_same_proposals() -> None:
    asked = world(fit=100)
    cluster = Cluster(asked, 3, 2)
    proposer = Attribution(asked.space, share=0.3, pairs=100)
    wanted = cluster.drive(asked.search(proposer)).verdicts
    at = [i for i, e in enumerate(cluster.told) if isinstance(e, Attributed)]
    assert len(at) == 4
    past: list[Event] = cluster.told[: at[1] + 1]
    again = asked.search(proposer)
    again.tell(past)
    assert (again.snapshot().stage, again.snapshot().queued) == ("attributing", 2)
    assert Cluster(asked, 2, 5).drive(again).verdicts == wanted


def test_without_fit_pairs_to_choose_by_the_search_ends_in_one_line() -> None:
    asked = world(fit=0)
    with pytest.raises(
        PairsError,
        match=r"effects on fit pairs that the model solves, and there are none; raise pairs\.fit",
    ):
        Cluster(asked, 1, 0).drive(asked.search(Attribution(asked.space)))
    asked = world()
    none = {
        p: replace(e, counterfactual={**e.counterfactual, "w": (BASE,)})
        for p, e in asked.pairs.items()
        if e.split == "fit"
    }
    asked.pairs = {**asked.pairs, **none}
    with pytest.raises(
        PairsError, match="nothing to tell 'w' by: on none of the 40 fit pairs that it uses"
    ):
        Cluster(asked, 1, 0).drive(asked.search(Attribution(asked.space)))


@pytest.mark.parametrize(
    "wrong",
    [
        {"share": 0},
        {"share": 1.1},
        {"share": "0.5"},
        {"share": True},
        {"share": math.nan},
        {"pairs": 0},
        {"pairs": 1.5},
        {"pairs": True},
    ],
)
def test_options_out_of_range_are_refused_in_words(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="it must be a"):
        Attribution(world().space, **wrong)  # type: ignore[arg-type]
