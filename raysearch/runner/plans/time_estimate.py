"""Estimates the time of a search by a short trial: the model is loaded here, a few tasks are timed,
and the rest is computed from them.

Invariants: the tasks are such as the search sends (consecutive interventions, first blocks) from
places all over the space; the first of each kind warms up and does not count; nothing is kept and
nothing is decided.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from raysearch.causal import Split
from raysearch.core.events import (
    Block,
    Event,
    Failed,
    Fitted,
    Measured,
    Opened,
    Seed,
    Task,
    TaskKind,
)
from raysearch.core.fitted_interventions import is_closed_form
from raysearch.core.hypothesis import Intervention
from raysearch.engine.execution.usage import Phase, Usage
from raysearch.errors import SearchFailedError
from raysearch.runner.resolution.given_objects import NO_OBJECTS, GivenObjects
from raysearch.runner.resolution.resolved_job import ResolvedJob
from raysearch.runner.session.pools import spec_of
from raysearch.stats.evidence import FIRST_LOOK
from raysearch.stats.power import Power

if TYPE_CHECKING:
    from raysearch.cluster.local_pool import LocalPool

SECONDS = 20.0
"""Seconds that the timed rows may take, about; a task that is begun is ended."""
PLACES = 8
"""Places in the space from which tasks are taken."""
STEPS = 4
"""Steps of the training that is timed."""
CONTROL = 16
"""Pairs that a control on the holdout takes where it does worse than the hypothesis, about."""


@dataclass(frozen=True, slots=True)
class TimeEstimate:
    """Measured seconds of one replica here: to load; for an input captured, a row (intervention x
    pair), a training step of one seed.

    `inputs`, `rows`, `steps`: how many were timed (no steps: nothing is trained). `process`, `gpu`:
    bytes in use at the end. `wave_tokens`: as in `ModelFacts`.
    """

    device: str
    path: str
    wave_tokens: int
    load: float
    inputs: int
    an_input: float
    rows: int
    a_row: float
    steps: int
    a_step: float
    process: int
    gpu: int

    def seconds(
        self, power: Power, inputs: int, interventions: int, steps: int, holdout: int
    ) -> float:
        """Returns the seconds of one replica, loading aside, if every site had the true IIA of
        `power`: captures, training, rows, estimates on the holdout.

        `inputs`: distinct ones; `steps`: of training, seeds counted, none dropped.
        """
        rows = interventions * (power.pairs + (holdout + min(holdout, CONTROL)) * power.accept)
        return inputs * self.an_input + steps * self.a_step + rows * self.a_row


def calibrate(resolved: ResolvedJob, given: GivenObjects = NO_OBJECTS) -> TimeEstimate:
    """Loads the job's model in this process and times a few of its tasks.

    Raises: ModelError, PairsError, JobError as a run would; SearchFailedError where a task raises.
    """
    from raysearch.cluster.local_pool import LocalPool, device_here

    usage = _ReportedUsage()
    pool = LocalPool(
        spec_of(resolved, resolved.job),
        device_here(resolved.job.resources.gpus),
        usage,
        None if given.model is None else partial(given.loaded, resolved.job),
    )
    try:
        trial = _Trial(resolved, pool, pool.open(), usage)
        load = sum(usage.take().values())
        captured, inputs = trial.captures()
        trained, steps = trial.training()
        measured, rows = trial.rows()
    finally:
        pool.close()
    assert usage.last is not None, "a task was done"
    facts, memory = trial.opened.facts, usage.last.memory
    return TimeEstimate(
        device=facts.device,
        path=facts.path,
        wave_tokens=facts.wave_tokens,
        load=load,
        inputs=inputs,
        an_input=captured / max(inputs, 1),
        rows=rows,
        a_row=measured / max(rows, 1),
        steps=steps,
        a_step=trained / max(steps, 1),
        process=memory.process,
        gpu=memory.gpu,
    )


@dataclass(slots=True)
class _ReportedUsage:
    """The usage that the pool has reported since it was last read."""

    phases: dict[Phase, float] = field(default_factory=dict)
    last: Usage | None = None

    def __call__(self, _worker: str, _task: Task | None, usage: Usage) -> None:
        self.last = usage
        for name, seconds in usage.phases.items():
            self.phases[name] = self.phases.get(name, 0.0) + seconds

    def take(self) -> Mapping[Phase, float]:
        taken, self.phases = self.phases, {}
        return taken


class _Trial:
    """Tasks for one pool, of each kind one to warm up and then those that count; each gives
    seconds, and of how many what."""

    def __init__(
        self, resolved: ResolvedJob, pool: "LocalPool", opened: Opened, usage: _ReportedUsage
    ) -> None:
        self.opened = opened
        self._job, self._pool, self._usage = resolved.job, pool, usage
        self._interventions = tuple(
            dict.fromkeys(h.intervention for h in resolved.space(opened.facts))
        )
        splits: tuple[Split, ...] = ("test", "fit")
        self._pairs = {s: [p.index for p in resolved.pairs if p.split == s] for s in splits}
        self._fitted: dict[str, tuple[Intervention, bytes]] = {}
        self._tasks = 0

    def captures(self) -> tuple[float, int]:
        """Inputs without intervention, as screening runs them."""
        first, rest = (
            self._test(0, FIRST_LOOK),
            self._test(FIRST_LOOK, self._job.resources.rows),
        )
        self._do("screen", "test", first)
        self._usage.take()
        self._do("screen", "test", rest)
        encoded = {e.index: e for e in self.opened.encoded}
        warm, timed = (
            {g for i in part for g in (encoded[i].base, *encoded[i].sources.values())}
            for part in (first, rest)
        )
        return sum(self._usage.take().values()), len(timed - warm)

    def training(self) -> tuple[float, int]:
        """Steps x seeds, captures aside; what is fit is kept, to be measured."""
        fitted = [i for i in self._interventions if i.is_fitted]
        trained = [i for i in fitted if not is_closed_form(i)]
        group = trained[:: max(1, len(trained) // self._job.fit.together)][: self._job.fit.together]
        for one in [i for i in fitted if is_closed_form(i)][:1]:
            self._fit([one], 0)
        if not group:
            return 0.0, 0
        self._fit(group, 1)
        self._usage.take()
        steps = min(STEPS, self._job.fit.steps)
        self._fit(group, steps)
        return self._without_captures(), steps * len(group)

    def rows(self) -> tuple[float, int]:
        """Interventions x pairs, captures aside."""
        groups = [*self._chunks([i for i in self._interventions if not i.is_fitted])]
        groups += [[i for i, _ in self._fitted.values()]] if self._fitted else []
        contents = {i.fit: content for i, content in self._fitted.values() if i.fit is not None}
        seconds, rows, began = 0.0, 0, time.monotonic()
        for at, group in enumerate([groups[0], *groups]):
            pairs = self._test(at * FIRST_LOOK, FIRST_LOOK)
            events = self._do("measure", "test", pairs, group, contents)
            used = self._without_captures()
            if at:
                seconds += used
                rows += sum(e.rows for e in events if isinstance(e, Measured))
            if at and time.monotonic() - began > SECONDS:
                break
        return seconds, rows

    def _fit(self, group: Sequence[Intervention], steps: int) -> None:
        seeds = tuple(Seed(i, self._job.fit.seeds[0]) for i in group)
        pairs = self._pairs["fit"][: 2 * self._job.fit.batch]
        for event in self._do("fit", "fit", pairs, group, seeds=seeds, steps=(0, steps)):
            if isinstance(event, Fitted):
                (own,) = (i for i in group if i.id == event.intervention)
                self._fitted[own.id] = replace(own, fit=event.fit), event.tensors[event.fit]

    def _do(
        self,
        kind: TaskKind,
        split: Split,
        pairs: Sequence[int],
        interventions: Sequence[Intervention] = (),
        tensors: Mapping[str, bytes] | None = None,
        seeds: tuple[Seed, ...] = (),
        steps: tuple[int, int] = (0, 0),
    ) -> list[Event]:
        """Runs a task and returns its events. Raises: SearchFailedError where something in it
        raises."""
        self._tasks += 1
        block = Block(split, self._tasks, tuple(pairs))
        task = Task(self._tasks, kind, tuple(interventions), (block,), seeds=seeds, steps=steps)
        self._pool.submit(task, tensors or {})
        events = self._pool.wait()
        for event in events:
            if isinstance(event, Failed):
                raise SearchFailedError(
                    f"calibration: a {kind} task raised {event.error_type}: {event.message}"
                )
        return events

    def _test(self, start: int, size: int) -> list[int]:
        """Returns some test pairs, again from the first where they run out."""
        pairs = self._pairs["test"]
        start = start % len(pairs) if len(pairs) > size else 0
        return pairs[start : start + size]

    def _without_captures(self) -> float:
        return sum(seconds for name, seconds in self._usage.take().items() if name != "capture")

    def _chunks(self, interventions: Sequence[Intervention]) -> Iterator[Sequence[Intervention]]:
        """Returns runs of consecutive interventions, each as many as fill a task, from places
        spread over all of them."""
        size = max(1, self._job.resources.rows // FIRST_LOOK)
        starts = range(0, len(interventions), size)
        return (
            interventions[at : at + size]
            for at in starts[:: max(1, math.ceil(len(starts) / PLACES))]
        )
