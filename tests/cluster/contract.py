"""What every pool keeps to, as a test class: run for each of them."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest

from raysearch.core.events import (
    Attributed,
    Block,
    Event,
    Failed,
    Ids,
    Lost,
    Measured,
    Opened,
    Screened,
    Task,
)
from raysearch.core.hypothesis import Intervention, Site, Unit
from raysearch.core.lease import Lease, LeasedTest
from raysearch.search.criteria import Criterion
from raysearch.stats.match_test import MatchTest


def at(layer: int, position: str = "last") -> Intervention:
    return Intervention((Unit(Site(layer, "residual", position)),))


class PoolContract:
    """Give a fixture `pool` of a pool that is not open yet. It is opened once for all of these: a
    replica of Ray costs 5 s to load."""

    @pytest.fixture(scope="class")
    @classmethod
    def opened(cls, pool: Any) -> Iterator[Opened]:
        yield pool.open()
        pool.close()

    def test_opening_tells_the_model_and_every_pair(self, pool: Any, opened: Opened) -> None:
        assert opened.facts.layers == 4
        assert [e.index for e in opened.encoded] == list(range(len(opened.encoded)))
        assert all("last" in e.base_positions for e in opened.encoded)

    def test_a_submitted_task_takes_a_free_worker_until_it_is_answered(
        self, pool: Any, opened: Opened
    ) -> None:
        before = pool.free
        assert before >= 1
        pool.submit(Task(0, "measure", (at(0),), (self._block(opened, 0, 4),)))
        assert pool.free == before - 1
        assert answers(pool, 1)
        assert pool.free >= before

    def test_screening_tells_each_block(self, pool: Any, opened: Opened) -> None:
        blocks = (self._block(opened, 0, 3), self._block(opened, 1, 4))
        pool.submit(Task(7, "screen", (), blocks))
        events = answers(pool, 1)
        assert [(e.task, e.block, e.pairs) for e in events if isinstance(e, Screened)] == [
            (7, b.index, b.pairs) for b in blocks
        ]
        assert all(
            len(e.base) == len(e.pairs) == len(e.sources["source"])
            for e in events
            if isinstance(e, Screened)
        )

    def test_attribution_tells_each_block_of_each_unit_and_variable(
        self, pool: Any, opened: Opened
    ) -> None:
        blocks = (self._block(opened, 0, 3), self._block(opened, 1, 4))
        units = tuple(at(layer).units[0] for layer in (0, 3))
        pool.submit(Task(6, "attribute", (), blocks, units=units))
        events = [e for e in answers(pool, 1) if isinstance(e, Attributed)]
        assert [(e.task, e.block, e.pairs) for e in events] == [
            (6, b.index, b.pairs) for b in blocks
        ]
        variables = set(opened.encoded[0].counterfactual)
        assert all(set(e.effects) == variables for e in events)
        assert all(len(of) == len(units) for e in events for of in e.effects.values())

    def test_measuring_tells_every_intervention_on_every_block(
        self, pool: Any, opened: Opened
    ) -> None:
        blocks = (self._block(opened, 0, 3), self._block(opened, 1, 4))
        interventions = (at(0), at(1), at(3))
        pool.submit(Task(8, "measure", interventions, blocks, attempt=2))
        events = [e for e in answers(pool, 1) if isinstance(e, Measured)]
        assert {(e.intervention, e.block) for e in events} == {
            (i.id, b.index) for i in interventions for b in blocks
        }
        assert all(
            len(e.outputs) == len(e.pairs) and e.attempt == 2 and e.split == "test" for e in events
        )

    def test_a_lease_ends_for_each_intervention_where_its_rule_says(
        self, pool: Any, opened: Opened
    ) -> None:
        """Of 100 pairs before, the first intervention has matched none, the second 80."""
        blocks = (self._block(opened, 0, 3), self._block(opened, 1, 3))
        first, second = at(0), at(3)
        pool.submit(Task(20, "measure", (first, second), blocks))
        plain = _outputs(answers(pool, 1))
        variable = min(opened.encoded[0].counterfactual)
        test = MatchTest(0.8, 0.05, 0.05, 10**6, futility=0.0)
        criterion = Criterion(test, last=(160, 0))
        rule = criterion.stop_rule(criterion)
        tests = tuple((LeasedTest(variable, *seen, rule),) for seen in ((100, 0), (100, 80)))
        lease = Lease(tests, unfiltered=True, step=6, rows=10**6, seconds=600.0)
        pool.submit(Task(21, "measure", (first, second), blocks, lease=lease))
        events = answers(pool, 1)
        ran = {(first.key, 0), (second.key, 0), (second.key, 1)}
        assert _outputs(events) == {key: plain[key] for key in ran}
        stopped = {
            (e.intervention, e.block) for e in events if isinstance(e, Measured) and e.stopped
        }
        assert stopped == {(first.key, 0)}

    def test_an_error_is_told_and_never_raised(self, pool: Any, opened: Opened) -> None:
        good, bad = at(0), at(99)
        pool.submit(Task(9, "measure", (good, bad), (self._block(opened, 0, 2),)))
        events = answers(pool, 1)
        failed = [e for e in events if isinstance(e, Failed)]
        assert failed
        assert all(e.message and "Traceback" in e.traceback for e in failed)
        assert all(e.intervention in (bad.id, None) for e in failed)
        assert (
            any(isinstance(e, Measured) and e.intervention == good.id for e in events)
            or failed[0].intervention is None
        )

    def test_outputs_do_not_depend_on_the_company(self, pool: Any, opened: Opened) -> None:
        block = self._block(opened, 0, 6)
        pool.submit(Task(1, "measure", (at(1), at(2), at(3)), (block,)))
        together = {e.intervention: e.outputs for e in answers(pool, 1) if isinstance(e, Measured)}
        for n, intervention in enumerate((at(1), at(2), at(3))):
            pool.submit(Task(2 + n, "measure", (intervention,), (block,)))
            (alone,) = answers(pool, 1)
            assert isinstance(alone, Measured)
            assert alone.outputs == together[intervention.id]

    def _block(self, opened: Opened, index: int, size: int) -> Block:
        return Block(
            "test",
            index,
            tuple(e.index for e in islice(opened.encoded, index * size, (index + 1) * size)),
        )


def answers(pool: Any, tasks: int, turns: int = 200) -> list[Event]:
    """Everything that comes until so many tasks are answered."""
    events: list[Event] = []
    for _ in range(turns):
        events += pool.wait()
        if len({e.task for e in events}) >= tasks:
            return events
    raise AssertionError(f"no answer in {turns} turns; got {events}")


def _outputs(events: list[Event]) -> dict[tuple[str, int], tuple[Ids, ...]]:
    return {(e.intervention, e.block): e.outputs for e in events if isinstance(e, Measured)}


def lost(events: list[Event]) -> list[Lost]:
    return [e for e in events if isinstance(e, Lost)]
