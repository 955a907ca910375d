"""Leases: a replica goes from look to look by itself, and no verdict is another for it."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysearch.cluster.replica_spec import check_answers
from raysearch.core.answers import EXACT_MATCH
from raysearch.core.events import Block, Encoded, Event, Failed, Measured, Task
from raysearch.core.hypothesis import Intervention, Subspace
from raysearch.core.lease import Lease, LeasedTest, StopRule
from raysearch.core.records import Counted
from raysearch.engine.leased_run import LeasedRun
from raysearch.search.criteria import Criterion, DecisionRule
from raysearch.search.search import Search
from raysearch.stats.betting_test import BettingTest
from raysearch.stats.evidence import Evidence
from raysearch.stats.match_test import MatchTest
from tests.search.worlds import Cluster, World, encoded_of, lost, raising

RULES = {
    "plain": DecisionRule(),
    "unfiltered": DecisionRule(kinds="unfiltered"),
    "fdr": DecisionRule(fdr=True),
    "both": DecisionRule(kinds="both", keep_threshold=0.3),
    "above": DecisionRule(above_baselines=True),
    "at_end": DecisionRule(at_end=True),
}
LEASED = ("plain", "unfiltered", "fdr")


def _near_threshold(layer: int) -> float:
    return (0.05, 0.78, 0.8, 0.82, 0.9, 1.0)[layer % 6]


def _world(seed: int, rule: str, these_pairs: bool = False, **more: Any) -> World:
    return World(
        seed,
        test=90,
        max_pairs=90,
        these_pairs=these_pairs,
        rates=_near_threshold,
        solved=0.9,
        rule=RULES[rule],
        **more,
    )


def _found(search: Search) -> Mapping[str, object]:
    return {**search.verdicts, **{f"estimate {k}": v for k, v in search.estimates.items()}}


@cache
def _without(seed: int, rule: str, these_pairs: bool) -> Mapping[str, object]:
    world = _world(seed, rule, these_pairs, lease_steps=1)
    return _found(Cluster(world, 1, 0).drive(world.search()))


def _encoded(world: World) -> dict[int, Encoded]:
    return {i: encoded_of(i, pair) for i, pair in world.pairs.items()}


@dataclass(frozen=True)
class _WrongRule:
    """Ends with a chance, whatever was seen."""

    rng: random.Random
    chance: float

    def ends(self, n: int, matches: int) -> bool:
        return self.rng.random() < self.chance


def _corrupted(lease: Lease, rng: random.Random) -> Lease:
    """A lease with other rules and other counts."""

    def rule() -> StopRule:
        return _WrongRule(rng, rng.choice([0.0, 0.2, 1.0]))

    def wrong(test: LeasedTest) -> LeasedTest:
        return replace(test, matches=rng.randrange(50), rule=rule())

    return replace(lease, tests=tuple(tuple(map(wrong, tests)) for tests in lease.tests))


@dataclass
class Misled(World):
    """Workers whose leases are wrong."""

    misled: int = 0
    rng: random.Random = field(default_factory=lambda: random.Random(7))

    def run(self, task: Task) -> list[Event]:
        if task.lease is not None and any(task.lease.tests):
            self.misled += 1
            task = replace(task, lease=_corrupted(task.lease, self.rng))
        return super().run(task)


@dataclass
class Watched(World):
    """Keeps each leased task with the steps that it was run in."""

    leased: list[tuple[Task, list[Task], list[Event]]] = field(default_factory=list)
    plain: list[Task] = field(default_factory=list)
    depth: int = 0

    def run(self, task: Task) -> list[Event]:
        if task.lease is not None:
            self.leased.append((task, [], []))
            self.depth = 1
            events = super().run(task)
            self.depth = 0
            self.leased[-1][2].extend(events)
            return events
        (self.leased[-1][1] if self.depth else self.plain).append(task)
        return super().run(task)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    workers=st.integers(1, 6),
    rows=st.sampled_from([1, 8, 32, 300]),
    steps=st.sampled_from([2, 8]),
    rule=st.sampled_from(sorted(RULES)),
    these_pairs=st.booleans(),
)
def test_verdicts_are_those_without_leases(
    seed: int, workers: int, rows: int, steps: int, rule: str, these_pairs: bool
) -> None:
    world = _world(seed % 5, rule, these_pairs, lease_steps=steps, rows=rows)
    wild = Cluster(world, workers, seed, lost=0.2, twice=0.2).drive(world.search())
    assert _found(wild) == _without(seed % 5, rule, these_pairs)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), workers=st.integers(1, 4), rule=st.sampled_from(LEASED))
def test_a_wrong_lease_changes_no_verdict(seed: int, workers: int, rule: str) -> None:
    of = _world(seed % 5, rule)
    world = Misled(**{name: getattr(of, name) for name in _fields(of)})
    wild = Cluster(world, workers, seed, lost=0.2, twice=0.2).drive(world.search())
    assert world.misled
    assert _found(wild) == _without(seed % 5, rule, False)


def _fields(world: World) -> Sequence[str]:
    return [name for name, of in World.__dataclass_fields__.items() if of.init]


def _watched(seed: int, rule: str, **more: Any) -> tuple[Watched, Cluster]:
    of = _world(seed, rule, **more)
    world = Watched(**{name: getattr(of, name) for name in _fields(of)})
    cluster = Cluster(world, 1, seed)
    cluster.drive(world.search())
    return world, cluster


@pytest.mark.parametrize("rule", LEASED)
@pytest.mark.parametrize("rows", [8, 32])
def test_a_lease_begins_no_step_that_the_search_would_not_ask_for(rule: str, rows: int) -> None:
    """Every step begins at a block that is counted, so with a hypothesis that is not decided, and
    takes no more rows than a task; it goes on while one is open, unless its rows are used up."""
    world, cluster = _watched(2, rule, rows=rows)
    counted = {n.observation.key for n in cluster.notes if isinstance(n, Counted)}
    blocks = Counter(key[0] for key in counted if key[1] == "test")
    goes_on = 0
    for task, steps, events in world.leased:
        if task.kind != "measure":
            continue
        assert task.lease is not None
        check_answers(task, events)
        for step in steps:
            first = step.blocks[0]
            assert step.rows <= max(rows, len(first.pairs) * len(step.interventions))
            for intervention in step.interventions:
                assert (intervention.key, "test", first.index) in counted
        goes_on += len(steps) > 1
        ran = sum(step.rows for step in steps)
        for e in events:
            if isinstance(e, Measured) and e.stopped and ran < task.lease.rows:
                assert e.block + 1 >= blocks[e.intervention], "it stopped before its verdict"
    assert goes_on


@pytest.mark.parametrize("rule", sorted(RULES))
def test_what_is_not_of_matches_alone_is_not_leased(rule: str) -> None:
    world, _ = _watched(1, rule)
    leased = {i for task, *_ in world.leased if task.kind == "measure" for i in task.interventions}
    assert bool(leased) == (rule in LEASED)


def test_a_hypothesis_with_other_labels_is_not_leased() -> None:
    """A replica does not know what replaces a counterfactual."""
    asked: list[Task] = []
    fitted = {"fit": 24, "subspaces": (Subspace("das", 2),), "controls": ("arbitrary_labels",)}
    world = World(2, these_pairs=True, **fitted)  # type: ignore[arg-type]
    search = world.search()
    while not search.done:
        for task in search.ask(1):
            asked += [task] if task.kind == "measure" else []
            search.tell(world.run(task))
    leased = {i.control for task in asked if task.lease for i in task.interventions}
    assert "arbitrary_labels" in {i.control for task in asked for i in task.interventions}
    assert "arbitrary_labels" not in leased
    assert None in leased


def test_leases_save_tasks_and_cost_no_rows() -> None:
    def tasks(steps: int) -> tuple[int, int, int]:
        world = World(4, layers=60, rows=32, lease_steps=steps)
        cluster = Cluster(world, 1, 0)
        cluster.drive(world.search())
        measured = [e for e in cluster.told if isinstance(e, Measured)]
        on_test = [e for e in measured if e.split == "test"]
        return (
            len({e.task for e in on_test}),
            len({e.task for e in measured}),
            sum(len(e.pairs) for e in on_test),
        )

    of_tests, of_all, rows = tasks(8)
    tests_before, all_before, rows_before = tasks(1)
    assert of_tests < tests_before / 3
    assert of_all < all_before / 1.5
    assert rows < 1.1 * rows_before


@pytest.mark.parametrize(("rows", "seconds", "steps"), [(1, 1e9, 1), (9, 1e9, 3), (99, 2.5, 3)])
def test_a_lease_ends_when_its_rows_or_its_time_are_used_up(
    rows: int, seconds: float, steps: int
) -> None:
    """The first step always runs."""
    world = World(0)
    intervention = _one_of(world, 5)
    blocks = tuple(Block("test", i, tuple(range(4 * i, 4 * i + 4))) for i in range(9))
    task = Task(0, "measure", (intervention,), blocks, lease=Lease(((),), False, 4, rows, seconds))
    ticks = iter(range(99))
    run = LeasedRun(_encoded(world), {0: EXACT_MATCH}, lambda: float(next(ticks)))
    events = run.do(task, world.run)
    check_answers(task, events)
    assert [e.block for e in events if isinstance(e, Measured)] == list(range(steps))
    assert [e.block for e in events if isinstance(e, Measured) and e.stopped] == [steps - 1]


def _one_of(world: World, layer: int) -> Intervention:
    (found,) = {h.intervention for h in world.space if h.intervention.units[0].site.layer == layer}
    return found


def test_what_fails_in_a_later_step_has_no_mark_of_an_end() -> None:
    """Its observations of the step before are followed by others, and then by the failure."""
    world = World(0)
    bad, good = _one_of(world, 3), _one_of(world, 5)
    blocks = tuple(Block("test", i, tuple(range(4 * i, 4 * i + 4))) for i in range(6))

    def run(step: Task) -> list[Event]:
        spared = [
            e
            for e in world.run(step)
            if not isinstance(e, Measured) or e.intervention == good.key or e.block < 3
        ]
        fails = step.blocks[-1].index >= 3 and bad in step.interventions
        return [*spared, raising(step, bad.key, 3)] if fails else spared

    lease = Lease(((), ()), False, step=16, rows=32, seconds=1e9)
    task = Task(0, "measure", (bad, good), blocks, lease=lease)
    events = LeasedRun(_encoded(world), {0: EXACT_MATCH}, lambda: 0.0).do(task, run)
    check_answers(task, events)
    measured = [e for e in events if isinstance(e, Measured)]
    assert [e.block for e in measured if e.intervention == bad.key] == [0, 1, 2]
    assert [e.block for e in events if isinstance(e, Failed)] == [3]
    stopped = [(e.intervention, e.block) for e in measured if e.stopped]
    assert stopped == [(good.key, 3)]


def test_a_lost_lease_is_tried_again_as_a_task_without_one() -> None:
    world = _world(3, "plain")
    search = world.search()
    again: list[Task] = []
    lost_once = False
    while not search.done:
        for task in search.ask(1):
            if task.lease is not None and not lost_once:
                lost_once = True
                search.tell([lost(task, "worker")])
                again += search.ask(1)
                assert again[0].interventions == task.interventions
                assert again[0].lease is None
                assert again[0].rows <= world.rows
                assert again[0].attempt == 1
                search.tell(world.run(again[0]))
            else:
                search.tell(world.run(task))
            search.validate()
    assert _found(search) == _without(3, "plain", False)


@pytest.mark.parametrize("population", [None, 60])
@pytest.mark.parametrize("futility", [0.0, 0.1])
def test_a_rule_ends_where_the_criterion_does(population: int | None, futility: float) -> None:
    futile = 0
    for threshold, hypotheses in ((0.8, 1), (0.8, 10_000), (0.5, 500)):
        test = MatchTest(
            *(threshold, 0.05, 0.05, hypotheses), population=population, futility=futility
        )
        criterion = Criterion(test, last=(40, 0))
        rule = criterion.stop_rule(criterion)
        for n in range(1, 40):
            for s in range(n + 1):
                seen = Evidence(n, s), Evidence()
                ends = criterion.verdict(*seen) is not None
                futile += not ends and criterion.is_futile(*seen)
                assert rule.ends(n, s) == (ends or criterion.is_futile(*seen)), (n, s)
    assert bool(futile) == bool(futility)


def test_only_one_test_of_matches_is_leased() -> None:
    test = MatchTest(0.8, 0.05, 0.05)
    assert Criterion(test).is_of_matches
    assert not Criterion(test, keep=test).is_of_matches
    assert not Criterion(BettingTest(0.8, 0.05, 0.05)).is_of_matches
