"""What an event costs does not grow with the hypotheses that live: counted in bytecodes, for a
clock would tell of the machine."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import pytest

from raysearch.core.events import Event, Measured, Task
from raysearch.core.hypothesis import Subspace
from raysearch.search.search import Search
from tests.search.worlds import World, lost, raising

Answer = Callable[[World, Task, int], list[Event]]

TURNS = 30
WORKERS = 4


@dataclass
class Count:
    bytecodes: int = 0


@contextmanager
def counting(count: Count) -> Iterator[None]:
    """Counts the bytecodes that Python runs inside, loops of comprehensions and generators among
    them."""

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        count.bytecodes += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def answered(world: World, task: Task, turn: int) -> list[Event]:
    return world.run(task)


def troubled(world: World, task: Task, turn: int) -> list[Event]:
    """Every third task is lost, every third raises."""
    return [world.run(task), [lost(task, "worker" if turn % 2 else "node")], [raising(task, None)]][
        turn % 3
    ]


def driven(world: World, seen: int) -> Search:
    """A search in which each open intervention has `seen` blocks, or a few have one more."""
    search = world.search()
    while search.snapshot().stage == "screening":
        for task in search.ask(1):
            search.tell(world.run(task))
    assert search.snapshot().alive == 2 * world.layers
    events = 0
    while events < seen * world.layers:
        for task in search.ask(1):
            told = world.run(task)
            search.tell(told)
            events += len(told)
    return search


@pytest.fixture(autouse=True, scope="module")
def _warm() -> None:
    """The evidence of each number of matches is computed once in a process, so the first search
    would pay for the second."""
    driven(wide(1_000), seen=2)


def cost(
    world: World,
    answer: Answer,
    look: Callable[[Search], object] = Search.snapshot,
    seen: int = 0,
) -> float:
    """Bytecodes of `ask`, `tell` and `look` for each event, once all hypotheses of a world live and
    have `seen` blocks. All that is counted is of the block after: a first look costs less than a
    second, and a verdict some four times as much as a look, so a mixture would tell of its parts."""
    search = driven(world, seen)
    alive = search.snapshot().alive
    count, events = Count(), 0
    out: list[Task] = []
    for turn in range(TURNS):
        with counting(count):
            out += search.ask(WORKERS - len(out))
        told = answer(world, out.pop(0), turn)
        events += len(told)
        _begin_at(told, seen, blocks=1 if world.lease_steps == 1 else None)
        with counting(count):
            search.tell(told)
            look(search)
            assert not search.done
    assert search.snapshot().alive > alive / 2, (
        "few were decided meanwhile: the rest lived all the time"
    )
    search.validate()
    return count.bytecodes / events


def _begin_at(told: list[Event], seen: int, blocks: int | None) -> None:
    """Of each intervention the blocks follow each other from that number on; at most so many."""
    ran: dict[str, set[int]] = {}
    for event in told:
        if isinstance(event, Measured):
            ran.setdefault(event.intervention, set()).add(event.block)
    for of in ran.values():
        assert of == set(range(seen, seen + len(of)))
        assert blocks is None or len(of) <= blocks


def wide(hypotheses: int, rows: int = 8, lease_steps: int = 1) -> World:
    """Of a thousand, 30 tasks of 8 rows are all at one block, without leases."""
    return World(1, layers=hypotheses // 2, rows=rows, lease_steps=lease_steps)


@pytest.mark.slow_unless(seen=[1], answer=[troubled])
@pytest.mark.parametrize("seen", [0, 1])
@pytest.mark.parametrize("answer", [answered, troubled])
def test_an_event_costs_the_same_among_a_thousand_and_among_ten_thousand_hypotheses(
    answer: Answer, seen: int
) -> None:
    few, many = (cost(wide(n), answer, seen=seen) for n in (1_000, 10_000))
    assert many == pytest.approx(few, rel=0.01)


@pytest.mark.slow
def test_an_event_of_a_lease_costs_the_same_among_a_thousand_and_among_ten_thousand() -> None:
    """A lease goes on to verdicts, which come at other looks where K is larger: 2 % were measured."""
    few, many = (cost(wide(n, lease_steps=8), answered) for n in (1_000, 10_000))
    assert many == pytest.approx(few, rel=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("answer", [answered, troubled])
def test_an_event_costs_the_same_among_a_thousand_and_among_ten_thousand_seeds_in_training(
    answer: Answer,
) -> None:
    few, many = (
        cost(World(1, layers=n // 4, fit=40, subspaces=(Subspace("das", 1),), seeds=(0, 1)), answer)
        for n in (1_000, 10_000)
    )
    assert many == pytest.approx(few, rel=0.02)


def test_a_scan_over_the_living_would_be_counted() -> None:
    """The measure itself: one pass over what lives, a turn, is seen."""

    def scan(search: Search) -> int:
        return sum(not trial.closed for trial in search._registry._trials.values())

    few, many = (cost(wide(n, rows=4), answered, scan) for n in (1_000, 10_000))
    assert many > 1.5 * few
