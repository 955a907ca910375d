"""A watch over the Ray that a driver needs: its death is said in our words, with the way to go on,
before Ray ends the process without any.

Why: a driver whose GCS is gone blocks in Ray's next call to it, and after a minute Ray's own code
ends the process (exit code 1, no Python runs any more; Ray 2.60). A dead raylet of a Ray of one
node leaves a driver that waits for workers that cannot come. Invariants: whoever calls Ray does so
inside `asking`, which raises where Ray is dead; only a call that is stuck is ended from here.
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

LOOK_SECONDS = 0.5
"""Between two looks of the thread; a call of the driver's looks by itself."""
STUCK_SECONDS = 15.0
"""A call to a dead Ray that took so long will not come back."""


class DeadParts(Protocol):
    """Says what is dead, in words; None while all is well."""

    def __call__(self) -> str | None: ...


class Process(Protocol):
    """A child process, as subprocess.Popen is one."""

    pid: int

    def poll(self) -> int | None: ...


class RayWatch:
    """`looked`: asked again and again. `stuck`: seconds until a call to what is dead is given up.
    `end`: ends the process."""

    def __init__(
        self,
        looked: DeadParts,
        stuck: float = STUCK_SECONDS,
        end: Callable[[int], object] = os._exit,
    ) -> None:
        self._looked = looked
        self._stuck = stuck
        self._end = end
        self._asked_at: float | None = None
        self._last_words: Callable[[], None] = lambda: None
        self._over = threading.Event()
        threading.Thread(target=self._watch, name="ray-vigil", daemon=True).start()

    def close(self) -> None:
        """Looks no more."""
        self._over.set()

    def last_words(self, say: Callable[[], None]) -> None:
        """`say` is called before the process is ended: it tells how to go on."""
        self._last_words = say

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Ray may be called while inside. Raises: ClusterError where it is dead, before or after."""
        self.check()
        self._asked_at = time.monotonic()
        try:
            yield
        finally:
            self._asked_at = None
        self.check()

    def check(self) -> None:
        """Raises: ClusterError where Ray is dead."""
        dead = self._looked()
        if dead is not None:
            raise ClusterError(_said(dead))

    def _watch(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            dead, asked_at = self._looked(), self._asked_at
            if (
                dead is not None
                and asked_at is not None
                and time.monotonic() - asked_at > self._stuck
            ):
                print(f"raysearch: {visible(_said(dead))}", file=sys.stderr)
                self._last_words()
                sys.stderr.flush()
                self._end(ClusterError.exit_code)
                return


def of_processes(processes: Mapping[str, Process]) -> DeadParts:
    """Of a Ray of our own: its processes, by what each is called in an error."""

    def looked() -> str | None:
        for name, process in processes.items():
            code = process.poll()
            if code is not None:
                how = (
                    f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
                )
                return f"{name} of this search's own Ray (process {process.pid}) {how}"
        return None

    return looked


class OfAddress:
    """Of a cluster: whether its GCS, at HOST:PORT, takes connections; dead once it has taken none
    for `seconds`."""

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


def _said(dead: str) -> str:
    return (
        f"{dead}: out of memory, or ended from outside? When that is mended, `raysearch resume` "
        f"goes on with the run, whose journal has all "
        "that was seen; where none had begun, give the command again"
    )
