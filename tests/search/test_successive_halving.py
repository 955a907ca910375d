"""Training and controls: who is fit in whose company does not depend on the cluster; what is lost
is a stretch; controls stand apart."""

import random
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysearch.core.controls import arbitrary_labels, controls_of
from raysearch.core.events import Event, Fitted, Task
from raysearch.core.fit_keys import FitKeys
from raysearch.core.hypothesis import Hypothesis, Intervention, Site, Subspace, Unit
from raysearch.core.records import Concluded, Decided, Proposed, Trained
from raysearch.errors import PairsError
from raysearch.search.search import Search
from tests.search.worlds import Cluster, World, lost, raising

DAS = (Subspace("das", 2), Subspace("das", 4))


def _world(seed: int = 0, **more: object) -> World:
    return replace(World(seed, subspaces=DAS, fit=24), **more)  # type: ignore[arg-type]


def _verdicts(search: Search) -> Mapping[str, object]:
    return {**search.verdicts, **{f"estimate {k}": v for k, v in search.estimates.items()}}


def _without_reasons(search: Search) -> Mapping[str, object]:
    verdicts = {name: replace(decided, reason=None) for name, decided in search.verdicts.items()}
    return {
        **verdicts,
        **{f"estimate {name}": estimate for name, estimate in search.estimates.items()},
    }


def _companies(tasks: list[Task]) -> set[tuple[object, ...]]:
    """Who went out with whom, from which states, for which steps."""
    return {
        (task.steps, tuple((s.key, s.state, s.start) for s in task.seeds))
        for task in tasks
        if task.kind == "fit"
    }


class Watched(Cluster):
    """A cluster that remembers what was asked."""

    def drive(self, search: Search, most: int = 100_000) -> Search:
        self.asked: list[Task] = []
        ask = search.ask

        def remembered(n: int) -> list[Task]:
            tasks = ask(n)
            self.asked += tasks
            return tasks

        search.ask = remembered  # type: ignore[method-assign]
        return super().drive(search, most)


@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    workers=st.integers(1, 9),
    controls=st.booleans(),
    warm=st.booleans(),
)
def test_verdicts_of_what_is_fit_do_not_depend_on_the_cluster(
    seed: int, workers: int, controls: bool, warm: bool
) -> None:
    asked = ("random_subspace", "random_model", "arbitrary_labels", "placebo") if controls else ()
    world = _world(seed % 5, controls=asked, warm_start=warm)
    still = Cluster(world, 1, 0).drive(world.search())
    wild = Cluster(world, workers, seed, lost=0.3, twice=0.3).drive(world.search())
    assert _verdicts(wild) == _verdicts(still)


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10_000), warm=st.booleans())
def test_who_trains_in_whose_company_does_not_depend_on_who_is_lost_with_a_node(
    seed: int, warm: bool
) -> None:
    world = _world(seed % 5, warm_start=warm)
    still, wild = Watched(world, 1, 0), Watched(world, 5, seed, twice=0.3)
    still.drive(world.search())
    wild.drive(world.search())
    assert _companies(wild.asked) == _companies(still.asked)


@pytest.mark.slow
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), cut=st.floats(0, 1), warm=st.booleans())
def test_a_search_that_goes_on_from_a_journal_fits_on_in_the_same_company(
    seed: int, cut: float, warm: bool
) -> None:
    world = _world(seed % 5, warm_start=warm)
    whole = Watched(world, 3, seed)
    done = whole.drive(world.search())
    told: list[Event] = whole.told[: int(cut * len(whole.told))]
    resumed = world.search()
    for event in told:
        resumed.tell([event])
        resumed.validate()
    again = Watched(world, 2, seed + 1)
    again.drive(resumed)
    assert _verdicts(resumed) == _verdicts(done)
    assert _companies(again.asked) <= _companies(whole.asked)


def test_hopeless_seeds_are_dropped_at_a_rung_and_tested_as_they_are() -> None:
    world = _world(1)
    cluster = Watched(world, 2, 0)
    search = cluster.drive(world.search())
    ends = [n for n in cluster.notes if isinstance(n, Concluded)]
    dropped = [n for n in ends if n.status == "dropped"]
    assert len(ends) == 2 * 2 * 6 * 2
    assert dropped
    assert all(
        n.event.last in world.rungs and (n.event.validation_iia or 0) < world.threshold / 2
        for n in dropped
    )
    for end in dropped:
        layer = _intervention(search, end.event.intervention).units[0].site.layer
        assert world.rates(layer) < 0.75, "nobody is dropped who might do"
    assert {d.hypothesis.id for d in search.verdicts.values()} == {h.id for h in world.space}


def test_the_share_that_is_kept_is_rounded_up() -> None:
    """Of three seeds that are all hopeless, half are two; one is dropped for each variable."""
    alone = World(1, layers=1, subspaces=DAS[:1], fit=24, seeds=(0, 1, 2), rungs=(5,))
    cluster = Watched(alone, 2, 0)
    cluster.drive(alone.search())
    ends = [n for n in cluster.notes if isinstance(n, Concluded)]
    assert len(ends) == 3 * 2
    assert sum(n.status == "dropped" for n in ends) == 2


def test_the_best_seed_by_validation_is_tested_and_all_are_read_on_the_holdout() -> None:
    world = _world(2)
    cluster = Cluster(world, 2, 0)
    search = cluster.drive(world.search())
    last: dict[tuple[str, int], Fitted] = {}
    for note in cluster.notes:
        if isinstance(note, Concluded):
            last[note.event.intervention, note.event.seed] = note.event
    assert search.estimates
    for name, decided in search.verdicts.items():
        of = [last[decided.hypothesis.intervention.id, seed] for seed in world.seeds]
        assert (
            decided.fit
            == max(of, key=lambda e: (e.validation_iia, -(e.validation_loss or 0), -e.seed)).fit
        )
        if name in search.estimates:
            seeds = [r for r in search.estimates[name].readings if r.name == "seed"]
            assert [(r.seed, r.fit) for r in seeds] == [(e.seed, e.fit) for e in of]
            tested = next(r for r in seeds if r.fit == decided.fit)
            assert (tested.n, tested.matches) == (
                search.estimates[name].n,
                search.estimates[name].matches,
            )


def test_an_accepted_hypothesis_is_read_beside_its_cheap_controls() -> None:
    world = World(2)
    search = Cluster(world, 2, 0).drive(world.search())
    assert search.estimates
    for estimate in search.estimates.values():
        assert [r.name for r in estimate.readings] == ["random_source", "self_swap"]
        assert all(r.n == estimate.n for r in estimate.readings)


def test_controls_stand_outside_of_the_counts_and_follow_every_accepted_hypothesis() -> None:
    plain = _world(3)
    world = _world(3, controls=("random_subspace", "arbitrary_labels"))
    before = Cluster(plain, 2, 0).drive(plain.search())
    cluster = Cluster(world, 2, 0)
    search = cluster.drive(world.search())
    controls = [
        n.hypothesis
        for n in cluster.notes
        if isinstance(n, Proposed) and n.hypothesis.intervention.control
    ]
    accepted = [h for h, d in before.verdicts.items() if d.verdict == "accept"]
    assert len(controls) == 2 * len(accepted) > 0
    assert {c.id for c in controls} <= set(search.verdicts)
    for part in ("accepted", "rejected", "undecided", "failed"):
        assert getattr(search.snapshot(), part) == getattr(before.snapshot(), part)
    real = {k: d for k, d in search.verdicts.items() if d.hypothesis.intervention.control is None}
    assert real == before.verdicts


def test_a_seed_that_always_fails_leaves_the_others_and_without_any_the_hypothesis_fails() -> None:
    world = _world(4, layers=2)
    search = world.search()
    poisoned = next(iter(world.space)).intervention
    notes: list[object] = []
    while not search.done:
        for task in search.ask(4):
            events = world.run(task)
            if task.kind == "fit":
                bad = {f"{poisoned.id}#0", f"{poisoned.id}#1"}
                events = [
                    e
                    for e in events
                    if not (isinstance(e, Fitted) and f"{e.intervention}#{e.seed}" in bad)
                ]
                events += [raising(task, key, 0) for key in task.keys if key in bad]
            notes += search.tell(events)
            search.validate()
    failed = [n for n in notes if isinstance(n, Decided) and n.verdict == "failed"]
    assert [n.hypothesis.intervention.id for n in failed] == [poisoned.id]
    assert failed[0].reason == "ValueError: boom"
    assert sum(isinstance(n, Decided) for n in notes) == len(world.space)


def test_a_failure_of_a_seed_that_is_told_twice_while_its_company_is_out_harms_nobody() -> None:
    world = _world(1, layers=2)
    still = Cluster(world, 1, 0).drive(world.search())
    search = world.search()
    twice: str | None = None
    while not search.done:
        for task in search.ask(1):
            events = world.run(task)
            if task.kind == "fit" and len(task.keys) > 1 and twice is None:
                twice = task.keys[0]
                failed = raising(task, twice, 0)
                events = [
                    failed,
                    failed,
                    *(e for e in events if isinstance(e, Fitted) and e.key != twice),
                ]
            for event in events:
                search.tell([event])
                search.validate()
    assert twice is not None
    assert _verdicts(search) == _verdicts(still)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), cut=st.floats(0, 1), warm=st.booleans())
def test_failing_seeds_and_lost_workers_are_replayed_to_the_same_verdicts(
    seed: int, cut: float, warm: bool
) -> None:
    world = _world(seed % 5, layers=3, warm_start=warm)
    bad = {f"{h.intervention.id}#0" for i, h in enumerate(world.space) if i % 3 == 0}
    bad |= {f"{h.intervention.id}#1" for i, h in enumerate(world.space) if i % 6 == 0}

    class Failing(Watched):
        def _answer(self, task: Task, rng: random.Random, late: list[Event]) -> list[Event]:
            events = super()._answer(task, rng, late)
            kept = [
                e
                for e in events
                if not (isinstance(e, Fitted) and f"{e.intervention}#{e.seed}" in bad)
            ]
            return kept + [
                raising(task, key, 0) for key in task.keys if key in bad and len(kept) < len(events)
            ]

    whole = Failing(world, 3, seed, lost=0.2)
    done = whole.drive(world.search())
    failed = {d.hypothesis.intervention.id for d in done.verdicts.values() if d.verdict == "failed"}
    assert failed == {h.intervention.id for i, h in enumerate(world.space) if i % 6 == 0}
    resumed = world.search()
    for event in whole.told[: int(cut * len(whole.told))]:
        resumed.tell([event])
        resumed.validate()
    Failing(world, 2, seed + 1).drive(resumed)
    assert _without_reasons(resumed) == _without_reasons(done), (
        "which of three attempts was the last is the cluster's"
    )


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), lost=st.sampled_from([0.0, 0.3]))
def test_warm_a_rotation_begins_within_the_next_larger_of_its_seed_once_that_has_ended(
    seed: int, lost: float
) -> None:
    sizes = (
        Subspace("das", 2),
        Subspace("das", 8),
        Subspace("boundless_rank", 4),
        Subspace("das", 4),
    )
    world = replace(
        _world(seed % 5, layers=3, warm_start=True, steps=20, rungs=(10,)), subspaces=sizes
    )
    cluster = Watched(world, 4, seed, lost=lost, twice=lost)
    search = cluster.drive(world.search())
    ends = {
        (n.event.intervention, n.event.seed): n for n in cluster.notes if isinstance(n, Concluded)
    }
    assert len(ends) == 3 * 2 * 4 * 2
    for (name, number), end in ends.items():
        intervention = _intervention(search, name)
        larger = (
            {2: 4, 4: 8}.get(_features(intervention))
            if intervention.units[0].subspace in DAS
            else None
        )
        if larger is None:
            assert end.start is None
        else:
            assert end.start == ends[_resized(intervention, larger).id, number].event.fit
    asked = [
        s for task in cluster.asked if task.kind == "fit" and task.steps[0] == 0 for s in task.seeds
    ]
    assert {s.start for s in asked} == {end.start for end in ends.values()}
    assert all(s.start in task.digests for task in cluster.asked for s in task.seeds if s.start)


def test_warm_where_the_larger_has_failed_the_smaller_begins_at_random_and_others_do_not() -> None:
    world = _world(4, layers=2, warm_start=True)
    larger = [h.intervention for h in world.space if _features(h.intervention) == 4]
    bad = {f"{larger[0].id}#1"}
    search = world.search()
    ends: dict[str, Concluded] = {}
    while not search.done:
        for task in search.ask(4):
            events = [e for e in world.run(task) if not (isinstance(e, Fitted) and e.key in bad)]
            events += [raising(task, key, 0) for key in task.keys if key in bad]
            ends |= {n.event.key: n for n in search.tell(events) if isinstance(n, Concluded)}
            search.validate()
    warm = {f"{_resized(i, 2).id}#{seed}": f"{i.id}#{seed}" for i in larger for seed in world.seeds}
    cold = next(small for small, of in warm.items() if of in bad)
    assert ends[cold].start is None
    assert all(
        ends[small].start == ends[of].event.fit for small, of in warm.items() if small != cold
    )


def test_warm_the_controls_of_what_is_accepted_begin_within_those_of_the_larger_as_it_did() -> None:
    rates = {"rates": lambda layer: (0.2, 0.95)[layer % 2]}
    world = replace(
        _world(2, layers=2, warm_start=True, controls=("arbitrary_labels",), rungs=()), **rates
    )
    cluster = Watched(world, 3, 0)
    search = cluster.drive(world.search())
    ends = {
        (n.event.intervention, n.event.seed): n for n in cluster.notes if isinstance(n, Concluded)
    }
    controls = [
        d.hypothesis
        for d in search.verdicts.values()
        if d.hypothesis.intervention.control == "arbitrary_labels"
    ]
    small = [h.intervention for h in controls if _features(h.intervention) == 2]
    assert small
    for control in small:
        assert all(
            ends[control.id, s].start == ends[_resized(control, 4).id, s].event.fit
            for s in world.seeds
        )


def test_cold_sizes_race_together_and_warm_one_after_the_other() -> None:
    def sizes_at_once(warm: bool) -> list[set[int | None]]:
        world = _world(1, warm_start=warm, rungs=())
        cluster = Watched(world, 100, 0)
        cluster.drive(world.search())
        first = [t for t in cluster.asked if t.kind == "fit" and t.steps[0] == 0]
        return [{_features(s.intervention) for s in t.seeds} for t in first]

    assert any(sizes == {2, 4} for sizes in sizes_at_once(False))
    assert all(len(sizes) == 1 for sizes in sizes_at_once(True))


def test_what_was_never_looked_at_is_the_first_to_be_dropped() -> None:
    world = _world(1, layers=2, rungs=(5,))
    search = world.search()
    ended: list[Concluded] = []
    while not search.done:
        for task in search.ask(4):
            events = [
                replace(e, validation_iia=None, validation_loss=None)
                if isinstance(e, Fitted) and e.seed
                else e
                for e in world.run(task)
            ]
            ended += [n for n in search.tell(events) if isinstance(n, Concluded)]
    dropped = {n.event.seed for n in ended if n.status == "dropped"}
    assert dropped == {1}


def test_labels_that_are_arbitrary_make_other_pairs_change_pairs() -> None:
    """With most pairs keep pairs, more are change pairs after relabelling than before."""
    world = _world(2, layers=6, these_pairs=True, controls=("arbitrary_labels",))
    world.pairs = {
        i: replace(
            e, counterfactual={"v": (10,) if i % 3 == 0 else (0,), "w": e.counterfactual["w"]}
        )
        for i, e in world.pairs.items()
    }
    search = Cluster(world, 2, 0).drive(world.search())
    controls = [d for d in search.verdicts.values() if d.hypothesis.intervention.control]
    assert controls
    assert all(d.n + d.keep_n <= 120 for d in controls)


def test_a_task_of_fits_that_takes_two_workers_with_it_goes_out_in_halves() -> None:
    world = _world(4)
    search = world.search()
    while True:
        (task,) = search.ask(1)
        if task.kind == "fit":
            break
        search.tell(world.run(task))
    assert len(task.seeds) == 3
    for _ in range(2):
        search.tell([lost(task, "worker")])
        (task, *_) = [t for t in search.ask(100) if t.kind == "fit" and t.attempt]
    assert len(task.seeds) in (1, 2)


def test_without_solved_fit_pairs_nothing_can_be_fit() -> None:
    world = _world(0, fit=1)
    search = world.search()
    world.pairs = {
        **world.pairs,
        len(world.pairs) - 1: replace(world.pairs[len(world.pairs) - 1], base=(98,)),
    }
    search = world.search()
    with pytest.raises(PairsError, match="solves 0 of the 1 fit pairs"):
        Cluster(world, 1, 0).drive(search)


def test_stretches_end_where_state_is_kept_at_rungs_and_at_the_end() -> None:
    assert FitKeys(steps=100, saves=2, rungs=(30,)).ends == (30, 50, 100)
    assert FitKeys(steps=3, saves=10).ends == (1, 2, 3)


def test_arbitrary_labels_are_a_relabelling_in_which_nobody_keeps_his_own() -> None:
    values = [(i,) for i in range(7)]
    labels = arbitrary_labels(values[::-1])
    assert sorted(labels) == sorted(labels.values()) == values
    assert all(labels[v] != v for v in values)
    assert labels == arbitrary_labels(values)


@pytest.mark.parametrize(
    ("subspace", "wanted"),
    [
        (Subspace(), ["placebo", "random_model"]),
        (Subspace(coordinates=(1, 5)), ["placebo", "random_model", "random_subspace"]),
        (Subspace("pca", 4), ["placebo", "random_model", "random_subspace"]),
        (Subspace("das", 4), ["arbitrary_labels", "placebo", "random_model", "random_subspace"]),
    ],
)
def test_controls_that_make_no_sense_are_not_tested(subspace: Subspace, wanted: list[str]) -> None:
    intervention = Intervention(
        (Unit(Site(0, "residual", "last"), subspace),), variable="v", fit="digest"
    )
    found = controls_of(
        Hypothesis("v", intervention),
        ("arbitrary_labels", "placebo", "random_model", "random_subspace"),
        None,
    )
    assert [c.intervention.control for c in found] == wanted
    assert all(c.intervention.fit is None for c in found)
    sizes = [
        u.subspace.features
        for c in found
        if c.intervention.control == "random_subspace"
        for u in c.intervention.units
    ]
    assert sizes == [2 if subspace.coordinates else 4][: len(sizes)]


def test_the_course_of_training_is_told_stretch_by_stretch() -> None:
    world = _world(1, layers=1)
    cluster = Cluster(world, 1, 0)
    cluster.drive(world.search())
    told = [n.event for n in cluster.notes if isinstance(n, Trained)]
    by_seed: dict[tuple[str, int], list[tuple[int, int]]] = {}
    for event in told:
        by_seed.setdefault((event.intervention, event.seed), []).append((event.first, event.last))
    for course in by_seed.values():
        assert course[0][0] == 0
        assert all(before[1] == after[0] for before, after in pairwise(course))


def _features(intervention: Intervention) -> int | None:
    return intervention.units[0].subspace.features


def _resized(intervention: Intervention, features: int) -> Intervention:
    (unit,) = intervention.units
    return replace(
        intervention, units=(replace(unit, subspace=replace(unit.subspace, features=features)),)
    )


def _intervention(search: Search, name: str) -> Intervention:
    return next(
        d.hypothesis.intervention
        for d in search.verdicts.values()
        if d.hypothesis.intervention.id == name
    )
