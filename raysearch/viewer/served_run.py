"""The data of one run for a server: those of its page while that is of the same state, else made
from its tables.

Invariants: nothing is written; data are made again only when the run has changed, and while making
them takes long, seldom.
"""

import re
import time
from threading import Lock
from typing import Any

from raysearch.report.results_table import read_table
from raysearch.storage.folder import Folder
from raysearch.viewer.page import FILE, FOLDER, data_in, stamp_of
from raysearch.viewer.page_json import call, data_file
from raysearch.viewer.report_sections import sections
from raysearch.viewer.run_view import RunView, index_before_hypotheses

REST = 5.0
"""Data are not made again for REST times as long as making them took."""
MOST_MADE = 64
"""Files in memory."""
_NAME = re.compile(r"(cells|pairs)-(\d{1,9})")


class ServedRun:
    """The data of one run. Several threads may ask for them."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._lock = Lock()
        self._stamp = ""
        self._view: RunView | None = None
        self._made: dict[str, bytes] = {}
        self._inside: dict[str, str] | None = None
        self._next = 0.0

    def data(self, name: str) -> bytes | None:
        """Returns a data file by its name, such as "index" or "cells-3"; None if the run has none
        of that name. Raises: StoreError."""
        with self._lock:
            if name == "index" or not self._stamp:
                self._look()
            if name not in self._made:
                content = self._content(name)
                if content is None:
                    return None
                self._made[name] = content
                if len(self._made) > MOST_MADE:
                    del self._made[next(key for key in self._made if key != "index")]
            return self._made[name]

    def _look(self) -> None:
        """Forgets what was made, if the run has changed since."""
        stamp = stamp_of(self._folder)
        if stamp != self._stamp and time.monotonic() >= self._next:
            self._stamp, self._view, self._made = stamp, None, {}
            page = self._folder.read(FILE).decode() if self._folder.exists(FILE) else ""
            found, inside = data_in(page)
            self._inside = inside if found == stamp else None

    def _content(self, name: str) -> bytes | None:
        if self._inside is not None:
            if name in self._inside:
                return call(name, self._inside[name], self._stamp)
            beside, file = self._folder.at(FOLDER), f"{name}.js"
            return beside.read(file) if not self._inside and beside.exists(file) else None
        values = self._values(name)
        return None if values is None else data_file(name, values, self._stamp)

    def _values(self, name: str) -> Any:
        if self._view is None:
            if not read_table(self._folder, "hypotheses", ("hypothesis",)).num_rows:
                return index_before_hypotheses(self._folder) if name == "index" else None
            began = time.monotonic()
            self._view = RunView(self._folder)
            self._next = time.monotonic() + REST * (time.monotonic() - began)
        if name == "index":
            return self._view.index()
        if name == "report":
            return sections(self._view.data)
        found = _NAME.fullmatch(name)
        if found is None:
            return None
        of = self._view.cells if found[1] == "cells" else self._view.pairs
        return of(int(found[2])) or None
