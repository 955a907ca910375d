"""Detects that the driver's Ray has died and reports it, before Ray ends the process silently.

Why: a driver whose GCS is gone blocks in its next call to Ray, and after a minute Ray's own code
ends the process (exit code 1, no Python runs any more; Ray 2.60). When the raylet of a one-node Ray
dies, the driver waits for workers that cannot come.

Invariants: every call to Ray is made inside `guard`, which raises when Ray is dead; only a stuck
call ends the process.
"""

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from raysearch.errors import ClusterError
from raysearch.visible_text import visible

CHECK_SECONDS = 0.5
"""Time between two checks of the thread; `guard` also checks."""
STUCK_SECONDS = 15.0
"""A call to a dead Ray that takes this long will not return."""


class DeadParts(Protocol):
    """Returns a description of what is dead, or None."""

    def __call__(self) -> str | None: ...


class Process(Protocol):
    """A child process, such as subprocess.Popen."""

    pid: int

    def poll(self) -> int | None: ...


class RayWatch:
    """Watches a Ray from a thread, and ends the process when a call to a dead Ray is stuck.

    `find_dead`: polled for what is dead; `stuck`: seconds after which such a call is given up;
    `end`: ends the process with an exit code.
    """

    def __init__(
        self,
        find_dead: DeadParts,
        stuck: float = STUCK_SECONDS,
        end: Callable[[int], object] = os._exit,
    ) -> None:
        self._find_dead = find_dead
        self._stuck = stuck
        self._end_process = end
        self._called_at: float | None = None
        self._on_exit: Callable[[], None] = lambda: None
        self._over = threading.Event()
        threading.Thread(target=self._watch, name="ray-watch", daemon=True).start()

    def close(self) -> None:
        """Stops watching."""
        self._over.set()

    def before_exit(self, say: Callable[[], None]) -> None:
        """Registers `say`, called before the process is ended, to print how to continue."""
        self._on_exit = say

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Guards calls to Ray. Raises: ClusterError when Ray is dead, before or after them."""
        self.check()
        self._called_at = time.monotonic()
        try:
            yield
        finally:
            self._called_at = None
        self.check()

    def check(self) -> None:
        """Raises ClusterError when Ray is dead."""
        dead = self._find_dead()
        if dead is not None:
            raise ClusterError(_death_message(dead))

    def _watch(self) -> None:
        while not self._over.wait(CHECK_SECONDS):
            dead, called_at = self._find_dead(), self._called_at
            if (
                dead is not None
                and called_at is not None
                and time.monotonic() - called_at > self._stuck
            ):
                print(f"raysearch: {visible(_death_message(dead))}", file=sys.stderr)
                self._on_exit()
                sys.stderr.flush()
                self._end_process(ClusterError.exit_code)
                return


def watch_processes(processes: Mapping[str, Process]) -> DeadParts:
    """Returns a check for dead child processes of our own Ray; the keys name them in an error."""

    def find_dead() -> str | None:
        for name, process in processes.items():
            code = process.poll()
            if code is not None:
                how = (
                    f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
                )
                return f"{name} of this search's own Ray (process {process.pid}) {how}"
        return None

    return find_dead


class AddressWatch:
    """Checks whether a cluster's GCS at HOST:PORT accepts connections; dead after `seconds`
    without."""

    def __init__(
        self,
        address: str,
        seconds: float,
        every: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._host, _, port = address.rpartition(":")
        self._address, self._port, self._seconds, self._every, self._clock = (
            address,
            int(port),
            seconds,
            every,
            clock,
        )
        self._tried = clock()
        self._silent_since: float | None = None
        self._lock = threading.Lock()

    def __call__(self) -> str | None:
        with self._lock:
            now = self._clock()
            if now - self._tried >= self._every:
                self._tried = now
                if self._answers():
                    self._silent_since = None
                elif self._silent_since is None:
                    self._silent_since = now
            silent = self._silent_since is not None and now - self._silent_since >= self._seconds
        return (
            f"Ray's head at {self._address} has taken no connection for {self._seconds:.0f} s"
            if silent
            else None
        )

    def _answers(self) -> bool:
        try:
            socket.create_connection((self._host.strip("[]"), self._port), timeout=2.0).close()
        except OSError:
            return False
        return True


def _death_message(dead: str) -> str:
    return (
        f"{dead}: out of memory, or ended from outside? When that is mended, `raysearch resume` "
        f"goes on with the run, whose journal has all "
        "that was seen; where none had begun, give the command again"
    )
