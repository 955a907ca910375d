"""A leased task at a replica: which blocks it runs, and where each intervention stops.

The model is behind a function. Invariants: an intervention runs a beginning of the task's
blocks, at least one; after each step it stops if each of its hypotheses has ended, by the lease;
the outputs of each block are those of the task without a lease.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from raysearch.core.answers import AnswerMatcher
from raysearch.core.events import Block, Encoded, Event, Failed, Measured, Task
from raysearch.core.hypothesis import Intervention
from raysearch.core.lease import Lease, LeasedTest


def blocks_ahead(blocks: tuple[Block, ...], interventions: int, rows: int) -> tuple[Block, ...]:
    """Returns the first block and as many of the next as fit into so many rows."""
    count, used = 1, len(blocks[0].pairs) * interventions
    while count < len(blocks) and used + len(blocks[count].pairs) * interventions <= rows:
        used += len(blocks[count].pairs) * interventions
        count += 1
    return blocks[:count]


@dataclass(slots=True)
class _Count:
    """A hypothesis that has not ended, with the pairs that count so far."""

    test: LeasedTest
    n: int
    matches: int


class LeasedRun:
    """Runs leased tasks.

    Args:
        pairs: encoded pairs by index.
        matchers: what outputs stand for, by continuation.
        clock: tells seconds.
    """

    def __init__(
        self,
        pairs: Mapping[int, Encoded],
        matchers: Mapping[int, AnswerMatcher],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pairs = pairs
        self._matchers = matchers
        self._clock = clock

    def do(self, task: Task, run: Callable[[Task], list[Event]]) -> list[Event]:
        """Returns the events of a leased task; `run` returns those of one without a lease."""
        lease = task.lease
        assert lease is not None, task.id
        named = zip(task.interventions, lease.tests, strict=True)
        going = {i: [_Count(t, t.n, t.matches) for t in tests] for i, tests in named}
        last: dict[str, Measured] = {}
        events: list[Event] = []
        at = rows = 0
        until = self._clock() + lease.seconds
        while (
            going
            and at < len(task.blocks)
            and (not rows or (rows < lease.rows and self._clock() < until))
        ):
            blocks = blocks_ahead(task.blocks[at:], len(going), lease.step)
            step = replace(task, interventions=tuple(going), blocks=blocks, lease=None)
            found = run(step)
            rows += step.rows
            failed = {e.intervention for e in found if isinstance(e, Failed)}
            measured = {(e.intervention, e.block): e for e in found if isinstance(e, Measured)}
            for intervention in tuple(going):
                if intervention.key in failed:
                    del going[intervention]
                    continue
                own = [measured[intervention.key, block.index] for block in blocks]
                last[intervention.key] = own[-1]
                if self._have_ended(intervention, going[intervention], own, lease):
                    del going[intervention]
            events += found
            at += len(blocks)
        end = task.blocks[-1].index
        return [
            replace(e, stopped=True)
            if isinstance(e, Measured) and e is last.get(e.intervention) and e.block < end
            else e
            for e in events
        ]

    def _have_ended(
        self,
        intervention: Intervention,
        counts: list[_Count],
        observations: list[Measured],
        lease: Lease,
    ) -> bool:
        """Counts observations and forgets the hypotheses that have ended; returns whether all have,
        which is never so of an intervention without any."""
        if not counts:
            return False
        for observation in observations:
            for count in tuple(counts):
                self._count(count, intervention, observation, lease)
                if count.test.rule.ends(count.n, count.matches):
                    counts.remove(count)
        return not counts

    def _count(
        self, count: _Count, intervention: Intervention, observation: Measured, lease: Lease
    ) -> None:
        """Counts one block for a hypothesis."""
        for index, output in zip(observation.pairs, observation.outputs, strict=True):
            pair = self._pairs[index]
            wanted, base = pair.counterfactual[count.test.variable], pair.answers["base"]
            if wanted != base or lease.unfiltered:
                answer = self._matchers[pair.added].read(output)
                count.n += 1
                count.matches += answer != base if intervention.is_ablation else answer == wanted
