"""A leased task at a replica: which blocks it runs, and where each intervention stops.

The model is behind a function. Invariants: an intervention runs a beginning of the task's
blocks, at least one unless it fails there; after each step it stops if each of its hypotheses has
ended, by the lease; the outputs of each block are those of the task without a lease.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from raysearch.core.answers import AnswerMatcher
from raysearch.core.blocks_ahead import blocks_ahead
from raysearch.core.events import Block, Encoded, Event, Failed, Measured, Task
from raysearch.core.hypothesis import Intervention
from raysearch.core.lease import Lease, LeasedTest

RunTask = Callable[[Task], list[Event]]
"""Returns the events of a task without a lease."""


@dataclass(slots=True)
class _Count:
    """A hypothesis that has not ended, with the pairs that count so far."""

    test: LeasedTest
    n: int
    matches: int


class LeasedRun:
    """Runs a leased task step by step, and leaves out each intervention whose hypotheses are
    decided.

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

    def do(self, task: Task, run: RunTask) -> list[Event]:
        """Returns the events of a leased task, whose steps are run by `run`."""
        lease = task.lease
        assert lease is not None, task.id
        named = zip(task.interventions, lease.tests, strict=True)
        going = {i: [_Count(t, t.n, t.matches) for t in tests] for i, tests in named}
        last: dict[str, int] = {}
        events: list[Event] = []
        at = rows = 0
        until = self._clock() + lease.seconds
        while going and at < len(task.blocks):
            if rows and (rows >= lease.rows or self._clock() >= until):
                break
            blocks = blocks_ahead(task.blocks[at:], len(going), lease.step)
            step = replace(task, interventions=tuple(going), blocks=blocks, lease=None)
            found = run(step)
            self._advance(going, blocks, found, lease, last)
            events += found
            rows += step.rows
            at += len(blocks)
        return _marked(events, {key: b for key, b in last.items() if b < task.blocks[-1].index})

    def _advance(
        self,
        going: dict[Intervention, list[_Count]],
        blocks: Sequence[Block],
        found: Sequence[Event],
        lease: Lease,
        last: dict[str, int],
    ) -> None:
        """Counts one step, takes those that have ended or failed out of `going`, and keeps in
        `last` the last block of each that has not failed."""
        failed = {e.intervention for e in found if isinstance(e, Failed)}
        measured = {(e.intervention, e.block): e for e in found if isinstance(e, Measured)}
        for intervention in tuple(going):
            key = intervention.key
            if key in failed:
                last.pop(key, None)
                del going[intervention]
                continue
            own = [measured[key, block.index] for block in blocks]
            last[key] = own[-1].block
            if self._have_ended(intervention, going[intervention], own, lease):
                del going[intervention]

    def _have_ended(
        self,
        intervention: Intervention,
        counts: list[_Count],
        observations: Sequence[Measured],
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


def _marked(events: Sequence[Event], stops: Mapping[str, int]) -> list[Event]:
    """Returns events, with a mark on the blocks after which interventions are not run further."""
    return [
        replace(e, stopped=True)
        if isinstance(e, Measured) and stops.get(e.intervention) == e.block
        else e
        for e in events
    ]
