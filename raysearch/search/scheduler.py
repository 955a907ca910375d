"""The scheduler: which trials go out next and in which task, and how lost and failed tasks are
retried.

Invariants: an open trial stands in exactly one place: ready, or in one task that is running or
waits to be retried; a task is a run of blocks that none of its trials has seen; only a single
intervention is ever quarantined.
"""

from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from raysearch.core.blocks_ahead import blocks_ahead
from raysearch.core.events import Block, Failed, Lost, Measured, Task, TaskKind
from raysearch.search.leases import Leases
from raysearch.search.trial import Trial, TrialKey

QUARANTINE = 3
"""Failed attempts after which a single intervention is quarantined."""

Level = tuple[bool, int]
"""Priority of a ready trial: (test before holdout, blocks counted); the lowest level goes out
first.
"""


@dataclass(slots=True)
class _Group:
    """Trials that run in one task, and how many workers were lost with it; `leased` until it was
    lost or failed."""

    trials: list[Trial]
    blocks: tuple[Block, ...]
    attempt: int = 0
    losses: int = 0
    leased: bool = False


@dataclass(slots=True)
class _TaskOut:
    group: _Group
    pending: set[tuple[str, int]]


class Scheduler:
    """Takes trials and hands out tasks.

    Args:
        rows: size of a task without a lease, in pairs x interventions.
    """

    def __init__(self, rows: int, leases: Leases) -> None:
        self._rows = rows
        self._leases = leases
        self._ready: dict[Level, OrderedDict[TrialKey, Trial]] = {}
        self._levels: dict[TrialKey, Level] = {}
        self._requeue: deque[_Group] = deque()
        self._out: dict[int, _TaskOut] = {}

    @property
    def queued(self) -> int:
        """Number of ready trials and of groups that wait to be retried."""
        return len(self._levels) + len(self._requeue)

    @property
    def out(self) -> int:
        """Number of tasks that are running."""
        return len(self._out)

    @property
    def idle(self) -> bool:
        """Says whether no task is running or waits to be retried."""
        return not self._out and not self._requeue

    def add(self, trial: Trial) -> None:
        """Files an open trial under the next block that it counts; moves it if that has changed."""
        self.remove(trial)
        level = trial.split == "test", trial.next_block
        self._ready.setdefault(level, OrderedDict())[trial.key] = trial
        self._levels[trial.key] = level

    def remove(self, trial: Trial) -> None:
        """Takes a trial out of the ready ones, if it is there."""
        level = self._levels.pop(trial.key, None)
        if level is not None:
            del self._ready[level][trial.key]
            if not self._ready[level]:
                del self._ready[level]

    def is_ready(self, trial: Trial) -> bool:
        return trial.key in self._levels

    def has_out(self, trial: Trial) -> bool:
        """Says whether a trial is in a task that is running or waits to be retried."""
        return any(trial is other for group in self._groups() for other in group.trials)

    def ask(self, task: int, idle: int) -> Task | None:
        """Returns the next task, with the id `task`, for `idle` waiting workers; None if nothing is
        ready.
        """
        group = self._next_requeued() or self._next_ready(idle)
        if group is None:
            return None
        interventions = tuple(trial.intervention for trial in group.trials)
        keys = {(i.key, b.index) for i in interventions for b in group.blocks}
        self._out[task] = _TaskOut(group, keys)
        kind: TaskKind = "measure" if group.trials[0].split == "test" else "estimate"
        lease = self._leases.of(group.trials) if group.leased else None
        return Task(task, kind, interventions, group.blocks, group.attempt, lease=lease)

    def on_measured(self, event: Measured) -> list[Trial]:
        """Marks an item as done, and with the last one of a lease those that it did not run;
        returns the trials of its task if nothing is left of it.
        """
        out = self._out.get(event.task)
        rest = out.group.blocks if out is not None and event.stopped else ()
        skipped = {(event.intervention, b.index) for b in rest if b.index > event.block}
        return self._settle(event.task, {(event.intervention, event.block)} | skipped)

    def on_lost(self, event: Lost) -> list[Trial]:
        """Queues a lost task again; in halves if it was lost with two workers. Not every loss
        counts.
        """
        out = self._out.pop(event.task, None)
        if out is None:
            return []
        group = out.group
        group.attempt += 1
        group.losses += event.counts_as_attempt
        if not event.counts_as_attempt or len(group.trials) == 1 or group.losses < 2:
            self._requeue.append(group)
        else:
            self._requeue.extend(_halves(group))
        return []

    def on_failed(self, event: Failed) -> list[Trial]:
        """Queues a failed task again in halves; a failure of one intervention only settles that
        one's items.
        """
        out = self._out.get(event.task)
        if out is None:
            return []
        if event.intervention is not None:
            return self._settle(event.task, {k for k in out.pending if k[0] == event.intervention})
        del self._out[event.task]
        out.group.attempt += 1
        self._requeue.extend(_halves(out.group) if len(out.group.trials) > 1 else [out.group])
        return []

    def places(self) -> Iterable[Trial]:
        """Yields every place in which a trial stands; for the invariants."""
        for trials in self._ready.values():
            yield from trials.values()
        for group in self._groups():
            yield from group.trials

    def _groups(self) -> Iterable[_Group]:
        return (*self._requeue, *(out.group for out in self._out.values()))

    def _settle(self, task: int, keys: set[tuple[str, int]]) -> list[Trial]:
        out = self._out.get(task)
        if out is None:
            return []
        out.pending -= keys
        if out.pending:
            return []
        del self._out[task]
        return out.group.trials

    def _next_requeued(self) -> _Group | None:
        while self._requeue:
            group = self._requeue.popleft()
            open_trials = [trial for trial in group.trials if not trial.closed]
            unfinished = [
                trial
                for trial in open_trials
                if not all(trial.has_seen(b.index) for b in group.blocks)
            ]
            for trial in open_trials:
                if trial not in unfinished:
                    self.add(trial)
            if unfinished:
                blocks = _yet_to_see(unfinished, group.blocks)
                blocks = blocks_ahead(blocks, len(unfinished), self._rows)
                return _Group(unfinished, blocks, group.attempt, group.losses)
        return None

    def _next_ready(self, idle: int) -> _Group | None:
        if not self._ready:
            return None
        level = self._ready[min(self._ready)]
        first = next(iter(level.values()))
        blocks = first.unseen()
        room = max(1, self._rows // len(blocks[0].pairs))
        share = -(-len(level) // max(idle, 1))
        trials = [trial for trial, _ in zip(level.values(), range(min(room, share)), strict=False)]
        one_block = any(trial.one_block for trial in trials)
        leased = all(map(self._leases.takes, trials))
        most = 1 if one_block else min(len(trial.unseen()) for trial in trials)
        rows = self._leases.most if leased else self._rows
        blocks = blocks_ahead(blocks[:most], len(trials), rows)
        for trial in trials:
            self.remove(trial)
        return _Group(trials, blocks, leased=leased)


def _yet_to_see(trials: Sequence[Trial], blocks: tuple[Block, ...]) -> tuple[Block, ...]:
    """Returns the blocks that some trial has yet to see; only the first if a trial goes block by
    block.
    """
    pending = tuple(b for b in blocks if not all(trial.has_seen(b.index) for trial in trials))
    return pending[:1] if any(trial.one_block for trial in trials) else pending


def _halves(group: _Group) -> list[_Group]:
    """Splits a group in two. A half that loses one more worker is split at once."""
    middle = len(group.trials) // 2
    return [
        _Group(trials, group.blocks, group.attempt, min(group.losses, 1))
        for trials in (group.trials[:middle], group.trials[middle:])
    ]
