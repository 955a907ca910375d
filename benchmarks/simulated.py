"""A search of any size whose outputs come from a formula: hypotheses on a grid, pairs, a pool
without a model.

Of a hundred interventions one is true for one variable (outputs match at 0.97), four nearly (0.7),
25 a little (0.3), the others hardly (0.05). Invariants: an output is a function of intervention and
pair alone, so that any run of it is the same.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

import raysearch as rs
from raysearch.causal import Split
from raysearch.cluster.replica_spec import NO_TENSORS
from raysearch.core.events import Encoded, Event, Ids, Task
from raysearch.core.space import Grid, HypothesisSpace
from raysearch.proposers.base import Exhaustive
from raysearch.search.leases import STEPS
from raysearch.search.pair_blocks import expected_answers
from raysearch.search.screening import ScreeningPlan
from raysearch.search.search import Search
from raysearch.stats.match_test import MatchTest
from raysearch.testing.fake_pool import FakePool, FakeWorld

BASE, SOURCE = (1,), (2,)
COUNTS: Mapping[Split, int] = {"test": 256, "holdout": 64}
RATES = (0.97, *(0.7,) * 4, *(0.3,) * 25, *(0.05,) * 70)
"""Of a hundred interventions, how often each matches."""


@dataclass(frozen=True)
class Simulated:
    """`hypotheses`: of `variables` on as many sites as that takes (rounded up to a whole layer);
    `rows` of a task."""

    hypotheses: int
    variables: int = 2
    rows: int = 64

    @property
    def space(self) -> HypothesisSpace:
        layers = 100
        positions = math.ceil(self.hypotheses / self.variables / layers)
        grid = Grid(
            "residual", tuple(range(layers)), (None,), tuple(f"p{i}" for i in range(positions))
        )
        return HypothesisSpace(self._names, (grid,))

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(f"v{i}" for i in range(self.variables))

    @property
    def pairs(self) -> tuple[rs.Pair, ...]:
        splits = [split for split, count in COUNTS.items() for _ in range(count)]
        texts = {"base": rs.Input("b"), "source": rs.Input("s")}
        return tuple(
            rs.Pair(i, texts["base"], {"source": texts["source"]}, {}, {}, s)
            for i, s in enumerate(splits)
        )

    @property
    def encoded(self) -> tuple[Encoded, ...]:
        """Every pair changes every variable, each to an answer of its own."""
        wanted = {name: (10 + i,) for i, name in enumerate(self._names)}
        at = {"last": (0,)}
        answers = {"base": BASE, "source": SOURCE}
        return tuple(
            Encoded(i, (1,), {"source": (2,)}, at, {"source": at}, answers, wanted)
            for i in range(sum(COUNTS.values()))
        )

    def world(self) -> FakeWorld:
        return FakeWorld(
            self.encoded, lambda pair, name: BASE if name == "base" else SOURCE, self._under
        )

    def search(self, lease_steps: int = STEPS) -> Search:
        space = self.space
        splits = [pair.split for pair in self.pairs]
        pairs = {e.index: expected_answers(e, splits[e.index]) for e in self.encoded}
        test = MatchTest(0.8, 0.05, 0.05, hypotheses=len(space))
        return Search(
            Exhaustive(space),
            test,
            pairs,
            ScreeningPlan(COUNTS, COUNTS["test"], solved_only=True),
            rows=self.rows,
            lease_steps=lease_steps,
        )

    def _under(self, pair: Encoded, intervention: rs.Intervention) -> Ids:
        number = int(intervention.id, 16)
        draw = (number // 7 + pair.index * 2_654_435_761) % 1_000_003 / 1_000_003
        return (10 + number % self.variables,) if draw < RATES[number % 100] else BASE


class Timed:
    """A FakePool that knows how long it took itself: what is left of a run is the driver's."""

    def __init__(self, world: FakeWorld, workers: int) -> None:
        self._pool = FakePool(world, workers)
        self.seconds = self.cpu = 0.0
        self.events = self.tasks = 0

    @property
    def free(self) -> int:
        return self._pool.free

    def submit(self, task: Task, tensors: Mapping[str, bytes] = NO_TENSORS) -> None:
        self._pool.submit(task, tensors)
        self.tasks += 1

    def wait(self) -> list[Event]:
        began, cpu = time.perf_counter(), time.process_time()
        events = self._pool.wait()
        self.seconds += time.perf_counter() - began
        self.cpu += time.process_time() - cpu
        self.events += len(events)
        return events
