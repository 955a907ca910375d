"""Chaos: a real search on a real Ray of three nodes, disturbed at random, ends with the tables of
one that was not.

    python -m tests.cluster.chaos --faults 50 --seed 0        # the short form
    make chaos                                                # the long one: 500

Prints a table on stdout (`--json` for the same as JSON): each fault, how often it was injected, and
how many rows were lost, there twice, or otherwise in the searches that it was injected into. Exits
with 1 if any was, or if a search did not survive.

Invariants: what is done, in which order and from which line of the journal on follows from the seed
alone (`schedule`). A search that runs on while a fault is at work is further by then: the next
comes at once, but never nearer than APART.
"""

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.cluster.chaos_faults import FAULTS, Broken, Scene
from tests.cluster.chaos_tables import Difference, compare
from tests.cluster.chaos_world import ROOT, Closing, Disk, Mlflow, Nodes

JOB = ROOT / "tests" / "cluster" / "chaos.yaml"
SHARES: Mapping[str, int] = {
    "worker killed": 12,
    "two workers killed at once": 2,
    "all workers killed at once": 1,
    "node lost": 3,
    "driver killed": 2,
    "driver killed as it cuts a part": 2,
    "MLflow server killed": 2,
    "disk full": 2,
    "store answers errors": 1,
    "worker stopped for a while": 10,
    "worker stopped past its deadline": 1,
    "answered twice": 6,
    "answered twice, otherwise": 4,
    "second driver on the run": 2,
}
"""Of fifty. Each start of a driver costs some 20 s of a core, of which three replicas load; so
there are few of those."""
IN_A_SEARCH = 25
LINES = 480
"""About as many as the journal of chaos.yaml has; faults fall into all but its end."""
APART = 8
"""Lines between two faults, at least: three losses in a row of one task are quarantine, by design.
"""
NODES = 3
DEADLINE = 45.0
"""Seconds. A task of chaos.yaml takes under one; a machine that others use too may be twenty times
slower."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A fault, the line of the journal that it waits for, and its number, which its own chances
    follow from."""

    number: int
    name: str
    at: int


@dataclass
class Tally:
    """What was done and what came of it. `told`: what was wrong, each in a line or more."""

    times: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    twice: Counter[str] = field(default_factory=Counter)
    other: Counter[str] = field(default_factory=Counter)
    told: list[str] = field(default_factory=list)
    searches: int = 0

    def take(self, injected: Sequence[str], difference: Difference) -> None:
        self.searches += 1
        self.times.update(injected)
        for name in set(injected):
            self.lost[name] += difference.lost
            self.twice[name] += difference.twice
            self.other[name] += difference.other
        self.told += difference.wrong

    def table(self) -> str:
        """As Markdown."""
        columns = (self.times, self.lost, self.twice, self.other)
        rows = [(name, *(str(column[name]) for column in columns)) for name in FAULTS]
        rows.append(
            (f"**all, in {self.searches} searches**", *(str(column.total()) for column in columns))
        )
        head = [("fault", "times", "rows lost", "rows twice", "rows otherwise"), ("---",) * 5]
        return "\n".join(f"| {' | '.join(row)} |" for row in (*head, *rows))


def schedule(seed: int, faults: int) -> list[list[Planned]]:
    """For each search its faults, in the order of their lines."""
    rng = random.Random(f"{seed}.schedule")
    names = [name for name, share in SHARES.items() for _ in range(-(-share * faults // 50))]
    rng.shuffle(names)
    numbered = list(enumerate(names[:faults]))
    searches = [numbered[i : i + IN_A_SEARCH] for i in range(0, faults, IN_A_SEARCH)]
    return [
        [Planned(n, name, at) for (n, name), at in zip(s, _lines(len(s), rng), strict=True)]
        for s in searches
    ]


def _lines(count: int, rng: random.Random) -> list[int]:
    room = int(LINES * 0.9) - count * APART
    return [
        2 + at + i * APART for i, at in enumerate(sorted(rng.randrange(room) for _ in range(count)))
    ]


def disturb(scene: Scene, planned: Sequence[Planned], seed: int) -> tuple[list[str], list[Planned]]:
    """Runs a search through its faults to its end: which were injected, and which it was over
    before. Raises: Broken."""
    injected: list[str] = []
    missed: list[Planned] = []
    lines = 0
    scene.begin()
    for fault in planned:
        there = scene.reach(max(fault.at, lines + APART))
        lines = scene.lines()
        if there and FAULTS[fault.name](
            scene, random.Random(f"{seed}.{fault.number}.{fault.name}")
        ):
            injected.append(fault.name)
            _say(f"  {fault.number:3d} at line {lines:3d} (planned {fault.at}): {fault.name}")
        else:
            missed.append(fault)
    code = scene.end(scene.driver)
    if code != 0:
        raise Broken(f"the last driver ended with {code}:\n{scene.driver.said[-3000:]}")
    return injected, missed


def undisturbed(folder: Path) -> Path:
    """The same search in one process, without Ray; its run folder."""
    command = [
        str(Path(sys.executable).with_name("raysearch")),
        "run",
        str(JOB),
        "--pool",
        "local",
        "-q",
    ]
    where = ["--store", str(folder / "undisturbed"), "--tracking-uri", "none"]
    subprocess.run([*command, *where], check=True, cwd=folder, stdout=subprocess.DEVNULL)
    (run,) = (folder / "undisturbed").iterdir()
    return run


def chaos(folder: Path, seed: int, faults: int) -> Tally:
    """All searches of a seed; those faults that a search was over before fall into one more."""
    tally = Tally()
    with Closing() as closing:
        mlflow = closing.take(Mlflow(folder / "mlflow"))
        mlflow.start()
        nodes = closing.take(Nodes(folder / "ray", NODES))
        disk = closing.take(Disk(folder / "disk"))
        wanted = undisturbed(folder)
        mlflow.wait()
        left = schedule(seed, faults)
        while left:
            planned = left.pop(0)
            here = folder / f"search-{tally.searches}"
            here.mkdir()
            scene = closing.take(Scene(nodes, mlflow, disk, here, JOB, DEADLINE, NODES))
            _say(f"search {tally.searches}: {len(planned)} faults")
            try:
                injected, missed = disturb(scene, planned, seed)
            except Broken as e:
                tally.told.append(f"search {tally.searches} of seed {seed} did not survive: {e}")
                return tally
            difference = compare(wanted, scene.run)
            tally.take(injected, difference)
            _say(
                f"  {difference.lost} rows lost, {difference.twice} twice, {difference.other} "
                f"otherwise"
            )
            scene.close()
            shutil.move(scene.run, here / "run")
            if missed:
                lines = _lines(len(missed), random.Random(f"{seed}.again.{tally.searches}"))
                left.append(
                    [replace(fault, at=at) for fault, at in zip(missed, lines, strict=True)]
                )
    return tally


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--faults", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument(
        "--folder",
        type=Path,
        help="where runs and logs are left; by default they go with the program",
    )
    arguments = parser.parse_args()
    began = time.monotonic()
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(1)
    )  # so that whatever was started or mounted ends with us
    with tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True) as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(exist_ok=True)
        tally = chaos(folder, arguments.seed, arguments.faults)
    for line in tally.told:
        _say(line)
    _say(f"seed {arguments.seed}: {tally.times.total()} faults in {time.monotonic() - began:.0f} s")
    print(json.dumps(vars(tally)) if arguments.json else tally.table())
    return 1 if tally.told or tally.lost.total() + tally.twice.total() + tally.other.total() else 0


if __name__ == "__main__":
    sys.exit(main())
