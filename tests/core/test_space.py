"""The hypothesis space: what it holds, in which order, each once; and the ids of what it holds."""

import pickle
from dataclasses import asdict, replace
from itertools import groupby

from hypothesis import given
from hypothesis import strategies as st

from raysearch.core.events import Block, Task
from raysearch.core.hypothesis import (
    Hypothesis,
    Intervention,
    Site,
    Subspace,
    Unit,
    is_in_layers,
    to_plain,
)
from raysearch.core.space import Grid, HypothesisSpace

LAYERS = st.lists(st.integers(0, 5), unique=True, min_size=1, max_size=3).map(tuple)
HEADS = st.just((None,)) | st.lists(st.integers(0, 3), unique=True, min_size=1, max_size=3).map(
    tuple
)
POSITIONS = st.lists(st.sampled_from(["a", "b", "last"]), unique=True, min_size=1).map(tuple)
COORDINATES = st.frozensets(st.integers(0, 3), min_size=1, max_size=2).map(
    lambda c: Subspace(coordinates=tuple(sorted(c)))
)
SUBSPACE = st.just(Subspace()) | COORDINATES
SUBSPACES = st.lists(SUBSPACE, unique=True, min_size=1, max_size=2).map(tuple)
COMPONENTS = ("residual", "head", "query")
GRIDS = st.lists(
    st.builds(Grid, st.sampled_from(COMPONENTS), LAYERS, HEADS, POSITIONS, SUBSPACES),
    unique_by=lambda g: g.component,
    max_size=3,
).map(tuple)
SITES = st.builds(
    Site,
    st.integers(0, 5),
    st.sampled_from(COMPONENTS),
    st.sampled_from(["a", "last"]),
    st.none() | st.integers(0, 3),
)
UNITS = st.builds(Unit, SITES, SUBSPACE, st.none() | SITES, st.none() | st.just("other"))
SETS = st.lists(st.lists(UNITS, min_size=1, max_size=2).map(tuple), max_size=6).map(tuple)


@given(GRIDS, SETS)
def test_the_length_is_the_number_of_hypotheses_and_none_comes_twice(
    grids: tuple[Grid, ...], sets: tuple[tuple[Unit, ...], ...]
) -> None:
    space = HypothesisSpace(("v", "w"), grids, tuple(map(Intervention, sets)))
    ids = [h.id for h in space]
    assert len(space) == len(ids) == len(set(ids))
    held = {i.units for i in space.interventions()}
    assert held == {(u,) for g in grids for u in g} | set(sets)


@given(GRIDS)
def test_layers_vary_fastest_and_the_order_is_always_the_same(grids: tuple[Grid, ...]) -> None:
    space = HypothesisSpace(("v",), grids)
    units = [i.units[0] for i in space.interventions()]
    assert units == [i.units[0] for i in HypothesisSpace(("v",), grids).interventions()]
    runs = [
        list(run)
        for _, run in groupby(
            units, lambda u: (u.site.component, u.site.position, u.subspace, u.site.head)
        )
    ]
    layers = {g.component: g.layers for g in grids}
    assert all(tuple(u.site.layer for u in run) == layers[run[0].site.component] for run in runs)


@given(GRIDS, UNITS)
def test_a_grid_holds_what_it_iterates_over_and_nothing_else(
    grids: tuple[Grid, ...], unit: Unit
) -> None:
    for grid in grids:
        assert len(grid) == len(list(grid))
        assert (unit in grid) == (unit in list(grid))
        assert all(u in grid for u in grid)


def test_an_intervention_of_both_grid_and_sets_counts_once() -> None:
    grid = Grid("residual", (0, 1), (None,), ("last",))
    inside, beside = Unit(Site(1, "residual", "last")), Unit(Site(2, "residual", "last"))
    space = HypothesisSpace(
        ("v",),
        (grid,),
        tuple(map(Intervention, ((inside,), (beside,), (beside,), (inside, beside)))),
    )
    assert len(space) == 4
    assert [i.units for i in space.interventions()][2:] == [(beside,), (inside, beside)]


@given(
    GRIDS,
    st.lists(
        st.tuples(SITES, SITES).map(lambda s: (Unit(s[0], source="a"), Unit(s[1], source="b"))),
        max_size=3,
    ).map(tuple),
)
def test_a_variable_that_says_who_lends_it_is_asked_of_what_takes_from_just_these(
    grids: tuple[Grid, ...], sets: tuple[tuple[Unit, ...], ...]
) -> None:
    grids = tuple(replace(grid, sources=("a", "b")) for grid in grids)
    space = HypothesisSpace(
        ("x<-a", "y<-b", "x<-a, y<-b", "z"), grids, tuple(map(Intervention, sets))
    )
    found = list(space)
    assert len(space) == len(found) == len({h.id for h in found})
    taken = {(h.variable, frozenset(u.source for u in h.intervention.units)) for h in found}
    gridded = {
        ("x<-a", frozenset("a")),
        ("y<-b", frozenset("b")),
        ("z", frozenset("a")),
        ("z", frozenset("b")),
    }
    both = {("x<-a, y<-b", frozenset("ab")), ("z", frozenset("ab"))}
    assert taken == (gridded if grids else set()) | (both if sets else set())
    assert [sum(h.variable == v for h in found) for v in space.variables] == [
        space.count(v) for v in space.variables
    ]


@given(UNITS, UNITS)
def test_units_have_equal_ids_exactly_where_they_are_equal_and_cross_processes_unchanged(
    u: Unit, v: Unit
) -> None:
    one, two = Intervention((u,)), Intervention((v,))
    assert (one.id == two.id) == (u == v)
    task = Task(0, "measure", (one, two), (Block("test", 0, (1, 2)),))
    again = pickle.loads(pickle.dumps(task))
    assert again == task
    assert [i.id for i in again.interventions] == [one.id, two.id]


def test_what_a_model_has_once_is_told_by_its_name() -> None:
    assert [is_in_layers(c) for c in ("residual", "embedding", "model.norm", "model.layers.{layer}.mlp", "head")] == [
        True, False, False, True, True,
    ]  # fmt: skip


def test_an_id_is_made_of_what_asdict_says() -> None:
    """The ids' own way of taking a hypothesis apart is the standard one, only faster."""
    site = Site(3, "head", "last", head=2)
    unit = Unit(
        site, Subspace("mask", None, (1, 4), "coordinates", "digest"), Site(1, "residual", "a"), "s"
    )
    unit = replace(unit, subspace=replace(unit.subspace, options='{"strength":1.0}'))
    intervention = Intervention((unit,), "zero", "placebo", "v", "fit")
    assert to_plain(intervention) == asdict(intervention)
    assert to_plain(intervention.units) == tuple(asdict(u) for u in intervention.units)


def test_a_subspace_without_options_has_the_id_that_it_had_before_there_were_any() -> None:
    plain = to_plain(Subspace("das", 4))
    assert "options" not in plain
    assert {**plain, "options": None} == asdict(Subspace("das", 4))
    h = Hypothesis("v", Intervention((Unit(Site(3, "residual", "last"), Subspace("das", 4)),)))
    assert h.id == "e67c03480cba4166"
