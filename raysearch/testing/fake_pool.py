"""A pool without a model, whose outputs come from a function: for tests of proposers, ledgers and
clusters.

It is public. Invariants: it satisfies the same contract as the real pools.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from raysearch.cluster.replica_spec import NO_TENSORS, build_failed
from raysearch.core.answers import matchers_of
from raysearch.core.events import (
    Attributed,
    Encoded,
    Event,
    Fitted,
    Ids,
    Measured,
    Opened,
    Screened,
    Seed,
    Task,
)
from raysearch.core.hypothesis import Intervention, Unit
from raysearch.core.model_facts import ComponentFacts, ModelFacts
from raysearch.engine.leased_run import LeasedRun
from raysearch.storage.digests_json import sha256

FACTS = ModelFacts(
    layers=4,
    width=8,
    heads=2,
    digest="fake",
    dtype="float32",
    device="fake",
    path="fake",
    components=(ComponentFacts("residual", (0, 1, 2, 3), 8, 0),),
)


@dataclass(frozen=True)
class FakeWorld:
    """The answers of a made-up model.

    Args:
        unpatched: answer without intervention, to the base or to a source by name.
        patched: answer under an intervention.
        fit: validation IIA in [0, 1] of a seed after some steps.
        effect: first-order effect in [0, 1] of interchanging a unit, on a variable's answer to a
            pair.
    """

    encoded: Sequence[Encoded]
    unpatched: Callable[[Encoded, str], Ids]
    patched: Callable[[Encoded, Intervention], Ids]
    facts: ModelFacts = FACTS
    fit: Callable[[Seed, int], float] = lambda seed, step: 1.0
    effect: Callable[[Encoded, Unit, str], float] = lambda pair, unit, variable: 0.0


class FakePool:
    """A pool of `workers` that answer at once, in the order of submission. `clock`: tells the
    seconds by which leases end."""

    def __init__(
        self,
        world: FakeWorld,
        workers: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._world = world
        self._pairs = {e.index: e for e in world.encoded}
        self._leased = LeasedRun(self._pairs, matchers_of(tuple(world.encoded)), clock)
        self._workers = workers
        self._waiting: deque[Task] = deque()

    def open(self) -> Opened:
        return Opened(self._world.facts, tuple(self._world.encoded))

    @property
    def free(self) -> int:
        return self._workers - len(self._waiting)

    def submit(self, task: Task, tensors: Mapping[str, bytes] = NO_TENSORS) -> None:
        assert self.free, "no worker is idle"
        self._waiting.append(task)

    def wait(self) -> list[Event]:
        assert self._waiting, "nothing is out"
        task = self._waiting.popleft()
        try:
            ways = {"screen": self._screen, "attribute": self._attribute, "fit": self._fit}
            if task.lease is not None:
                return self._leased.do(task, self._measure)
            return ways.get(task.kind, self._measure)(task)
        except Exception as e:  # noqa: BLE001  (the contract: an error of a task is reported)
            return [build_failed(task, e, "fake-0")]

    def close(self) -> None:
        self._waiting.clear()

    def _screen(self, task: Task) -> list[Event]:
        events: list[Event] = []
        for block in task.blocks:
            pairs = [self._pairs[p] for p in block.pairs]
            names = tuple(pairs[0].sources) if pairs else ()
            events.append(
                Screened(
                    task=task.id,
                    split=block.split,
                    block=block.index,
                    pairs=block.pairs,
                    base=tuple(self._world.unpatched(p, "base") for p in pairs),
                    sources={
                        name: tuple(self._world.unpatched(p, name) for p in pairs) for name in names
                    },
                    near_ties=0,
                    seconds=0.0,
                    device=self._world.facts.device,
                    worker="fake-0",
                    attempt=task.attempt,
                )
            )
        return events

    def _attribute(self, task: Task) -> list[Event]:
        return [
            Attributed(
                task=task.id,
                split=block.split,
                block=block.index,
                pairs=block.pairs,
                effects=self._effects(task, [self._pairs[p] for p in block.pairs]),
                seconds=0.0,
                device=self._world.facts.device,
                worker="fake-0",
                attempt=task.attempt,
            )
            for block in task.blocks
        ]

    def _effects(self, task: Task, pairs: Sequence[Encoded]) -> dict[str, tuple[float, ...]]:
        """Sums the effects over the change pairs of each variable."""
        return {
            v: tuple(
                sum(
                    self._world.effect(p, unit, v)
                    for p in pairs
                    if p.counterfactual[v] != p.answers["base"]
                )
                for unit in task.units
            )
            for v in (pairs[0].counterfactual if pairs else ())
        }

    def _fit(self, task: Task) -> list[Event]:
        return [fake_fit(task, seed, self._world.fit(seed, task.steps[1])) for seed in task.seeds]

    def _measure(self, task: Task) -> list[Event]:
        return [
            Measured(
                task=task.id,
                intervention=intervention.key,
                split=block.split,
                block=block.index,
                pairs=block.pairs,
                outputs=tuple(
                    self._world.patched(self._pairs[p], intervention) for p in block.pairs
                ),
                near_ties=0,
                rows=len(block.pairs),
                seconds=0.0,
                device=self._world.facts.device,
                worker="fake-0",
                attempt=task.attempt,
            )
            for intervention in task.interventions
            for block in task.blocks
        ]


def fake_fit(task: Task, seed: Seed, iia: float) -> Fitted:
    """Returns the event of a seed that went through the steps of its task and reached a validation
    IIA.

    The content of the fit is its name.
    """
    first, last = task.steps
    content = f"{seed.key} at {last} after {seed.state or seed.start}".encode()
    digest = sha256(content)
    return Fitted(
        task=task.id,
        intervention=seed.intervention.id,
        seed=seed.seed,
        first=first,
        last=last,
        steps=(last,),
        losses=(1 - iia,),
        iias=(iia,),
        validation_iia=iia,
        validation_loss=1 - iia,
        validation_n=10,
        found={},
        fit=digest,
        state=digest if last else None,
        stopped=False,
        seconds=0.0,
        device="fake",
        worker="fake-0",
        attempt=task.attempt,
        tensors={digest: content},
    )
