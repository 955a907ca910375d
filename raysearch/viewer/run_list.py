"""Lists the runs of a store, for a server that is asked for the list every few seconds.

Invariants: only a new driver changes a run whose driver has ended, so its line is read again when
it has one more; one thread reads at a time, and while reading takes long, seldom.
"""

import time
from collections.abc import Callable
from threading import Lock
from typing import Any

from raysearch.errors import RaysearchError
from raysearch.storage.folder import Folder
from raysearch.store.journal import drivers
from raysearch.store.run_folder import RunFolder, run_names
from raysearch.viewer.run_state import run_line

MOST_RUNS = 1000
"""Runs in the list: the newest."""
REST = 5.0
"""The list is not read again for REST times as long as reading it took."""
_GOING_ON = ("running", "unreadable")


class RunList:
    """The runs of a store, a line each. Several threads may ask for it.

    Args:
        clock: returns seconds, from any zero.
    """

    def __init__(self, store: Folder, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._lock = Lock()
        self._next = float("-inf")
        self._lines: dict[str, tuple[list[str], dict[str, Any]]] = {}
        self._read: dict[str, Any] = {}

    def read(self) -> dict[str, Any]:
        """Returns `runs`, a line for each run, the newest first; `of`: how many the store has."""
        with self._lock:
            began = self._clock()
            if began >= self._next:
                names = run_names(self._store)
                shown = names[: -MOST_RUNS - 1 : -1]
                self._lines = {name: self._line(name) for name in shown}
                self._read = {"runs": [line for _, line in self._lines.values()], "of": len(names)}
                took = self._clock() - began
                self._next = self._clock() + REST * took
            return self._read

    def _line(self, name: str) -> tuple[list[str], dict[str, Any]]:
        """Returns the drivers that a run has had, and its line."""
        try:
            had = drivers(RunFolder.open(self._store.at(name)).journal)
        except RaysearchError:
            had = []  # its line says why
        known, line = self._lines.get(name, ([], {"state": "running"}))
        if known == had and line["state"] not in _GOING_ON:
            return known, line
        return had, run_line(self._store, name)
