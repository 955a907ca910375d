"""Successive halving: which seeds of which interventions are trained, in which batches, for how
many steps.

It has no I/O. A fit is trained in stretches of steps. Its state is stored after each, so that a
loss costs at most one stretch and an interrupted fit continues to the same tensors. At a *rung* all
seeds that have come so far are compared (Jamieson & Talwalkar, 2016), and hopeless ones are
dropped; what a dropped seed has learned is still tested, so that no verdict is guessed.

With a warm start, a rotation starts within the next larger one of its unit, variable and seed:
sizes are trained one after the other, largest first, and compete within their size only. If the
larger one has failed, the smaller one starts at random.

Invariants: batches and drops follow from the closed rungs, never from the order of arrival or the
loss of nodes (runs that fail, or are lost with their workers, continue in smaller batches); every
seed ends in `Concluded` or in a failure; the first result of a stretch wins; failed attempts are
counted from the events alone, so that a replay counts the same; the cost of an event depends on the
number of seeds in its task, and only closing a rung looks at all runs in the race.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

from raysearch.core.events import Block, Failed, Fitted, Lost, Task
from raysearch.core.fit_keys import FitKeys
from raysearch.core.fitted_interventions import is_closed_form, is_rotation, without_size
from raysearch.core.hypothesis import Intervention
from raysearch.core.records import Concluded, FitStatus, Record, Trained, Training
from raysearch.search.seed_run import SeedGroup, SeedRun, batch_groups

ATTEMPTS = 3
"""Failed attempts at a stretch after which a single seed has failed."""


class SuccessiveHalving:
    """Takes interventions, hands out fit tasks, and returns the best seed of each in `best`.

    A seed is hopeless at a rung if it is not among the best share `keys.keep` of its variable's
    seeds, by validation IIA, and its IIA is below `enough`.
    """

    def __init__(self, keys: FitKeys, enough: float, blocks: tuple[Block, ...]) -> None:
        self._keys, self._enough = keys, enough
        self._blocks = blocks
        self._fits: dict[str, SeedRun] = {}
        self._seeds_of: dict[str, list[SeedRun]] = {}
        self._ready: deque[SeedGroup] = deque()
        self._out: dict[int, SeedGroup] = {}
        self._racing: dict[str, SeedRun] = {}
        self._behind: set[str] = set()
        self._waiting: list[SeedRun] = []
        self._later: list[SeedRun] = []
        self._rung = 0
        self._sizes: dict[tuple[Intervention, int], list[SeedRun]] = {}
        self._running = 0
        self._steps_done = self._steps_left = 0
        self._ended: list[str] = []

    @property
    def running(self) -> int:
        """Number of seeds that have not ended."""
        return self._running

    @property
    def training(self) -> Training | None:
        """The seeds that train now, or next if none does; None without any."""
        groups = list(self._out.values()) or [g for g in self._ready if g.fits][:1]
        fits = [f for g in groups for f in g.fits if not is_closed_form(f.intervention)]
        if not fits or not self._steps_left:
            return None
        losses = [f.last.losses[-1] for f in fits if f.last is not None and f.last.losses]
        return Training(
            min(f.step for f in fits),
            self._keys.steps,
            sum(losses) / len(losses) if losses else None,
            tuple(dict.fromkeys(_trained_for(f.intervention) for f in fits)),
            self._steps_done,
            self._steps_left,
        )

    @property
    def queued(self) -> int:
        return len(self._ready)

    @property
    def out(self) -> int:
        return len(self._out)

    def add(self, interventions: Sequence[Intervention]) -> None:
        """Adds the interventions of one generation; those with a closed form get a single run
        without steps.
        """
        closed = [SeedRun(i, 0) for i in interventions if is_closed_form(i)]
        trained = [
            SeedRun(i, seed)
            for i in interventions
            if not is_closed_form(i)
            for seed in self._keys.seeds
        ]
        for fit in (*closed, *trained):
            assert fit.key not in self._fits, "an intervention is fit once"
            self._fits[fit.key] = fit
            self._seeds_of.setdefault(fit.intervention.id, []).append(fit)
            self._running += 1
        self._steps_left += self._keys.steps * len(trained)
        if self._keys.warm_start:
            self._link([fit for fit in trained if is_rotation(fit.intervention)])
        self._queue_closed(closed)
        self._waiting += trained
        self._start_race()

    def retry(self, interventions: Sequence[str]) -> None:
        """Restarts failed interventions, by id.

        They race among themselves after all others, so that existing batches keep their members.
        """
        restarted = {fit.key: fit for name in interventions for fit in self._seeds_of[name]}
        for group in self._ready:
            group.fits = [f for f in group.fits if f.key not in restarted]
        for fit in self._fits.values():
            if (
                fit.larger is not None
                and fit.larger.key in restarted
                and fit.key not in restarted
                and fit not in self._waiting
            ):
                fit.larger = None  # it has started at random
        for fit in restarted.values():
            assert fit.failure is not None, (fit.key, "has not failed")
            fit.reset()
            self._running += 1
            self._steps_left += self._left_of(fit)
        self._queue_closed([f for f in restarted.values() if is_closed_form(f.intervention)])
        self._later += [f for f in restarted.values() if not is_closed_form(f.intervention)]
        self._start_race()

    def _queue_closed(self, fits: Sequence[SeedRun]) -> None:
        for group in batch_groups(fits, self._keys.together):
            self._ready.append(SeedGroup(group, (0, 0)))

    def _link(self, rotations: Sequence[SeedRun]) -> None:
        """Links each rotation to the next larger one of its unit, variable and seed, of any
        generation so far.
        """
        for fit in rotations:
            self._sizes.setdefault((without_size(fit.intervention), fit.seed), []).append(fit)
        for fit in rotations:
            alike = self._sizes[without_size(fit.intervention), fit.seed]
            above = [f for f in alike if f.size > fit.size]
            fit.larger = min(above, key=lambda f: f.size, default=None)

    def ask(self, task: int) -> Task | None:
        """Returns the next task, with the id `task`, or None if nothing can be trained now."""
        while self._ready:
            group = self._ready.popleft()
            group.fits = [f for f in group.fits if f.failure is None]
            if all(group.steps[0] in f.seen for f in group.fits):  # reported in a replay, or late
                self._queue_from(group.fits, group.steps[1])
                continue
            self._out[task] = group
            # Seeds that have reported already stay in: the batch is part of the numbers.
            seeds = tuple(f.seed_at(group.steps[0]) for f in group.fits)
            distinct = tuple(dict.fromkeys(f.intervention for f in group.fits))
            return Task(task, "fit", distinct, self._blocks, group.attempt, seeds, group.steps)
        return None

    def tell(self, event: Fitted) -> tuple[list[Record], bool]:
        """Returns the records that follow from a result, and whether it contradicts the first
        one.
        """
        fit = self._fits[event.key]
        event = replace(
            event, tensors={}
        )  # they are stored beside the journal; all of them do not fit into memory
        records: list[Record] = []
        first = fit.seen.get(event.first)
        if first is None and not fit.ended:
            assert event.first == fit.step, (fit.key, "goes on from", fit.step, "not", event.first)
            fit.last = fit.seen[event.first] = event
            self._steps_done += event.last - event.first
            self._steps_left -= event.last - event.first
            fit.failed_attempts = 0
            records.append(Trained(event, 0 if is_closed_form(fit.intervention) else self._rung))
            if event.stopped or event.last >= self._keys.steps or is_closed_form(fit.intervention):
                self._conclude(fit, "stopped" if event.stopped else "done", records)
            elif fit.step >= self._next_rung():
                self._behind.discard(fit.key)
        self._settle(event.task)
        self._close_rung(records)
        return records, first is not None and first.fit != event.fit

    def on_lost(self, event: Lost) -> list[Record]:
        """Queues a lost task again; in halves if it was lost with two workers. Not every loss
        counts.
        """
        records: list[Record] = []
        if event.counts_as_attempt and len(event.group) == 1:
            self._count_failure(event.group[0], f"{event.message} ({event.cause})", records)
        group = self._out.pop(event.task, None)
        if group is not None:
            group.losses += event.counts_as_attempt
            self._requeue(group, group.losses >= 2)
        return records

    def on_failed(self, event: Failed) -> list[Record]:
        """Queues a failed seed by itself, three times in all; a task that failed as a whole, in
        halves.
        """
        records: list[Record] = []
        reason = f"{event.error_type}: {event.message}"
        if event.intervention is not None:
            self._count_failure(event.intervention, reason, records)
        elif len(event.group) == 1:
            self._count_failure(event.group[0], reason, records)
        group = self._out.get(event.task)
        if group is None:
            return records
        if event.intervention is None:
            del self._out[event.task]
            self._requeue(group, True)
            return records
        fit = self._fits[event.intervention]
        if fit not in group.fits:  # reported before: it is queued by itself already
            return records
        group.fits.remove(fit)
        self._settle(event.task)
        self._requeue(SeedGroup([fit], group.steps, group.attempt), True)
        return records

    def best(self, intervention: str) -> Fitted | None:
        """Returns the last event of the best seed of an intervention, by validation; None if all
        failed.

        All seeds must have ended.
        """
        done = [f for f in self._seeds_of[intervention] if f.status is not None]
        return min(done, key=lambda f: f.rank).last if done else None

    def seeds(self, intervention: str) -> list[Fitted]:
        """Returns the last event of each seed that did not fail."""
        return [
            f.last
            for f in self._seeds_of[intervention]
            if f.status is not None and f.last is not None
        ]

    def ended(self) -> list[str]:
        """Returns the ids of the interventions whose seeds have all ended since the last call, in
        that order.
        """
        ended, self._ended = self._ended, []
        return ended

    def failure(self, intervention: str) -> str:
        """Returns why no seed of an intervention succeeded."""
        return next(f.failure for f in self._seeds_of[intervention] if f.failure is not None)

    def _count_failure(self, key: str, reason: str, records: list[Record]) -> None:
        """Counts a failed attempt of a single seed, in this process or an earlier one; it fails
        after three in a row.
        """
        fit = self._fits.get(key)
        if fit is None or fit.ended:
            return
        fit.failed_attempts += 1
        if fit.failed_attempts >= ATTEMPTS:
            fit.failure = reason
            self._end(fit)
            self._close_rung(records)

    def _requeue(self, group: SeedGroup, halve: bool) -> None:
        group.attempt += 1
        if len(group.fits) == 1 or not halve:
            self._ready.append(group)
            return
        middle = len(group.fits) // 2
        for half in (group.fits[:middle], group.fits[middle:]):
            self._ready.append(SeedGroup(half, group.steps, group.attempt, min(group.losses, 1)))

    def _settle(self, task: int) -> None:
        """Ends a task whose seeds have all reported, and queues the next stretch of those that need
        one.
        """
        group = self._out.get(task)
        if group is not None and all(group.steps[0] in f.seen for f in group.fits):
            del self._out[task]
            self._queue_from(group.fits, group.steps[1])

    def _queue_from(self, fits: Sequence[SeedRun], step: int) -> None:
        """Queues the stretch that starts at `step`, once, unless the runs must wait for a rung."""
        left = [f for f in fits if not f.had_ended(step) and step not in f.queued]
        if left and step < self._next_rung():
            end = next(e for e in self._keys.ends if e > step)
            self._ready.appendleft(
                SeedGroup(left, (step, end))
            )  # finish what has started, so that verdicts come early
            for fit in left:
                fit.queued.add(step)

    def _next_rung(self) -> int:
        rungs = (*sorted(self._keys.rungs), self._keys.steps)
        return rungs[min(self._rung, len(rungs) - 1)]

    def _start_race(self) -> None:
        """Starts a race among the waiting runs that may start, once the race before has ended."""
        if self._racing or not (self._waiting or self._later):
            return
        waiting = self._waiting if any(f.may_start for f in self._waiting) else self._later
        self._racing, self._rung = {f.key: f for f in waiting if f.may_start}, 0
        waiting[:] = [f for f in waiting if not f.may_start]
        self._behind = set(self._racing)
        assert self._racing, "the largest of those that wait may start"
        for group in reversed(batch_groups(list(self._racing.values()), self._keys.together)):
            self._queue_from(group, 0)

    def _close_rung(self, records: list[Record]) -> None:
        """Drops the hopeless runs and continues the others, once all runs have reached the rung."""
        if self._behind:
            return
        if self._racing:
            at = self._next_rung()
            for fit in self._hopeless(self._racing.values()):
                self._conclude(fit, "dropped", records)
            self._rung += 1
            self._behind = {
                key for key, fit in self._racing.items() if fit.step < self._next_rung()
            }
            for group in reversed(batch_groups(list(self._racing.values()), self._keys.together)):
                self._queue_from(group, at)
        self._start_race()

    def _hopeless(self, left: Iterable[SeedRun]) -> list[SeedRun]:
        """Returns the runs beyond the best share of their variable (controls apart) and not good
        enough.
        """
        by_variable: dict[tuple[str | None, str | None], list[SeedRun]] = {}
        for fit in left:
            by_variable.setdefault(
                (fit.intervention.variable, fit.intervention.control), []
            ).append(fit)
        hopeless = []
        for fits in by_variable.values():
            count = -int(-len(fits) * self._keys.keep // 1)
            ranked = sorted(fits, key=lambda f: (f.rank, f.key))
            hopeless += [f for f in ranked[count:] if -f.rank[0] < self._enough]
        return hopeless

    def _conclude(self, fit: SeedRun, status: FitStatus, records: list[Record]) -> None:
        assert fit.last is not None
        fit.status = status
        records.append(
            Concluded(
                fit.last, 0 if is_closed_form(fit.intervention) else self._rung, status, fit.start
            )
        )
        self._end(fit)

    def _end(self, fit: SeedRun) -> None:
        """Removes a run that has just ended from the counts."""
        self._running -= 1
        self._steps_left -= self._left_of(fit)
        self._racing.pop(fit.key, None)
        self._behind.discard(fit.key)
        if all(f.ended for f in self._seeds_of[fit.intervention.id]):
            self._ended.append(fit.intervention.id)

    def _left_of(self, fit: SeedRun) -> int:
        """Returns the steps that a seed may still take."""
        return 0 if is_closed_form(fit.intervention) else self._keys.steps - fit.step

    def validate(self) -> None:
        """Checks the invariants; for tests."""
        places = [f.key for g in (*self._ready, *self._out.values()) for f in g.fits]
        assert all(a < b for a, b in pairwise(self._keys.ends)), self._keys
        assert self._running == sum(not fit.ended for fit in self._fits.values())
        assert self._steps_left == sum(
            self._left_of(fit) for fit in self._fits.values() if not fit.ended
        )
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


def _trained_for(intervention: Intervention) -> str:
    control = "" if intervention.control is None else f" (control {intervention.control})"
    return f"{intervention.variable}{control}"
