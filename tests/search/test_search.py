"""The search: verdicts that do not depend on the cluster, poison that is found, work that is never
asked for twice."""

import gc
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysearch.core.events import Event, Measured, Screened, Task
from raysearch.core.records import Blocked, Conflicted, Counted, Decided, Estimated, Proposed
from raysearch.errors import PairsError, SearchFailedError
from raysearch.search.search import Search
from tests.search.worlds import Cluster, World, contradicted, lost, raising


def _verdicts(search: Search) -> Mapping[str, object]:
    return {**search.verdicts, **{f"estimate {k}": v for k, v in search.estimates.items()}}


def _near_threshold(layer: int) -> float:
    return (0.74, 0.78, 0.8, 0.82, 0.86, 0.95)[layer % 6]


@cache
def _still(seed: int, these_pairs: bool = False) -> Mapping[str, object]:
    """Verdicts on one worker that loses nothing."""
    world = World(seed, these_pairs=these_pairs, rates=_near_threshold, solved=0.9)
    return _verdicts(Cluster(world, 1, 0).drive(world.search()))


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    workers=st.integers(1, 9),
    rows=st.sampled_from([1, 8, 32, 500]),
    these_pairs=st.booleans(),
)
def test_verdicts_do_not_depend_on_the_cluster(
    seed: int, workers: int, rows: int, these_pairs: bool
) -> None:
    world = World(seed % 7, these_pairs=these_pairs, rates=_near_threshold, solved=0.9)
    world.rows = rows
    wild = Cluster(world, workers, seed, lost=0.3, twice=0.3).drive(world.search())
    assert _verdicts(wild) == _still(seed % 7, these_pairs)


def test_the_property_can_fail_because_some_rates_are_near_the_threshold() -> None:
    """Verdicts and stopping times differ between worlds, so equal ones are no accident."""
    stops = {
        tuple(
            sorted((d.verdict, d.n) for d in Cluster(w, 2, 1).drive(w.search()).verdicts.values())
        )
        for w in (World(seed, rates=_near_threshold) for seed in range(4))
    }
    assert len(stops) == 4


def test_counts_are_those_of_the_pairs_up_to_the_stop() -> None:
    world = World(3)
    search = Cluster(world, 3, 0).drive(world.search())
    blocks = search.screening.blocks("test")
    for d in search.verdicts.values():
        pairs = [
            p for b in blocks for p in b.pairs if world.pairs[p].changes(d.hypothesis.variable)
        ][: d.n]
        outputs = [world.output(d.hypothesis.intervention, p) for p in pairs]
        wanted = [world.pairs[p].counterfactual[d.hypothesis.variable] for p in pairs]
        assert d.matches == sum(o == w for o, w in zip(outputs, wanted, strict=True))


def test_every_hypothesis_is_proposed_once_and_decided_once() -> None:
    world = World(5)
    cluster = Cluster(world, 4, 2, lost=0.2, twice=0.2)
    cluster.drive(world.search())
    proposed = Counter(n.hypothesis.id for n in cluster.notes if isinstance(n, Proposed))
    decided = Counter(n.hypothesis.id for n in cluster.notes if isinstance(n, Decided))
    accepted = {
        n.hypothesis.id for n in cluster.notes if isinstance(n, Decided) and n.verdict == "accept"
    }
    assert proposed == decided == Counter(h.id for h in world.space)
    assert accepted == {n.hypothesis.id for n in cluster.notes if isinstance(n, Estimated)} != set()


def test_an_observation_is_counted_at_most_once_and_never_after_the_verdict() -> None:
    world = World(1)
    cluster = Cluster(world, 5, 3, twice=0.5)
    search = cluster.drive(world.search())
    counted = Counter(n.observation.key for n in cluster.notes if isinstance(n, Counted))
    assert set(counted.values()) == {1}
    pairs = {p: b.index for b in search.screening.blocks("test") for p in b.pairs}
    assert len(pairs) == world.test
    last = {}
    for split_key in counted:
        if split_key[1] == "test":
            last[split_key[0]] = max(last.get(split_key[0], 0), split_key[2])
    needed: Counter[str] = Counter()
    for d in search.verdicts.values():
        needed[d.hypothesis.intervention.id] = max(
            needed[d.hypothesis.intervention.id], d.n + d.keep_n
        )
    for intervention, block in last.items():
        assert (
            sum(len(b.pairs) for b in search.screening.blocks("test")[: block + 1])
            == needed[intervention]
        )


@pytest.mark.parametrize("layers", [(0,), (1, 4)])
def test_poison_is_found_by_halving_and_nothing_else_suffers(layers: tuple[int, ...]) -> None:
    world = World(2, layers=40)
    bad = frozenset(
        h.intervention.id for h in world.space if h.intervention.units[0].site.layer in layers
    )
    clean = Cluster(world, 3, 0).drive(world.search())
    world.poison = bad
    search = Cluster(world, 3, 1, lost=0.1).drive(world.search())
    failed = {
        d.hypothesis.intervention.id for d in search.verdicts.values() if d.verdict == "failed"
    }
    assert failed == bad
    for key, verdict in clean.verdicts.items():
        if verdict.hypothesis.intervention.id not in bad:
            assert search.verdicts[key] == verdict


def test_a_task_that_raises_whole_is_halved_until_the_culprit_is_alone() -> None:
    world = World(4, layers=8)
    search = world.search()
    culprit = next(iter(world.space)).intervention.id
    attempts = 0
    while not search.done:
        for task in search.ask(2):
            group = {i.id for i in task.interventions}
            if culprit in group:
                attempts += len(group) == 1 and len(task.blocks) == 1
                search.tell([raising(task, None)])
            else:
                search.tell(world.run(task))
            search.validate()
    failed = {
        d.hypothesis.intervention.id for d in search.verdicts.values() if d.verdict == "failed"
    }
    assert failed == {culprit}
    assert attempts == 3


def test_an_intervention_that_the_engine_reports_gets_three_attempts_and_the_reason_is_kept() -> (
    None
):
    world = World(4)
    search = world.search()
    culprit = next(iter(world.space)).intervention.id
    failures = 0
    while not search.done:
        for task in search.ask(2):
            events = [
                e
                for e in world.run(task)
                if not (isinstance(e, Measured) and e.intervention == culprit)
            ]
            if any(i.id == culprit for i in task.interventions):
                failures += 1
                events.append(raising(task, culprit))
            search.tell(events)
            search.validate()
    failed = [d for d in search.verdicts.values() if d.verdict == "failed"]
    assert failures == 3
    assert {d.hypothesis.intervention.id for d in failed} == {culprit}
    assert all(d.reason == "ValueError: boom" for d in failed)


def test_the_loss_of_nodes_never_counts_against_a_task() -> None:
    world = World(6, layers=1)
    search = world.search()
    for _ in range(50):
        for task in search.ask(1):
            search.tell([lost(task, "node")])
    Cluster(world, 1, 0).drive(search)
    assert not [d for d in search.verdicts.values() if d.verdict == "failed"]


def test_a_replay_of_the_events_gives_the_same_notes_and_can_go_on() -> None:
    world = World(8, rates=_near_threshold)
    cluster = Cluster(world, 3, 5, lost=0.2, twice=0.2)
    whole = cluster.drive(world.search())
    for cut in range(0, len(cluster.told), 7):
        search = world.search()
        search.tell(cluster.told[:cut])
        search.validate()
        rest = Cluster(world, 2, cut)
        rest.drive(search)
        assert _verdicts(search) == _verdicts(whole)
    replayed = world.search()
    assert replayed.tell(cluster.told) == cluster.notes
    assert replayed.done


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), began=st.floats(0, 1), ended=st.floats(0, 1))
def test_two_drivers_at_once_cannot_spoil_a_run(seed: int, began: float, ended: float) -> None:
    """The second begins with what the first has journalled by then; both go on; a third reads one
    after the other."""
    world = World(seed % 7, rates=_near_threshold, solved=0.9)
    first = Cluster(world, 3, seed, lost=0.2, twice=0.2)
    first.drive(world.search())
    known = round(began * len(first.told))
    search = world.search()
    search.tell(first.told[:known])
    second = Cluster(world, 2, seed + 1, lost=0.2, twice=0.2, in_a_row=first.in_a_row)
    assert _verdicts(second.drive(search)) == _still(seed % 7)
    merged = [*first.told[: max(known, round(ended * len(first.told)))], *second.told]
    third = world.search()
    counted = [n.observation.key for n in third.tell(merged) if isinstance(n, Counted)]
    assert third.done
    assert _verdicts(third) == _still(seed % 7)
    assert len(set(counted)) == len(counted)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), rows=st.sampled_from([32, 500]))
def test_an_answer_that_comes_twice_at_any_place_counts_once(seed: int, rows: int) -> None:
    """Ahead of blocks that are yet to be counted too, and where the second says otherwise, which is
    told each time."""
    rng = random.Random(seed)
    world = World(seed % 7, rates=_near_threshold, rows=rows)
    still = Cluster(world, 3, seed)
    still.drive(world.search())
    told, repeats = list(still.told), 0
    for at in reversed(range(len(told))):
        if isinstance(told[at], Measured) and rng.random() < 0.3:
            otherwise = rng.random() < 0.7
            later = at + 1 if rng.random() < 0.7 else rng.randint(at + 1, len(told))
            told.insert(later, contradicted(told[at]) if otherwise else told[at])
            repeats += otherwise
    search = world.search()
    notes = search.tell(told)
    counted = [n.observation for n in notes if isinstance(n, Counted)]
    assert counted == [n.observation for n in still.notes if isinstance(n, Counted)]
    assert search.verdicts == {n.hypothesis.id: n for n in still.notes if isinstance(n, Decided)}
    assert sum(isinstance(n, Conflicted) for n in notes) == search.snapshot().conflicts == repeats


def test_new_tasks_after_a_replay_have_new_ids() -> None:
    world = World(0)
    cluster = Cluster(world, 3, 5)
    cluster.drive(world.search())
    search = world.search()
    search.tell(cluster.told[:10])
    assert min(t.id for t in search.ask(5)) > max(e.task for e in cluster.told[:10])


def test_only_solved_pairs_are_used_and_more_are_screened_while_some_are_missing() -> None:
    world = World(1, test=200, solved=0.5, wanted=50)
    search = world.search()
    cluster = Cluster(world, 2, 0)
    cluster.drive(search)
    used = [p for b in search.screening.blocks("test") for p in b.pairs]
    assert used == [p for p in range(200) if world.solves(p)][:50]
    blocked = next(n for n in cluster.notes if isinstance(n, Blocked))
    assert {p.pair for p in blocked.pairs if p.block is not None and p.split == "test"} == set(used)
    screened, solved, wanted = search.screening.counts("test")
    assert 90 <= screened < 200
    assert solved >= wanted == 50


def test_a_model_that_solves_nothing_is_said_in_one_line() -> None:
    world = World(1, solved=0.0)
    with pytest.raises(PairsError, match="solves 0 of the 120 test pairs"):
        Cluster(world, 1, 0).drive(world.search())


def test_screening_that_fails_three_times_ends_the_search() -> None:
    search = World(0).search()

    def fail_all() -> None:
        for task in search.ask(10):
            search.tell([raising(task, None)])

    fail_all()
    fail_all()
    with pytest.raises(SearchFailedError, match="3 times"):
        fail_all()


def test_tasks_without_a_lease_fill_rows_and_spread_over_idle_workers() -> None:
    world = World(0, layers=30, rows=32, lease_steps=1)
    search = world.search()
    for task in search.ask(100):
        search.tell(world.run(task))
    tasks = search.ask(2)
    assert [len(t.interventions) for t in tasks] == [15, 15]
    assert [t.rows for t in tasks] == [30, 30]
    few = World(0, layers=2, rows=64, lease_steps=1)
    search = few.search()
    for task in search.ask(100):
        search.tell(few.run(task))
    ahead = search.ask(2)
    assert [len(t.interventions) for t in ahead] == [1, 1]
    assert all(len(t.blocks) == 50 and t.rows == 63 for t in ahead)


def test_a_snapshot_adds_up() -> None:
    world = World(2)
    search = Cluster(world, 2, 0).drive(world.search())
    s = search.snapshot()
    assert (s.stage, s.alive, s.out, s.at_most) == ("done", 0, 0, 0)
    assert s.decided == len(world.space)


def test_strikes_in_a_row_count_and_a_success_forgives_them() -> None:
    """Two losses of a worker before every single block: never three in a row, so nothing is
    quarantined."""
    world = World(3, layers=1)
    search = world.search()
    losses: Counter[object] = Counter()
    while not search.done:
        for task in search.ask(1):
            key = (task.kind, task.blocks[0])
            losses[key] += 1
            search.tell([lost(task, "worker")] if losses[key] <= 2 else world.run(task))
            search.validate()
    assert search.verdicts == Cluster(world, 1, 0).drive(world.search()).verdicts


def test_failing_holdout_pairs_spoil_no_verdict_on_test_pairs() -> None:
    world = World(3, layers=6)
    search = world.search()
    while not search.done:
        for task in search.ask(1):
            search.tell([raising(task, None)] if task.kind == "estimate" else world.run(task))
            search.validate()
    assert search.verdicts == Cluster(world, 1, 0).drive(world.search()).verdicts
    assert {e.n for e in search.estimates.values()} == {0}


@pytest.mark.parametrize("bad_pair", [3, 15, 30])
def test_what_fails_far_ahead_decides_nothing_before_it_is_reached(bad_pair: int) -> None:
    """One pair on which every intervention raises: the verdicts do not depend on how many blocks a
    task takes ahead."""

    def run(world: World, task: Task) -> list[Event]:
        events: list[Event] = []
        for intervention in task.interventions:
            own = [
                e
                for e in world.run(task)
                if isinstance(e, Measured) and e.intervention == intervention.id
            ]
            bad = next((b.index for b in task.blocks if bad_pair in b.pairs), None)
            events += [e for e in own if bad is None or e.block < bad]
            if bad is not None:
                events.append(raising(task, intervention.id, bad))
        return events if task.kind != "screen" else world.run(task)

    verdicts = []
    for rows in (1, 8, 500):
        world = World(2, layers=6, rows=rows)
        search = world.search()
        while not search.done:
            for task in search.ask(2):
                search.tell(run(world, task))
                search.validate()
        verdicts.append({k: (v.verdict, v.n, v.matches) for k, v in search.verdicts.items()})
    assert verdicts[0] == verdicts[1] == verdicts[2]
    assert {v for v, _, _ in verdicts[0].values()} >= {"failed"}


def test_a_repeat_that_says_otherwise_is_told_and_not_counted() -> None:
    world = World(5)
    cluster = Cluster(world, 3, 1, twice=1.0)
    search = cluster.drive(world.search())
    conflicts = [n for n in cluster.notes if isinstance(n, Conflicted)]
    assert len(conflicts) == search.snapshot().conflicts > 0


def test_variables_are_checked_again_on_the_pairs_that_the_model_solves() -> None:
    world = World(0, test=40)
    changing = [p for p, e in world.pairs.items() if e.split == "test" and e.changes("w")]
    search = world.search()
    screened = [e for task in search.ask(10) for e in world.run(task) if isinstance(e, Screened)]
    wrong = [
        replace(e, base=tuple((99,) if p in changing else (0,) for p in e.pairs)) for e in screened
    ]
    with pytest.raises(
        PairsError,
        match=r"'w' never changes the answer: on all \d+ test pairs that the model solves",
    ):
        search.tell(wrong)


def test_of_outputs_that_are_counted_nothing_is_kept_but_what_tells_a_repeat_from_a_conflict() -> (
    None
):
    world = World(2)
    cluster = Cluster(world, 1, 0)
    search = cluster.drive(world.search())
    told = [e for e in cluster.told if isinstance(e, Measured) and e.split == "test"]
    assert told
    holders = gc.get_referrers(*told)
    assert not [
        r
        for trial in search._registry._trials.values()
        for r in holders
        if r is trial._ahead or r is trial.observations
    ]
    before = search.snapshot().conflicts
    assert search.tell(told) == []
    other = replace(told[0], outputs=tuple((o[0] + 1,) for o in told[0].outputs))
    assert search.tell([other]) == [Conflicted(other)]
    assert search.snapshot().conflicts == before + 1


def test_an_observation_that_comes_after_the_verdict_is_not_kept() -> None:
    """A closed line keeps nothing, even of what comes late."""
    world = World(2)
    search = Cluster(world, 1, 0).drive(world.search())
    trial = next(
        trial
        for trial in search._registry._trials.values()
        if trial.split == "test" and not trial.exhausted
    )
    block = trial.blocks[-1]
    late = Measured(
        10**6,
        trial.intervention.key,
        "test",
        block.index,
        block.pairs,
        ((1,),) * len(block.pairs),
        0,
        1,
        0.0,
        "cpu",
        "w",
        0,
    )
    assert search.tell([late]) == []
    assert not trial._ahead
    search.validate()
