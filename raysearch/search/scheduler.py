"""The scheduler: which trials go out next and in which task, and how lost and failed tasks are
retried.

Invariants: an open trial stands in exactly one place: ready, or in one task that is running or
waits to be retried; a task is a run of blocks that none of its trials has seen; only a single
intervention is ever quarantined.
"""

from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from raysearch.core.events import Block, Failed, Lost, Measured, Task, TaskKind
from raysearch.search.trial import Trial, TrialKey

QUARANTINE = 3
"""Failed attempts after which a single intervention is quarantined."""

Level = tuple[bool, int]
"""Priority of a ready trial: (test before holdout, blocks counted); the lowest level goes out
first.
"""


@dataclass(slots=True)
class _Group:
    """Trials that run in one task, and how many workers were lost with it."""

    trials: list[Trial]
    blocks: tuple[Block, ...]
    attempt: int = 0
    losses: int = 0


@dataclass(slots=True)
class _TaskOut:
    group: _Group
    pending: set[tuple[str, int]]


class Scheduler:
    """Takes trials and hands out tasks.

    Args:
        rows: size of a task in pairs x interventions.
    """

    def __init__(self, rows: int) -> None:
        self._rows = rows
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
        return Task(task, kind, interventions, group.blocks, group.attempt)

    def on_measured(self, event: Measured) -> list[Trial]:
        """Marks an item as done; returns the trials of its task if it was the last one."""
        return self._settle(event.task, {(event.intervention, event.block)})

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
                return _Group(
                    unfinished, _yet_to_see(unfinished, group.blocks), group.attempt, group.losses
                )
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
        blocks = (
            blocks[:1]
            if one_block
            else _ahead(blocks, [trial.unseen() for trial in trials], self._rows)
        )
        for trial in trials:
            self.remove(trial)
        return _Group(trials, blocks)


def _ahead(
    blocks: tuple[Block, ...], others: Sequence[tuple[Block, ...]], rows: int
) -> tuple[Block, ...]:
    """Returns the first block and as many of the next as no trial has seen and as fit into a
    task.
    """
    most = min(len(other) for other in others)
    count, used = 1, len(blocks[0].pairs) * len(others)
    while count < most and used + len(blocks[count].pairs) * len(others) <= rows:
        used += len(blocks[count].pairs) * len(others)
        count += 1
    return blocks[:count]


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
