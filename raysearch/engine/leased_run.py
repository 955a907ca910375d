"""A leased task at a replica: which blocks it runs, and where each intervention stops.

The model is behind a function. Invariants: an intervention runs a beginning of the task's
blocks, at least one unless it fails there; after each step it stops if each of its hypotheses has
ended, by the lease; the outputs of each block are those of the task without a lease.
"""

import operator
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import compress

from raysearch.core.answers import AnswerMatcher
from raysearch.core.blocks_ahead import blocks_ahead
from raysearch.core.events import Block, Encoded, Event, Failed, Ids, Measured, Task
from raysearch.core.hypothesis import Intervention
from raysearch.core.lease import Lease, LeasedTest

RunTask = Callable[[Task], list[Event]]
"""Returns the events of a task without a lease."""
BLOCKS = 256
"""For how many blocks and variables it is remembered what their answers are compared with."""


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
        # Once for all interventions of a step: a block stays the same for them.
        self._compared = lru_cache(maxsize=BLOCKS)(partial(_compared, pairs))

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
            answers = self._answers(observation)
            for count in tuple(counts):
                of = self._compared(observation.pairs, count.test.variable, lease.unfiltered)
                count.n += len(of.wanted)
                count.matches += of.matches(answers, intervention.is_ablation)
                if count.test.rule.ends(count.n, count.matches):
                    counts.remove(count)
        return not counts

    def _answers(self, observation: Measured) -> Sequence[Ids]:
        """Returns the answers that outputs stand for."""
        if not any(matcher.lengths for matcher in self._matchers.values()):
            return observation.outputs
        each = zip(observation.pairs, observation.outputs, strict=True)
        return [self._matchers[self._pairs[index].added].read(output) for index, output in each]


@dataclass(frozen=True, slots=True)
class _Compared:
    """The right answers to a block of pairs, for one variable. `counts`: whether each pair counts;
    `wanted`, `base`: the counterfactual and the base's own answer of those that do."""

    counts: tuple[bool, ...]
    wanted: tuple[Ids, ...]
    base: tuple[Ids, ...]

    def matches(self, answers: Sequence[Ids], is_ablation: bool) -> int:
        """Returns how many of the pairs that count have the counterfactual answer, or under an
        ablation another one than the base. It runs no Python of ours for a pair: a step has many
        interventions, and each has many pairs."""
        assert len(answers) == len(self.counts), "each pair of a block has an output"
        counted = compress(answers, self.counts)
        if is_ablation:
            return sum(map(operator.ne, counted, self.base))
        return sum(map(operator.eq, counted, self.wanted))


def _compared(
    pairs: Mapping[int, Encoded], block: tuple[int, ...], variable: str, unfiltered: bool
) -> _Compared:
    """Returns what the answers to the pairs of these indices are compared with."""
    of_block = [pairs[index] for index in block]
    wanted = [pair.counterfactual[variable] for pair in of_block]
    base = [pair.answers["base"] for pair in of_block]
    counts = tuple(unfiltered or changes for changes in map(operator.ne, wanted, base))
    return _Compared(counts, tuple(compress(wanted, counts)), tuple(compress(base, counts)))


def _marked(events: Sequence[Event], stops: Mapping[str, int]) -> list[Event]:
    """Returns events, with a mark on the blocks after which interventions are not run further."""
    return [
        replace(e, stopped=True)
        if isinstance(e, Measured) and stops.get(e.intervention) == e.block
        else e
        for e in events
    ]
