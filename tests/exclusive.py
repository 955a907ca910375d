"""What a machine can hold once only, such as a Slurm whose jobs have fixed ports: one session of
tests at a time has it."""

import fcntl
import getpass
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def exclusive(what: str) -> Iterator[None]:
    """Waits until no other process of this user, of whatever checkout, is within `exclusive(what)`.
    A process that dies is out of it."""
    with (Path(tempfile.gettempdir()) / f"raysearch-tests-{getpass.getuser()}-{what}.lock").open(
        "w"
    ) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
