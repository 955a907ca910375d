"""Training: which seeds of which interventions are fit, in what company, for how many steps; a
brain without I/O.

A fit is done in stretches of steps. After each, its state is kept, so that what is lost is no more
than a stretch and a fit that was killed goes on to the same tensors. At a *rung* all seeds that
have come so far are compared (successive halving: Jamieson & Talwalkar, 2016) and the hopeless ones
go no further; what they have become is tested like every other, so that no verdict is guessed.

By a warm start a rotation begins within the next larger one of its unit, variable and seed: sizes
then race one after the other, from the largest downwards, each against its like. Where the larger
one has failed, the smaller one begins at random.

Invariants: who is trained in whose company, and who is dropped, follows from what closed rungs have
shown, never from the order of arrival or the loss of nodes (what fails, or takes workers with it,
goes on in smaller company); every seed ends in `Concluded` or in a failure; the first answer for a
stretch wins; strikes are counted from the events alone, so that a replay counts the same; an event
costs what its own task has of seeds, and only the close of a rung looks at all that race.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

from raysearch.core.events import Block, Failed, Fitted, Lost, Task
from raysearch.core.fit_keys import FitKeys
from raysearch.core.hypothesis import Intervention
from raysearch.core.records import Concluded, FitStatus, Record, Trained
from raysearch.core.rotations import is_closed, is_rotation, of_any_size
from raysearch.search.seed_run import SeedGroup, SeedRun, batch_groups

ATTEMPTS = 3
"""That a single seed gets for a stretch."""


class SuccessiveHalving:
    """Interventions in; tasks out; what came of each in `best`.

    `enough`: validation IIA of a seed from which it goes on from any rung.
    """

    def __init__(self, keys: FitKeys, enough: float, blocks: tuple[Block, ...]) -> None:
        self._keys, self._enough = keys, enough
        self._blocks = blocks
        self._fits: dict[str, SeedRun] = {}
        self._of: dict[str, list[SeedRun]] = {}
        self._ready: deque[SeedGroup] = deque()
        self._out: dict[int, SeedGroup] = {}
        self._racing: dict[str, SeedRun] = {}
        self._behind: set[str] = set()
        self._waiting: list[SeedRun] = []
        self._later: list[SeedRun] = []
        self._rung = 0
        self._sizes: dict[tuple[Intervention, int], list[SeedRun]] = {}
        self._going = 0
        self._ended: list[str] = []

    @property
    def going(self) -> int:
        """Seeds that have not ended."""
        return self._going

    @property
    def queued(self) -> int:
        return len(self._ready)

    @property
    def out(self) -> int:
        return len(self._out)

    def add(self, interventions: Sequence[Intervention]) -> None:
        """Those of one generation. What has no steps has no seeds either."""
        closed = [SeedRun(i, 0) for i in interventions if is_closed(i)]
        trained = [
            SeedRun(i, seed) for i in interventions if not is_closed(i) for seed in self._keys.seeds
        ]
        for fit in (*closed, *trained):
            assert fit.key not in self._fits, "an intervention is fit once"
            self._fits[fit.key] = fit
            self._of.setdefault(fit.intervention.id, []).append(fit)
            self._going += 1
        if self._keys.warm_start:
            self._link([fit for fit in trained if is_rotation(fit.intervention)])
        self._queue_closed(closed)
        self._waiting += trained
        self._start_race()

    def again(self, interventions: Sequence[str]) -> None:
        """Those of which nothing came, by id, begin anew: in races of their own, once nobody else
        waits, so that no company changes."""
        again = {fit.key: fit for name in interventions for fit in self._of[name]}
        for group in self._ready:
            group.fits = [f for f in group.fits if f.key not in again]
        for fit in self._fits.values():
            if (
                fit.larger is not None
                and fit.larger.key in again
                and fit.key not in again
                and fit not in self._waiting
            ):
                fit.larger = None  # it has begun at random
        for fit in again.values():
            assert fit.failure is not None, (fit.key, "has not failed")
            fit.begin_anew()
            self._going += 1
        self._queue_closed([f for f in again.values() if is_closed(f.intervention)])
        self._later += [f for f in again.values() if not is_closed(f.intervention)]
        self._start_race()

    def _queue_closed(self, fits: Sequence[SeedRun]) -> None:
        for group in batch_groups(fits, self._keys.together):
            self._ready.append(SeedGroup(group, (0, 0)))

    def _link(self, rotations: Sequence[SeedRun]) -> None:
        """Each to the next larger of its unit, variable and seed, of this generation or one before."""
        for fit in rotations:
            self._sizes.setdefault((of_any_size(fit.intervention), fit.seed), []).append(fit)
        for fit in rotations:
            alike = self._sizes[of_any_size(fit.intervention), fit.seed]
            above = [f for f in alike if f.size > fit.size]
            fit.larger = min(above, key=lambda f: f.size, default=None)

    def ask(self, task: int) -> Task | None:
        """The next task, under the id `task`."""
        while self._ready:
            group = self._ready.popleft()
            group.fits = [f for f in group.fits if f.failure is None]
            if all(group.steps[0] in f.seen for f in group.fits):  # told by a replay, or late
                self._go_on(group.fits, group.steps[1])
                continue
            self._out[task] = group
            # Those already told too: company is part of the numbers.
            seeds = tuple(f.seed_at(group.steps[0]) for f in group.fits)
            distinct = tuple(dict.fromkeys(f.intervention for f in group.fits))
            return Task(task, "fit", distinct, self._blocks, group.attempt, seeds, group.steps)
        return None

    def tell(self, event: Fitted) -> tuple[list[Record], bool]:
        """What follows from an answer, and whether it contradicts the first one."""
        fit = self._fits[event.key]
        event = replace(
            event, tensors={}
        )  # they are kept beside the journal; all that was fit does not fit into memory
        notes: list[Record] = []
        first = fit.seen.get(event.first)
        if first is None and not fit.ended:
            assert event.first == fit.step, (fit.key, "goes on from", fit.step, "not", event.first)
            fit.last = fit.seen[event.first] = event
            fit.strikes = 0
            notes.append(Trained(event, 0 if is_closed(fit.intervention) else self._rung))
            if event.stopped or event.last >= self._keys.steps or is_closed(fit.intervention):
                self._conclude(fit, "stopped" if event.stopped else "done", notes)
            elif fit.step >= self._next_rung():
                self._behind.discard(fit.key)
        self._settle(event.task)
        self._close_rung(notes)
        return notes, first is not None and first.fit != event.fit

    def lost(self, event: Lost) -> list[Record]:
        """A task whose worker went away goes out again; in halves where it took two with it. Not
        every loss counts."""
        notes: list[Record] = []
        if event.counts and len(event.group) == 1:
            self._strike(event.group[0], f"{event.message} ({event.cause})", notes)
        group = self._out.pop(event.task, None)
        if group is not None:
            group.losses += event.counts
            self._again(group, group.losses >= 2)
        return notes

    def failed(self, event: Failed) -> list[Record]:
        """Of a single seed: it goes out again by itself, three times in all. Of a whole task: it
        goes out in halves."""
        notes: list[Record] = []
        reason = f"{event.error_type}: {event.message}"
        if event.intervention is not None:
            self._strike(event.intervention, reason, notes)
        elif len(event.group) == 1:
            self._strike(event.group[0], reason, notes)
        group = self._out.get(event.task)
        if group is None:
            return notes
        if event.intervention is None:
            del self._out[event.task]
            self._again(group, True)
            return notes
        fit = self._fits[event.intervention]
        if fit not in group.fits:  # told before: it goes out by itself already
            return notes
        group.fits.remove(fit)
        self._settle(event.task)
        self._again(SeedGroup([fit], group.steps, group.attempt), True)
        return notes

    def best(self, intervention: str) -> Fitted | None:
        """What came of an intervention, by its id: the best of its seeds, by validation. None where
        all failed. All have ended."""
        done = [f for f in self._of[intervention] if f.status is not None]
        return min(done, key=lambda f: f.merit).last if done else None

    def seeds(self, intervention: str) -> list[Fitted]:
        """What came of each seed that did not fail."""
        return [
            f.last for f in self._of[intervention] if f.status is not None and f.last is not None
        ]

    def ended(self) -> list[str]:
        """The ids of the interventions all of whose seeds have ended since this was asked last, in
        that order."""
        ended, self._ended = self._ended, []
        return ended

    def failure(self, intervention: str) -> str:
        """Why nothing came of an intervention."""
        return next(f.failure for f in self._of[intervention] if f.failure is not None)

    def _strike(self, key: str, reason: str, notes: list[Record]) -> None:
        """Counts a failed attempt of a single seed, of whatever driver: after three in a row it has
        failed."""
        fit = self._fits.get(key)
        if fit is None or fit.ended:
            return
        fit.strikes += 1
        if fit.strikes >= ATTEMPTS:
            fit.failure = reason
            self._end(fit)
            self._close_rung(notes)

    def _again(self, group: SeedGroup, halve: bool) -> None:
        group.attempt += 1
        if len(group.fits) == 1 or not halve:
            self._ready.append(group)
            return
        middle = len(group.fits) // 2
        for half in (group.fits[:middle], group.fits[middle:]):
            self._ready.append(SeedGroup(half, group.steps, group.attempt, min(group.losses, 1)))

    def _settle(self, task: int) -> None:
        """A task all of whose seeds have answered is over; those that have more of this rung before
        them go on together."""
        group = self._out.get(task)
        if group is not None and all(group.steps[0] in f.seen for f in group.fits):
            del self._out[task]
            self._go_on(group.fits, group.steps[1])

    def _go_on(self, fits: Sequence[SeedRun], step: int) -> None:
        """Queues the stretch from `step` on, once, unless a rung is to be waited for."""
        left = [f for f in fits if not f.had_ended(step) and step not in f.queued]
        if left and step < self._next_rung():
            end = next(e for e in self._keys.ends if e > step)
            self._ready.appendleft(
                SeedGroup(left, (step, end))
            )  # who has begun is brought to the end, so that verdicts fall early
            for fit in left:
                fit.queued.add(step)

    def _next_rung(self) -> int:
        rungs = (*sorted(self._keys.rungs), self._keys.steps)
        return rungs[min(self._rung, len(rungs) - 1)]

    def _start_race(self) -> None:
        """Those that wait and may start do so together, once nobody is on the way: a race is closed
        before the next begins."""
        if self._racing or not (self._waiting or self._later):
            return
        waiting = self._waiting if any(f.may_start for f in self._waiting) else self._later
        self._racing, self._rung = {f.key: f for f in waiting if f.may_start}, 0
        waiting[:] = [f for f in waiting if not f.may_start]
        self._behind = set(self._racing)
        assert self._racing, "the largest of those that wait may start"
        for group in reversed(batch_groups(list(self._racing.values()), self._keys.together)):
            self._go_on(group, 0)

    def _close_rung(self, notes: list[Record]) -> None:
        """Once all that race have come to the rung: drops the hopeless, and lets the others go on."""
        if self._behind:
            return
        if self._racing:
            at = self._next_rung()
            for fit in self._hopeless(self._racing.values()):
                self._conclude(fit, "dropped", notes)
            self._rung += 1
            self._behind = {
                key for key, fit in self._racing.items() if fit.step < self._next_rung()
            }
            for group in reversed(batch_groups(list(self._racing.values()), self._keys.together)):
                self._go_on(group, at)
        self._start_race()

    def _hopeless(self, left: Iterable[SeedRun]) -> list[SeedRun]:
        """Of each variable's seeds (controls apart), those beyond the best share and below what is
        enough."""
        by_variable: dict[tuple[str | None, str | None], list[SeedRun]] = {}
        for fit in left:
            by_variable.setdefault(
                (fit.intervention.variable, fit.intervention.control), []
            ).append(fit)
        hopeless = []
        for fits in by_variable.values():
            kept = -int(-len(fits) * self._keys.keep // 1)
            ranked = sorted(fits, key=lambda f: (f.merit, f.key))
            hopeless += [f for f in ranked[kept:] if -f.merit[0] < self._enough]
        return hopeless

    def _conclude(self, fit: SeedRun, status: FitStatus, notes: list[Record]) -> None:
        assert fit.last is not None
        fit.status = status
        notes.append(
            Concluded(fit.last, 0 if is_closed(fit.intervention) else self._rung, status, fit.start)
        )
        self._end(fit)

    def _end(self, fit: SeedRun) -> None:
        """It has ended just now: what is counted of those that go on is without it."""
        self._going -= 1
        self._racing.pop(fit.key, None)
        self._behind.discard(fit.key)
        if all(f.ended for f in self._of[fit.intervention.id]):
            self._ended.append(fit.intervention.id)

    def validate(self) -> None:
        """Checks the invariants; for tests."""
        places = [f.key for g in (*self._ready, *self._out.values()) for f in g.fits]
        assert all(a < b for a, b in pairwise(self._keys.ends)), self._keys
        assert self._going == sum(not fit.ended for fit in self._fits.values())
        assert not any(fit.ended for fit in self._racing.values())
        assert self._behind == {
            key for key, fit in self._racing.items() if fit.step < self._next_rung()
        }
        for fit in self._fits.values():
            held = (
                fit.ended
                or fit in self._waiting
                or fit in self._later
                or fit.step >= self._next_rung()
            )
            assert fit.key in places or held, (fit.key, "is nowhere")
            assert fit.may_start or (fit in (*self._waiting, *self._later) and fit.last is None), (
                fit.key,
                "did not wait for the larger",
            )
