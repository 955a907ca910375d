"""Writes the page of a run while its driver works, for those who look at it where it is kept.

Invariants: the driver gives it at most a hundredth of its time; what keeps the page from being
written is said once, and keeps no search from going on.
"""

import time
from collections.abc import Callable

from raysearch.errors import StoreError
from raysearch.report.results_table import read_table
from raysearch.storage.folder import Folder
from raysearch.viewer.page import FILE, write_page

LEAST = 60.0
"""Seconds between two pages, at least."""
REST = 100.0
"""A page is not written again for REST times as long as writing it took."""


class LivePage:
    """The page of a run that goes on.

    Args:
        say: takes a line for the user.
        clock: returns seconds, from any zero.
    """

    def __init__(
        self, run: Folder, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._run = run
        self._say = say
        self._clock = clock
        self._next = clock() + LEAST

    def tick(self) -> None:
        """Writes the page, if the last one is old enough. Cheap: call it at every turn."""
        if self._clock() >= self._next:
            self._write()

    def end(self) -> None:
        """Writes the page of a run that ended before it was done, if it has one already, which an
        earlier driver may have written."""
        if self._run.exists(FILE):
            self._write()

    def _write(self) -> None:
        began = self._clock()
        try:
            if read_table(self._run, "hypotheses", ("hypothesis",)).num_rows:
                write_page(self._run)
        except StoreError as e:
            self._say(f"no page of the search on its way: {e}")
            self._next = float("inf")
            return
        took = self._clock() - began
        self._next = self._clock() + max(LEAST, REST * took)
