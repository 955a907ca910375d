"""The faults: what is done to a search that runs, one function for each.

Invariants: a fault says whether it was injected (a search may be over before); what it breaks that
does not come back by itself, it mends; the only chance is in the generator that it is given.
"""

import json
import random
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import psutil

from tests.cluster.chaos_world import Disk, Driver, Mlflow, Nodes

REFUSED = 2
"""The exit code of a driver that cannot write, or may not."""
PATIENCE = 300.0
"""Seconds without any new line of the journal after which a search is held to be stuck."""
PAGE = 4096


class Broken(Exception):  # noqa: N818  (not an error of ours: what chaos looks for)
    """The product did not survive: what, and after what."""


@dataclass
class Scene:
    """One search in its world. `address`, `store`: where its drivers are told to work."""

    nodes: Nodes
    mlflow: Mlflow
    disk: Disk
    folder: Path
    job: Path
    deadline: float
    replicas: int
    timers: list[threading.Timer] = field(default_factory=list)
    drivers: list[Driver] = field(default_factory=list)

    def begin(self) -> None:
        """The search starts, in a store without other runs."""
        sets = ["--set", f"resources.replicas={self.replicas}"]
        where = ["--store", str(self.store), "--tracking-uri", self.mlflow.uri]
        self._start("run", str(self.job), *sets, *where)

    def resume(self) -> Driver:
        """One more driver goes on with it."""
        return self._start("resume", str(self.run))

    @property
    def store(self) -> Path:
        return self.disk.path / "runs"

    @property
    def run(self) -> Path:
        (found,) = (p.parent for p in self.store.glob("*/run.json"))
        return found

    @property
    def driver(self) -> Driver:
        return self.drivers[-1]

    @property
    def orders(self) -> Path:
        return self.folder / "orders"

    def later(self, seconds: float, do: Callable[[], None]) -> None:
        """`do` is done, whatever else goes on."""
        timer = threading.Timer(seconds, do)
        timer.start()
        self.timers.append(timer)

    def journal(self) -> list[Path]:
        """The files of the journal, the newest last."""
        return sorted(self.store.glob("*/journal/*/*.jsonl"))

    def lines(self) -> int:
        return sum(file.read_bytes().count(b"\n") for file in self.journal())

    def reach(self, lines: int) -> bool:
        """Waits for so many lines in the journal; False if the search ends before. Raises: Broken
        if it fails, or stands still."""
        seen, since = -1, time.monotonic()
        while (now := self.lines()) < lines:
            code = self.driver.code
            if code == 0:
                return False
            if code is not None:
                raise Broken(f"the driver ended with {code} by itself:\n{self.driver.said[-3000:]}")
            if now > seen:
                seen, since = now, time.monotonic()
            if time.monotonic() - since > PATIENCE:
                raise Broken(
                    f"no new line in {PATIENCE:.0f} s, at {now}:\n{self.driver.said[-3000:]}"
                )
            time.sleep(0.02)
        return True

    def end(self, driver: Driver) -> int:
        """The exit code of a driver that is about to end, whole and without a traceback. Raises:
        Broken."""
        try:
            code = driver.wait(PATIENCE)
        except subprocess.TimeoutExpired as e:
            raise Broken(f"a driver that should have ended did not: {driver.said[-3000:]}") from e
        if "Traceback" in driver.said:
            raise Broken(f"a driver ended with a traceback:\n{driver.said[-5000:]}")
        if driver.said.count("the search goes on without it") > 1:
            raise Broken(f"the loss of MLflow was said more than once:\n{driver.said[-3000:]}")
        return code

    def close(self) -> None:
        for timer in self.timers:
            timer.join()
        for driver in self.drivers:
            driver.kill()

    def _start(self, *arguments: str) -> Driver:
        flags = ["--address", self.nodes.address, "--no-color", "-v"]
        self.orders.mkdir(exist_ok=True)
        driver = Driver(self.folder, self.orders, self.deadline, [*arguments, *flags])
        self.drivers.append(driver)
        return driver


Fault = Callable[[Scene, random.Random], bool]


def workers_killed(count: int | None) -> Fault:
    """kill -9 of so many replicas at once (None: of all), be they at work, idle or loading."""

    def inject(scene: Scene, rng: random.Random) -> bool:
        there = scene.nodes.replicas()
        chosen = rng.sample(there, min(len(there), count or len(there)))
        for process in chosen:
            _quietly(process.kill)
        return bool(chosen)

    return inject


def node_lost(scene: Scene, rng: random.Random) -> bool:
    """kill -9 of a raylet; a new node joins."""
    scene.nodes.lose(rng.randrange(1000))
    scene.nodes.add()
    return True


def driver_killed(scene: Scene, rng: random.Random) -> bool:
    """kill -9; now and then the one that goes on is killed too, while it connects or loads."""
    if scene.driver.code is not None:
        return False
    scene.driver.kill()
    if rng.random() < 0.25:
        second = scene.resume()
        time.sleep(rng.uniform(1.0, 6.0))
        second.kill()
    scene.resume()
    return True


def driver_killed_at_a_part(scene: Scene, _: random.Random) -> bool:
    """kill -9 as soon as the journal says that a part is cut: before, while or after the part is
    written."""
    file = scene.journal()[-1]
    before = file.read_bytes().count(b'"type":"cut"')
    while scene.driver.code is None:
        if file.read_bytes().count(b'"type":"cut"') > before:
            scene.driver.kill()
            scene.resume()
            return True
        time.sleep(0.001)
    return False


def mlflow_killed(scene: Scene, rng: random.Random) -> bool:
    """kill -9 of the server; it is started again some seconds later, while drivers come and go."""
    scene.mlflow.kill()
    scene.later(rng.uniform(1.0, 10.0), scene.mlflow.start)
    return True


def disk_full(scene: Scene, rng: random.Random) -> bool:
    """No room but for some pages; now and then one goes on in vain; then there is room again."""
    if not scene.disk.mounted:
        return store_errors(scene, rng)
    scene.disk.fill(left=rng.choice((0, 0, PAGE, 2 * PAGE)))
    try:
        if not _refused(scene, "free the disk"):
            return False
        if rng.random() < 0.4:
            scene.resume()
            _refused(scene, "free the disk")
    finally:
        scene.disk.free()
    scene.resume()
    return True


def store_errors(scene: Scene, rng: random.Random) -> bool:
    """The store answers writes with an error (EFBIG), in the middle of a line, until the next
    driver."""
    size = scene.journal()[-1].stat().st_size
    try:
        scene.driver.allow(size + rng.randrange(1, 2000))
    except ProcessLookupError:
        return False
    if not _refused(scene, "File too large"):
        return False
    scene.resume()
    return True


def worker_slow(scene: Scene, rng: random.Random) -> bool:
    """SIGSTOP for a moment."""
    return _stopped(scene, rng, rng.uniform(0.5, 4.0))


def worker_past_its_deadline(scene: Scene, rng: random.Random) -> bool:
    """SIGSTOP for longer than a task may take."""
    return _stopped(scene, rng, scene.deadline + 5.0)


def answered_twice(otherwise: bool) -> Fault:
    """An event is told a second time, at once or a turn later; as it was, or with another answer."""

    def inject(scene: Scene, rng: random.Random) -> bool:
        order = scene.orders / f"{time.monotonic_ns()}.order"
        draft = order.with_suffix(".draft")
        draft.write_text(json.dumps({"otherwise": otherwise, "later": rng.random() < 0.5}))
        draft.rename(order)
        while scene.driver.code is None:
            if order.with_suffix(".done").exists():
                scene.reach(scene.lines() + 1)  # journalled by then, or the line before that was it
                return True
            time.sleep(0.02)
        order.unlink(missing_ok=True)
        return False

    return inject


def second_driver(scene: Scene, _: random.Random) -> bool:
    """A `resume` of a run that another driver works on: refused in one line. The first stands still
    meanwhile."""
    first = scene.driver
    if not first.stop():
        return False
    try:
        second = scene.resume()
        scene.drivers.remove(second)
        code = scene.end(second)
    finally:
        first.go_on()
    if (
        code != REFUSED
        or "works on it now" not in second.said
        or len(second.said.splitlines()) != 1
    ):
        raise Broken(f"a second driver was not refused in one line: {code}, {second.said[-3000:]}")
    return True


FAULTS: Mapping[str, Fault] = MappingProxyType(
    {
        "worker killed": workers_killed(1),
        "two workers killed at once": workers_killed(2),
        "all workers killed at once": workers_killed(None),
        "node lost": node_lost,
        "driver killed": driver_killed,
        "driver killed as it cuts a part": driver_killed_at_a_part,
        "MLflow server killed": mlflow_killed,
        "disk full": disk_full,
        "store answers errors": store_errors,
        "worker stopped for a while": worker_slow,
        "worker stopped past its deadline": worker_past_its_deadline,
        "answered twice": answered_twice(False),
        "answered twice, otherwise": answered_twice(True),
        "second driver on the run": second_driver,
    }
)


def _refused(scene: Scene, words: str) -> bool:
    """Waits for the driver to end because it cannot write; False if it was done before."""
    code = scene.end(scene.driver)
    if code == 0:
        return False
    if code != REFUSED or words not in scene.driver.said:
        raise Broken(f"a driver that cannot write ended with {code}:\n{scene.driver.said[-3000:]}")
    return True


def _stopped(scene: Scene, rng: random.Random, seconds: float) -> bool:
    there = scene.nodes.replicas()
    if not there:
        return False
    process = rng.choice(there)
    if not _quietly(process.suspend):
        return False
    scene.later(seconds, lambda: _quietly(process.resume) and None)
    return True


def _quietly(do: Callable[[], object]) -> bool:
    """Does it to a process, if that is still there."""
    try:
        do()
    except psutil.NoSuchProcess:
        return False
    return True
