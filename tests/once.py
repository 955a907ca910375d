"""What is costly is made once in a session of tests, whichever of its workers asks for it first;
the others wait for it."""

import fcntl
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from raysearch.store.run_folder import find_run
from tests.command import DRAWN, environment, forked

ALONE = ("--pool", "local", "--tracking-uri", "none", "-q")


@dataclass(frozen=True)
class Once:
    """Makes folders in `folder`, which all workers of this session share. What is in them is for
    all: to be read, or copied."""

    folder: Path

    @classmethod
    def of_session(cls, factory: pytest.TempPathFactory, workers: bool) -> "Once":
        """`workers`: whether this is one of several: pytest-xdist gives each a folder within that
        of the session."""
        base = factory.getbasetemp()
        folder = (base.parent if workers else base) / "once"
        folder.mkdir(exist_ok=True)
        return cls(folder)

    def __call__(self, name: str, make: Callable[[Path], object]) -> Path:
        """The folder `name`, as `make` filled it. Who fails to make it raises; the next one who
        asks tries again."""
        made, done = self.folder / name, self.folder / f"{name}.done"
        with (self.folder / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # until it is closed, or this process has died
            if not done.exists():
                made.mkdir(exist_ok=True)
                make(made)
                done.touch()
        return made

    def searched(self, job: Path, *flags: str) -> Path:
        """The run folder of a search by the command line, in a process without Ray and MLflow."""

        def search(folder: Path) -> None:
            done = forked(("run", str(job), *ALONE, *flags), folder, environment(**DRAWN))
            assert done.returncode == 0, done.stderr

        asked = hashlib.sha256(repr((str(job), flags)).encode()).hexdigest()[:8]
        return find_run(self(f"{job.stem}-{asked}", search) / "runs", "latest").path
