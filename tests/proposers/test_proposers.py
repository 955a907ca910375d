"""Proposers: each keeps to the contract; which hypotheses they ask about, and what they leave out;
what open-ended ones spend."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import pytest

from raysearch.core.hypothesis import Hypothesis, Intervention, Site, Subspace, Unit
from raysearch.core.records import Proposed
from raysearch.core.space import Grid, HypothesisSpace
from raysearch.errors import SearchFailedError
from raysearch.proposers.base import Exhaustive, History
from raysearch.proposers.refine import Refine
from raysearch.proposers.smallest_subspace import SmallestSubspace
from tests.proposers.proposer_contract import Make, ProposerContract
from tests.search.worlds import Cluster, World


@dataclass(frozen=True)
class Climb:
    """A user's: one layer at a time, upwards from the first, while the layer before was not
    accepted for v; no K of its own."""

    space: HypothesisSpace
    name: str = "climb"
    max_hypotheses: int | None = None

    def propose(self, known: History) -> Iterable[Hypothesis]:
        if any(
            d.hypothesis.variable == "v" and d.verdict == "accept" for d in known.decided.values()
        ):
            return ()
        layers = self.space.grids[0].layers
        return [
            h
            for h in self.space
            if h.intervention.units[0].site.layer == min(known.generations, len(layers) - 1)
        ]


def band(*layers: int) -> World:
    """v is in these layers of 30, and half in their neighbours."""

    def rates(layer: int) -> float:
        return 1.0 if layer in layers else 0.4 if {layer - 1, layer + 1} & set(layers) else 0.0

    return World(1, layers=30, test=60, holdout=4, max_pairs=60, rates=rates)


SIZES = tuple(Subspace("das", size) for size in (1, 2, 4, 8, 16))


class Sized(World):
    """A rotation carries v where it is at least as large as its layer."""

    def output(self, intervention: Intervention, pair: int) -> tuple[int, ...]:
        unit = intervention.units[0]
        carries = intervention.variable == "v" and (unit.subspace.features or 0) >= unit.site.layer
        return self.pairs[pair].counterfactual["v"] if carries else (0,)


def sized() -> World:
    return Sized(
        2, layers=6, test=60, holdout=4, fit=12, steps=8, rungs=(), subspaces=SIZES, seeds=(0,)
    )


class TestExhaustive(ProposerContract):
    @pytest.fixture
    def world(self) -> World:
        return World(3, layers=3)

    @pytest.fixture
    def make(self) -> Make:
        return Exhaustive


class TestRefine(ProposerContract):
    @pytest.fixture
    def world(self) -> World:
        return band(9, 10, 11, 12, 13)

    @pytest.fixture
    def make(self) -> Make:
        return Refine


class TestSmallestSubspace(ProposerContract):
    @pytest.fixture
    def world(self) -> World:
        return sized()

    @pytest.fixture
    def make(self) -> Make:
        return SmallestSubspace


class TestOpenEnded(ProposerContract):
    @pytest.fixture
    def world(self) -> World:
        return World(3)

    @pytest.fixture
    def make(self) -> Make:
        return Climb


def asked(world: World, proposer: object) -> tuple[list[Proposed], set[int]]:
    """What was proposed, in order, and the layers in which v was accepted."""
    cluster = Cluster(world, 3, 0)
    search = cluster.drive(world.search(proposer))  # type: ignore[arg-type]
    accepted = {
        d.hypothesis.intervention.units[0].site.layer
        for d in search.verdicts.values()
        if d.verdict == "accept"
    }
    return [n for n in cluster.notes if isinstance(n, Proposed)], accepted


@pytest.mark.parametrize("layers", [range(9, 14), range(4), range(20, 30), range(30), (8,), ()])
def test_refine_finds_the_edges_of_what_is_accepted_and_asks_about_little_else(
    layers: Iterable[int],
) -> None:
    world = band(*layers)
    proposed, accepted = asked(world, Refine(replace(world.space, variables=("v",))))
    edges = {layer for layer in layers if {layer - 1, layer + 1} & set(range(30)) - set(layers)}
    seen = {p.hypothesis.intervention.units[0].site.layer for p in proposed}
    assert accepted == set(layers) & seen
    assert edges <= accepted
    assert len(seen) <= 16
    assert {p.hypothesis.id for p in proposed} <= {h.id for h in world.space}


def test_refine_looks_between_layers_of_promise_and_not_between_those_that_show_nothing() -> None:
    world = World(
        0,
        layers=9,
        test=60,
        holdout=4,
        max_pairs=60,
        rates=lambda layer: {4: 0.6, 6: 1.0}.get(layer, 0.0),
    )
    proposed, accepted = asked(world, Refine(replace(world.space, variables=("v",))))
    seen = [(p.generation, p.hypothesis.intervention.units[0].site.layer) for p in proposed]
    assert accepted == {6}
    assert sorted(set(seen)) == [(0, 0), (0, 4), (0, 8), (1, 2), (1, 6), (2, 3), (2, 5), (2, 7)]


def test_refine_takes_all_sets_heads_and_positions_at_first_and_refines_each_by_itself() -> None:
    grid = Grid("head", tuple(range(0, 18, 2)), (0, 1), ("a", "b"))
    sets = ((Unit(Site(3, "head", "a", 0)), Unit(Site(5, "head", "a", 1))),)
    space = HypothesisSpace(("v",), (grid,), tuple(map(Intervention, sets)))
    first = list(Refine(space, step=8).propose(History(0, {})))
    sites = {
        (u.site.head, u.site.position, u.site.layer) for h in first for u in h.intervention.units
    }
    assert sites == {(h, p, at) for h in (0, 1) for p in ("a", "b") for at in (0, 16)} | {
        (0, "a", 3),
        (1, "a", 5),
    }


@pytest.mark.parametrize("wrong", [{"step": 0}, {"step": True}, {"step": "2"}, {"promise": 2}])
def test_options_of_refine_out_of_range_are_refused_in_words(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="it must be"):
        Refine(World().space, **wrong)  # type: ignore[arg-type]


def test_the_smallest_size_that_carries_a_variable_is_found_by_halving() -> None:
    world = sized()
    proposed, accepted = asked(world, SmallestSubspace(world.space))
    assert accepted == set(range(6))
    smallest = {0: 1, 1: 1, 2: 2, 3: 4, 4: 4, 5: 8}
    tried: dict[int, list[int]] = {}
    for p in proposed:
        unit = p.hypothesis.intervention.units[0]
        if p.hypothesis.variable == "v":
            tried.setdefault(unit.site.layer, []).append(unit.subspace.features or 0)
        else:
            assert unit.subspace.features == 16, (
                "of w nothing is found, so no smaller one is asked about"
            )
    assert {
        layer: min(s for s in sizes if s >= layer) for layer, sizes in tried.items()
    } == smallest
    assert all(sizes[0] == 16 and len(sizes) <= 4 for sizes in tried.values())
    assert (tried[5], tried[0]) == ([16, 2, 4, 8], [16, 2, 1])


def test_what_has_no_size_is_asked_about_with_the_largest() -> None:
    world = replace(World(1), subspaces=(Subspace(), Subspace("random", 2), Subspace("random", 8)))
    first = list(SmallestSubspace(world.space).propose(History(0, {})))
    assert {h.intervention.units[0].subspace for h in first} == {Subspace(), Subspace("random", 8)}
    assert len(first) == len(world.space) * 2 // 3


def test_an_open_ended_proposer_spends_less_in_each_generation_shared_by_its_size() -> None:
    world = World(3, test=4000, max_pairs=400, rates=lambda layer: 1.0 if layer == 5 else 0.0)
    cluster = Cluster(world, 3, 0)
    search = cluster.drive(world.search(Climb(world.space)))
    generation = {n.hypothesis.id: n.generation for n in cluster.notes if isinstance(n, Proposed)}
    (accepted,) = (
        d
        for d in search.verdicts.values()
        if d.verdict == "accept" and d.hypothesis.variable == "v"
    )
    g = generation[accepted.hypothesis.id] + 1
    size = sum(of + 1 == g for of in generation.values())
    assert (g, size) == (6, 2)
    needed = math.log(size * g * (g + 1) / 0.05)
    assert accepted.log_evidence >= needed > math.log(len(world.space) / 0.05)
    exhaustive = Cluster(world, 3, 0).drive(world.search()).verdicts[accepted.hypothesis.id]
    assert accepted.n >= exhaustive.n


def test_more_proposals_than_a_proposer_said_there_could_be_end_the_search_in_one_line() -> None:
    world = World(3, rates=lambda layer: 0.0)
    with pytest.raises(
        SearchFailedError, match=r"propose.use: climb says that its proposals are from 3 hypotheses"
    ):
        Cluster(world, 1, 0).drive(world.search(Climb(world.space, max_hypotheses=3)))
