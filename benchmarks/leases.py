"""What leases save: messages and idle replicas of a simulated cluster, with leases and without.

    python benchmarks/leases.py [--hypotheses 540] [--latency 0.005 0.05] [--workers 1 8] [--wave 0.025]
    python benchmarks/leases.py --run RUN_FOLDER   # counts the tasks of a run from its journal

The search is the real one; replicas answer from a formula (benchmarks/simulated.py, with about as
many true sites as jobs/capitals.yaml), on a virtual clock: a wave of `rows` takes 25 ms and 0.06 ms
a row, as reckoned for an 8B model on a GPU; a message takes half of the latency each way; a turn of
the driver 5 ms (one fsync), and 0.11 ms an event, 0.45 ms a task (docs/explanation/scale.md). A replica
whose tasks take less than 50 ms is sent the next before it has answered, as the Ray pool does.
Screening takes no time here. Figures do not depend on the machine.
"""

import argparse
import heapq
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import simulated
from simulated import Simulated

from raysearch.cluster.deadlines import Deadlines
from raysearch.cluster.slots import PREFETCH_SECONDS
from raysearch.core.events import Event, Measured, Task
from raysearch.search.leases import STEPS
from raysearch.store.run_folder import RunFolder
from raysearch.store.run_history import read_entries
from raysearch.testing.fake_pool import FakePool, FakeWorld

WAVE, ROW = 0.025, 0.00006
TURN, EVENT, TASK = 0.005, 0.00011, 0.00045
MIX = (0.97,) * 15 + (0.8,) + (0.3,) * 14 + (0.05,) * 70


class Waves(FakePool):
    """A pool that counts the rows and waves of its last task, which tell its time."""

    def __init__(self, world: FakeWorld, wave: float) -> None:
        self.waves = self.rows = 0
        self._wave = wave
        super().__init__(world, clock=lambda: self.seconds)

    @property
    def seconds(self) -> float:
        """Seconds that the last task took."""
        return self.waves * self._wave + self.rows * ROW

    def answer(self, task: Task) -> list[Event]:
        self.waves = self.rows = 0
        self.submit(task)
        return self.wait()

    def _measure(self, task: Task) -> list[Event]:
        self.waves += 1
        self.rows += task.rows
        return super()._measure(task)


@dataclass
class Replica:
    """When a simulated replica is free, its seconds of work, and its tasks that are out."""

    until: float = 0.0
    busy: float = 0.0
    out: list[Task] = field(default_factory=list)


@dataclass(frozen=True)
class Outcome:
    """What a search took."""

    seconds: float
    idle: float
    tasks: Mapping[str, int]
    rows: Mapping[str, int]
    verdicts: Mapping[str, tuple[str, int, int]]


def search(sim: Simulated, workers: int, latency: float, steps: int, wave: float) -> Outcome:
    """Runs a whole search on the virtual clock."""
    brain, pool = sim.search(steps), Waves(sim.world(), wave)
    while not brain.preparation.done:
        for task in brain.ask(1):
            brain.tell(pool.answer(task))
    now, number = 0.0, 0
    tasks, rows, times = Counter[str](), Counter[str](), Deadlines(1e9)
    replicas = [Replica() for _ in range(workers)]
    coming: list[tuple[float, int, Replica, list[Event], float]] = []
    while not brain.done:
        idle = [r for r in replicas if not r.out]
        idle += [
            r for r in replicas if len(r.out) == 1 and times.expected(r.out[0]) < PREFETCH_SECONDS
        ]
        for replica, task in zip(idle, brain.ask(len(idle)), strict=False):
            now += TASK
            events = pool.answer(task)
            seconds = pool.seconds
            replica.until = max(now + latency / 2, replica.until) + seconds
            replica.busy += seconds
            replica.out.append(task)
            number += 1
            arrival = replica.until + latency / 2, number, replica, events, seconds
            heapq.heappush(coming, arrival)
            tasks[task.kind] += 1
            rows[task.kind] += pool.rows
        now = max(now, coming[0][0]) + TURN
        while coming and coming[0][0] <= now:
            _, _, replica, events, seconds = heapq.heappop(coming)
            now += EVENT * len(events)
            times.record(replica.out.pop(0), seconds, events)
            brain.tell(events)
    idle_share = 1 - sum(r.busy for r in replicas) / (workers * now)
    verdicts = {k: (d.verdict, d.n, d.matches) for k, d in brain.verdicts.items()}
    return Outcome(now, idle_share, tasks, rows, verdicts)


def count(folder: str) -> str:
    """Returns a line of what the tasks of a run were, by its journal."""
    entries = (e for batch in read_entries(RunFolder.open(folder)) for e in batch)
    seen = {e.key: e for e in entries if isinstance(e, Measured)}.values()
    tasks = {split: {e.task for e in seen if e.split == split} for split in ("test", "holdout")}
    test = [e for e in seen if e.split == "test"]
    parts, looks = {(e.intervention, e.task) for e in test}, {(e.task, e.block) for e in test}
    through = len(parts) / len({e.intervention for e in test})
    return (
        f"tasks: {len(tasks['test'])} on test pairs, {len(tasks['holdout'])} on holdout pairs; an "
        f"intervention goes through {through:.1f} in its test; {len(looks) / len(tasks['test']):.1f} "
        f"looks a test task; {sum(len(e.pairs) for e in seen):,} rows"
    )


def main() -> None:
    """Prints both ways side by side, or counts a run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hypotheses", type=int, default=540)
    parser.add_argument("--latency", type=float, nargs="+", default=[0.005, 0.05])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--wave", type=float, default=WAVE, help="seconds, beside those of rows")
    parser.add_argument("--run", help="a run folder whose tasks are counted, and nothing else")
    flags = parser.parse_args()
    if flags.run:
        print(count(flags.run))
        return
    simulated.RATES = MIX
    print("| replicas | latency | leases | s | idle | tasks: test, holdout | rows: test, holdout |")
    print("|---|---|---|---|---|---|---|")
    ratios = []
    for workers in flags.workers:
        for latency in flags.latency:
            sim = replace(Simulated(flags.hypotheses, 3), rows=64)
            found = {
                steps: search(sim, workers, latency, steps, flags.wave) for steps in (1, STEPS)
            }
            assert found[1].verdicts == found[STEPS].verdicts
            ratios.append(found[1].seconds / found[STEPS].seconds)
            for steps, of in found.items():
                kinds = "measure", "estimate"
                tasks, rows = (", ".join(str(n[k]) for k in kinds) for n in (of.tasks, of.rows))
                print(
                    f"| {workers} | {latency * 1e3:.0f} ms | {'yes' if steps > 1 else 'no'} | "
                    f"{of.seconds:.2f} | {of.idle:.0%} | {tasks} | {rows} |",
                    flush=True,
                )
    print(f"ratio: {min(ratios):.2f} (the least, seconds without leases to seconds with them)")


if __name__ == "__main__":
    main()
