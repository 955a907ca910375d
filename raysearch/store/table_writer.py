"""Writes table rows as Parquet parts of up to 50,000 rows or 30 s; each cut is journalled before
its part is written.

Invariants:

- a cut counts rows, including those that a retry takes back (retractions.py), and rows come in the
  same order in every replay. So a replay fills the same parts, under the same names, wherever the
  driver died and whenever the rows come (an existing part is replaced by an equal one, or by what a
  retry leaves of it);
- parts are written as a whole; the names of a table's parts sort in the order of its rows;
- a merged part (compact.py) is used until a replay has written again the parts that it was merged
  from, and is then deleted.
"""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import pyarrow as pa

from raysearch.errors import StoreError
from raysearch.storage.folder import Folder
from raysearch.storage.parquet import PART, base_of, is_merged, is_part, to_parquet
from raysearch.store.journal_codec import Cut

MAX_ROWS = 50_000
MAX_SECONDS = 30.0
PACK_ROWS = 1_000
"""Rows that wait as Python objects (about 2 KiB each); the others of their part wait as Arrow."""


class TableWriter:
    """Writes the parts of one table to `folder`.

    Args:
        journalled: cuts in the journal, which the next rows fill first.
        cut: `cut(table, rows, content)` journals a cut, then writes its part.
        write: `write(table, name, content)` writes the part of a journalled cut, unless a later
            driver is there, which may have taken rows back.
        clock: returns seconds, from any zero.
    """

    def __init__(
        self,
        folder: Folder,
        schema: pa.Schema,
        journalled: Iterable[Cut],
        cut: Callable[[str, int, bytes], None],
        write: Callable[[str, str, bytes], None],
        clock: Callable[[], float],
        max_rows: int = MAX_ROWS,
        max_seconds: float = MAX_SECONDS,
    ) -> None:
        self.table = folder.name
        self._folder = folder
        self._schema = schema
        self._journalled = deque(journalled)
        self._cut = cut
        self._write = write
        self._clock = clock
        self._max_rows = max_rows
        self._max_seconds = max_seconds
        self._rows: list[dict[str, Any]] = []
        self._packed: list[pa.RecordBatch] = []
        self._count = 0
        self._since = 0.0
        _delete_unknown_parts(folder, {c.part for c in self._journalled})

    def add(self, row: dict[str, Any]) -> None:
        """Adds a row, and writes a part if it is full.

        Raises:
            StoreError: it cannot be written.
        """
        self._rows.append(row)
        if len(self._rows) == PACK_ROWS:
            self._pack()
        self._count_row()

    def skip_row(self) -> None:
        """Counts a row that was taken back: its cut includes it, and its part does not.

        Raises:
            StoreError: as in `add`.
        """
        self._count_row()

    def _count_row(self) -> None:
        if not self._count:
            self._since = self._clock()
        self._count += 1
        if self._journalled:
            if self._count == self._journalled[0].rows:
                part = self._journalled.popleft().part
                self._write(self.table, f"{part}{PART}", self._content())
                self._count = 0
                if not self._journalled:
                    _drop_merged(self._folder)
        elif self._count >= self._max_rows:
            self.flush()

    def tick(self) -> None:
        """Closes a part whose first row is `max_seconds` old.

        Raises:
            StoreError: it cannot be written.
        """
        if self._count and self._clock() - self._since >= self._max_seconds:
            self.flush()

    def flush(self) -> None:
        """Closes the current part, unless a journalled cut still waits for rows.

        Raises:
            StoreError: as in `add`.
        """
        if self._count and not self._journalled:
            self._cut(self.table, self._count, self._content())
            self._count = 0

    def check_whole(self) -> None:
        """Checks that all journalled parts got their rows.

        Raises:
            StoreError: one did not, so this search does not repeat the journal's.
        """
        if self._journalled:
            cut = self._journalled[0]
            raise StoreError(
                f"table {self.table}: the journal cut part {cut.part} at {cut.rows} rows, its "
                f"replay gave {self._count}; the search of this version does not repeat that run: "
                "resume it with the version that began it"
            )

    def _content(self) -> bytes:
        """Returns the waiting rows as bytes, and clears them."""
        self._pack()
        table = pa.Table.from_batches(self._packed, schema=self._schema)
        self._packed = []
        return to_parquet(table)

    def _pack(self) -> None:
        if self._rows:
            self._packed.append(pa.RecordBatch.from_pylist(self._rows, schema=self._schema))
            self._rows = []


def _delete_unknown_parts(folder: Folder, parts: set[str]) -> None:
    """Deletes incomplete files, and parts that no cut of the journal names."""
    folder.sweep()
    for name in folder.names():
        if is_part(name) and base_of(name) not in parts:
            folder.delete(name)


def _drop_merged(folder: Folder) -> None:
    """Deletes the merged part, when all parts in it are there again and others may follow."""
    for name in folder.names():
        if is_merged(name):
            folder.delete(name)
