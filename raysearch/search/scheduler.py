"""Dispatch: which line goes out next, in what company; what becomes of tasks that are lost or fail.

Invariants: an open line stands in exactly one place: ready, or in one task that is out or waits to
go out again; a task is a run of blocks that all its lines have yet to see; only a single
intervention is ever quarantined.
"""

from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from raysearch.core.events import Block, Failed, Lost, Measured, Task, TaskKind
from raysearch.search.trial import Trial, TrialKey

QUARANTINE = 3
"""Attempts that a single intervention gets."""

Level = tuple[bool, int]
"""Where a ready line stands: (measure, not estimate; blocks counted). The lowest level goes out
first."""


@dataclass(slots=True)
class _Group:
    """Lines that travel together, and how often they took a worker with them."""

    lines: list[Trial]
    blocks: tuple[Block, ...]
    attempt: int = 0
    losses: int = 0


@dataclass(slots=True)
class _Out:
    group: _Group
    left: set[tuple[str, int]]


class Scheduler:
    """Lines in, tasks out. `rows` is the size of a task in pairs x interventions."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._ready: dict[Level, OrderedDict[TrialKey, Trial]] = {}
        self._levels: dict[TrialKey, Level] = {}
        self._again: deque[_Group] = deque()
        self._out: dict[int, _Out] = {}

    @property
    def queued(self) -> int:
        """Lines that are ready, and groups that wait to go out again."""
        return len(self._levels) + len(self._again)

    @property
    def out(self) -> int:
        """Tasks that are out."""
        return len(self._out)

    @property
    def idle(self) -> bool:
        """Whether no line stands in a group: nothing is out, nor waits to go out again."""
        return not self._out and not self._again

    def add(self, line: Trial) -> None:
        """Files an open line under the blocks it has counted; again, where it has moved on."""
        self.remove(line)
        level = line.split == "test", line.counted
        self._ready.setdefault(level, OrderedDict())[line.key] = line
        self._levels[line.key] = level

    def remove(self, line: Trial) -> None:
        """Takes a line out of those that are ready, if it is there."""
        level = self._levels.pop(line.key, None)
        if level is not None:
            del self._ready[level][line.key]
            if not self._ready[level]:
                del self._ready[level]

    def is_ready(self, line: Trial) -> bool:
        return line.key in self._levels

    def has_out(self, line: Trial) -> bool:
        """Whether a line stands in a task that is out, or waits to go out again."""
        return any(line is other for group in self._groups() for other in group.lines)

    def ask(self, task: int, idle: int) -> Task | None:
        """The next task, under the id `task`, when `idle` workers wait; None where nothing is
        ready."""
        group = self._next_again() or self._next_ready(idle)
        if group is None:
            return None
        interventions = tuple(line.intervention for line in group.lines)
        keys = {(i.key, b.index) for i in interventions for b in group.blocks}
        self._out[task] = _Out(group, keys)
        kind: TaskKind = "measure" if group.lines[0].split == "test" else "estimate"
        return Task(task, kind, interventions, group.blocks, group.attempt)

    def measured(self, event: Measured) -> list[Trial]:
        """Takes note of an item that is done; the lines that are free now, because it was their
        task's last."""
        return self._settle(event.task, {(event.intervention, event.block)})

    def lost(self, event: Lost) -> list[Trial]:
        """A task whose worker went away goes out again; in halves where it took two with it. Not
        every loss counts."""
        out = self._out.pop(event.task, None)
        if out is None:
            return []
        group = out.group
        group.attempt += 1
        group.losses += event.counts
        if not event.counts or len(group.lines) == 1 or group.losses < 2:
            self._again.append(group)
        else:
            self._again.extend(_halves(group))
        return []

    def failed(self, event: Failed) -> list[Trial]:
        """A task that raised whole goes out again in halves; of one intervention, only its own
        items are settled."""
        out = self._out.get(event.task)
        if out is None:
            return []
        if event.intervention is not None:
            return self._settle(event.task, {k for k in out.left if k[0] == event.intervention})
        del self._out[event.task]
        out.group.attempt += 1
        self._again.extend(_halves(out.group) if len(out.group.lines) > 1 else [out.group])
        return []

    def places(self) -> Iterable[Trial]:
        """Every place in which a line stands; for the invariants."""
        for lines in self._ready.values():
            yield from lines.values()
        for group in self._groups():
            yield from group.lines

    def _groups(self) -> Iterable[_Group]:
        return (*self._again, *(out.group for out in self._out.values()))

    def _settle(self, task: int, keys: set[tuple[str, int]]) -> list[Trial]:
        out = self._out.get(task)
        if out is None:
            return []
        out.left -= keys
        if out.left:
            return []
        del self._out[task]
        return out.group.lines

    def _next_again(self) -> _Group | None:
        while self._again:
            group = self._again.popleft()
            kept = [line for line in group.lines if not line.closed]
            useful = [
                line for line in kept if not all(line.has_seen(b.index) for b in group.blocks)
            ]
            for line in kept:
                if line not in useful:
                    self.add(line)
            if useful:
                return _Group(
                    useful, _yet_to_see(useful, group.blocks), group.attempt, group.losses
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
        lines = [line for line, _ in zip(level.values(), range(min(room, share)), strict=False)]
        careful = any(line.careful for line in lines)
        blocks = (
            blocks[:1] if careful else _ahead(blocks, [line.unseen() for line in lines], self._rows)
        )
        for line in lines:
            self.remove(line)
        return _Group(lines, blocks)


def _ahead(
    blocks: tuple[Block, ...], others: Sequence[tuple[Block, ...]], rows: int
) -> tuple[Block, ...]:
    """The first block and as many after it as all lines have yet to see and as fill a task."""
    most = min(len(other) for other in others)
    taken, used = 1, len(blocks[0].pairs) * len(others)
    while taken < most and used + len(blocks[taken].pairs) * len(others) <= rows:
        used += len(blocks[taken].pairs) * len(others)
        taken += 1
    return blocks[:taken]


def _yet_to_see(lines: Sequence[Trial], blocks: tuple[Block, ...]) -> tuple[Block, ...]:
    """Those of `blocks` that some line has yet to see; the first of them where one of the lines is
    careful."""
    left = tuple(b for b in blocks if not all(line.has_seen(b.index) for line in lines))
    return left[:1] if any(line.careful for line in lines) else left


def _halves(group: _Group) -> list[_Group]:
    """Two groups of half the lines. A half that loses one more worker is halved at once."""
    middle = len(group.lines) // 2
    return [
        _Group(lines, group.blocks, group.attempt, min(group.losses, 1))
        for lines in (group.lines[:middle], group.lines[middle:])
    ]
