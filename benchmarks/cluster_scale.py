"""How far one driver reaches: replicas on one machine, tasks a second over Ray, a search of 10^5
hypotheses and its resume.

    python benchmarks/cluster_scale.py replicas [--counts 1 2 4] [--seconds 20]
    python benchmarks/cluster_scale.py driver [--replicas 2 4 8] [--tasks 5000]
    python benchmarks/cluster_scale.py search [--hypotheses 100000] [--variables 2] [--workers 64] [--folder /tmp]

`replicas`: real replicas of jobs/planted's model (GPT-2 of 4 layers), a core and a thread each,
over an embedded Ray; pairs x interventions a second. More replicas than cores cannot be faster.
`driver`: replicas that answer at once (benchmarks/simulated.py); what is left is the driver's:
Ray's calls alone, then with search and ledger, each task one intervention x one block. `search`:
simulated workers in this process, the real ledger on a local disk; the pool's own time is taken
off. Seconds are of a clock, "CPU" of this process alone: on a machine with other work on it only
these can be compared.
"""

import argparse
import gc
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path

import psutil
import ray
from simulated import Simulated, Timed

import raysearch as rs
from raysearch import driver
from raysearch.cluster.ray_pool import PoolShape, RayPool
from raysearch.cluster.replica_spec import ReplicaSpec
from raysearch.cluster.worker import ReplicaReady, Worker
from raysearch.core.events import Event, Measured, Task
from raysearch.core.evidence_version import EVIDENCE_VERSION
from raysearch.core.model_source import ModelSource
from raysearch.core.records import Snapshot
from raysearch.engine.execution.usage import Memory, Usage
from raysearch.problems import load_problem
from raysearch.report.results_table import results
from raysearch.search.pair_blocks import even_blocks
from raysearch.search.search import Search
from raysearch.store.ledger import RunLedger
from raysearch.store.pairs_table import write_pairs
from raysearch.store.run_folder import RunFolder
from raysearch.testing.fake_pool import FakePool

PLANTED = Path(__file__).parents[1] / "jobs/planted/model"
POSITIONS = ("a", "plus1", "b", "plus2", "c", "last")
VARIABLES = ("sum_ab", "total")
MIB = 2**20
NO_USAGE = Usage({}, 0, Memory(0, 0, 0.0, 0.0))


class Instant(Worker):
    """A worker without a model: it answers from a formula."""

    def open(self, work: ReplicaSpec) -> ReplicaReady:
        self._pool = FakePool(Simulated(int(work.model.path)).world())
        return ReplicaReady(self._pool.open(), "simulated", NO_USAGE)

    def do(self, task: Task, tensors: Mapping[str, bytes]) -> tuple[list[Event], Usage]:
        self._pool.submit(task)
        return self._pool.wait(), NO_USAGE


@dataclass
class Stopwatch:
    """Seconds since it was made, of the clock and of this process."""

    wall: float = field(default_factory=time.perf_counter)
    cpu: float = field(default_factory=time.process_time)

    def read(self) -> tuple[float, float]:
        return time.perf_counter() - self.wall, time.process_time() - self.cpu


def replicas(counts: Iterable[int], seconds: float) -> None:
    """Pairs a second of real replicas."""
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print("| replicas | pairs/s | to one | efficiency |\n|---|---|---|---|")
    first = 0.0
    for count in counts:
        with _ray(count), _pool(_planted(), count) as pool:
            _feed(pool, _planted_tasks(), 2.0)  # captures are made, libraries warm
            _all_ready(pool, count)
            rate = _feed(pool, _planted_tasks(), seconds)
        first = first or rate
        print(
            f"| {count} | {rate:.0f} | {rate / first:.2f} | {rate / first / count:.2f} |",
            flush=True,
        )


def driver_rate(counts: Iterable[int], tasks: int) -> None:
    """Tasks a second that one driver hands out and takes back."""
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(
        "| replicas | Ray alone: tasks/s | CPU ms a task | with search and ledger: tasks/s | CPU "
        "ms a task |"
    )
    print("|---|---|---|---|---|")
    sim = Simulated(tasks * 2, rows=4)
    work = ReplicaSpec(ModelSource(str(tasks * 2)), (), (), ())
    for count in counts:
        with _ray(count):
            with _pool(work, count, Instant) as pool:
                _all_ready(pool, count)
                alone = _rate_alone(pool, sim, tasks)
            with _pool(work, count, Instant) as pool, _run(sim) as run:
                _all_ready(pool, count)
                whole = _rate_whole(pool, sim, run, tasks)
        print(
            f"| {count} | {alone[0]:.0f} | {alone[1]:.2f} | {whole[0]:.0f} | {whole[1]:.2f} |",
            flush=True,
        )


def search(sim: Simulated, workers: int, folder: Path) -> None:
    """A whole search with simulated workers, then its resume and its results."""
    print(
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {len(sim.space)} hypotheses, "
        f"{workers} workers"
    )
    with _run(sim, folder) as run:
        before, watch = _resident(), Stopwatch()
        ledger, brain, pool = RunLedger(run), sim.search(), Timed(sim.world(), workers)
        driver.drive(brain, pool, ledger, ledger.snapshot)
        ledger.close("done")
        wall, cpu = watch.read()
        wall, cpu = wall - pool.seconds, cpu - pool.cpu
        gc.collect()
        end, living = brain.snapshot(), _resident() - before
        print(
            f"{end.accepted} accepted, {end.rejected} rejected, {end.undecided} undecided; "
            f"{end.pairs} pairs"
        )
        print(f"events       {pool.events} in {pool.tasks} tasks")
        print(
            f"driver       {wall:.1f} s, {cpu:.1f} s CPU: {cpu / pool.events * 1e6:.0f} us CPU an "
            f"event"
        )
        print(
            f"memory       {living / MIB:.0f} MiB above the start: {living / len(sim.space):.0f} "
            f"bytes a hypothesis"
        )
        del ledger, brain, pool
        gc.collect()
        _resume(sim, run)
        for name in ("journal", "tables", *(f"tables/{name}" for name in run.tables.folders())):
            print(f"{name:24} {_size(run.path / name) / MIB:.1f} MiB")
        for what, wanted in (
            ("all", {}),
            ("accepted", {"accepted": True}),
            ("top 100", {"top": 100}),
        ):
            watch = Stopwatch()
            rows = results(run.place, **wanted).num_rows
            print(f"results, {what:15} {watch.read()[0]:.2f} s, {rows} rows")


def _resume(sim: Simulated, run: RunFolder) -> None:
    watch = Stopwatch()
    ledger, brain = RunLedger(run), sim.search()
    looked = watch.read()[0]
    driver.replay(brain, ledger.replay(), ledger)
    wall, cpu = watch.read()
    assert brain.done
    ledger.close("done")
    print(
        f"resume       {wall:.1f} s, {cpu:.1f} s CPU ({looked:.1f} s to look through the journal)"
    )


def _rate_alone(pool: RayPool, sim: Simulated, tasks: int) -> tuple[float, float]:
    """(tasks a second, CPU milliseconds a task) of submit and wait alone."""
    block = even_blocks("test", range(4), 4)
    grid = islice(sim.space.interventions(), tasks)
    waiting = (Task(i, "measure", (intervention,), block) for i, intervention in enumerate(grid))
    watch, done = Stopwatch(), 0
    while done < tasks:
        for task in islice(waiting, pool.free):
            pool.submit(task)
        done += len(pool.wait())
    wall, cpu = watch.read()
    return tasks / wall, cpu / tasks * 1e3


def _rate_whole(pool: RayPool, sim: Simulated, run: RunFolder, tasks: int) -> tuple[float, float]:
    """The same of a whole driver, once all hypotheses live."""
    ledger, brain = RunLedger(run), sim.search()
    while brain.snapshot().stage == "screening":
        _turn(brain, pool, ledger)
    watch, first, last = Stopwatch(), brain.snapshot().pairs, 0
    while last - first < 4 * tasks and not brain.done:
        last = _turn(brain, pool, ledger).pairs
    wall, cpu = watch.read()
    done = (last - first) / 4
    ledger.close("interrupted")
    return done / wall, cpu / done * 1e3


def _turn(brain: Search, pool: driver.Pool, ledger: RunLedger) -> Snapshot:
    """One turn of `driver.drive`."""
    for task in brain.ask(pool.free):
        pool.submit(task, ledger.tensors_for(task))
    events = pool.wait()
    ledger.write_events(events)
    ledger.write_records(brain.tell(events))
    snapshot = brain.snapshot()
    ledger.snapshot(snapshot)
    return snapshot


def _feed(pool: RayPool, tasks: Iterator[Task], seconds: float) -> float:
    """Pairs a second while all replicas are kept busy."""
    began, pairs = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        for task in islice(tasks, pool.free):
            pool.submit(task)
        pairs += sum(len(e.pairs) for e in pool.wait() if isinstance(e, Measured))
    return pairs / (time.perf_counter() - began)


def _planted() -> ReplicaSpec:
    problem = load_problem("raysearch.problems.add_three", {})
    pairs = rs.draw_pairs(problem, VARIABLES, {"test": 512}, seed=0)
    return ReplicaSpec(ModelSource(str(PLANTED)), pairs, POSITIONS, VARIABLES)


def _planted_tasks() -> Iterator[Task]:
    """Endlessly: each block of 32 pairs with each eight of the 24 interventions on the residual."""
    grid = [
        rs.Intervention((rs.Unit(rs.Site(layer, "residual", at)),))
        for at in POSITIONS
        for layer in range(4)
    ]
    groups = [tuple(grid[i : i + 8]) for i in range(0, len(grid), 8)]
    work = cycle(
        [(group, block) for block in even_blocks("test", range(512), 32) for group in groups]
    )
    for number, (group, block) in enumerate(work):
        yield Task(number, "measure", group, (block,))


def _all_ready(pool: RayPool, count: int) -> None:
    while pool.free < count:
        pool.wait()


@contextmanager
def _ray(cpus: int) -> Iterator[None]:
    """An embedded Ray that reckons with so many CPUs, whatever the machine has."""
    ray.init(
        "local",
        num_cpus=cpus,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
    )
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _pool(work: ReplicaSpec, count: int, worker: type[Worker] = Worker) -> Iterator[RayPool]:
    pool = RayPool(work, f"scale-{worker.__name__}", PoolShape(count), worker=worker)
    pool.open()
    _all_ready(pool, count)
    try:
        yield pool
    finally:
        pool.close()


@contextmanager
def _run(sim: Simulated, folder: Path | None = None) -> Iterator[RunFolder]:
    """A run folder that is gone afterwards."""
    store = Path(tempfile.mkdtemp(prefix="raysearch-scale-", dir=folder))
    try:
        run = RunFolder.create(
            store,
            name="simulated",
            job_hash="0" * 64,
            job_digest="0" * 64,
            job_text="{}\n",
            evidence_version=EVIDENCE_VERSION,
        )
        write_pairs(run.folder, sim.pairs, sim.encoded)
        yield run
    finally:
        shutil.rmtree(store)


def _resident() -> int:
    return int(psutil.Process().memory_info().rss)


def _size(path: Path) -> int:
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())


def main() -> None:
    """Runs the part that is named."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = parser.add_subparsers(dest="part", required=True)
    part = parts.add_parser("replicas")
    part.add_argument("--counts", type=int, nargs="+", default=[1, 2, 4])
    part.add_argument("--seconds", type=float, default=20.0)
    part = parts.add_parser("driver")
    part.add_argument("--replicas", type=int, nargs="+", default=[2, 4, 8])
    part.add_argument("--tasks", type=int, default=5_000)
    part = parts.add_parser("search")
    part.add_argument("--hypotheses", type=int, default=100_000)
    part.add_argument("--variables", type=int, default=2)
    part.add_argument("--workers", type=int, default=64)
    part.add_argument("--folder", type=Path)
    flags = parser.parse_args()
    run: Mapping[str, Callable[[], None]] = {
        "replicas": lambda: replicas(flags.counts, flags.seconds),
        "driver": lambda: driver_rate(flags.replicas, flags.tasks),
        "search": lambda: search(
            Simulated(flags.hypotheses, flags.variables), flags.workers, flags.folder
        ),
    }
    run[flags.part]()


if __name__ == "__main__":
    main()
