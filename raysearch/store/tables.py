"""Rows on their way to Parquet parts, closed at 50,000 rows or 30 s, each cut journalled before its
part is written.

Invariants:
- a cut counts rows, those taken back too (withdrawn.py), and rows come in the same order in every
  replay: so a replay fills the same parts, under the same names, wherever the driver died, and
  whenever the rows come (a part that is there already is overwritten by its equal, or by what a
  retry leaves of it);
- parts are written whole; the names of a table's parts sort in the order of its rows;
- what was merged (compact.py) is served until a replay has written the parts anew that it was
  merged from, and then goes.
"""

import re
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import pyarrow as pa

from raysearch.errors import StoreError
from raysearch.storage.folder import Folder
from raysearch.storage.parquet import PART, base_of, is_merged, to_parquet
from raysearch.store.codec import Cut

MAX_ROWS = 50_000
MAX_SECONDS = 30.0
PACK_ROWS = 1_000
"""So many rows wait as Python objects (about 2 KiB each), the others of their part as Arrow."""
_PART_NAME = re.compile(
    r"^\d{8}T\d{6}\.\d{6}Z-[0-9a-f]{6}-\d{8}-\d{8}(\.[0-9a-f]{64})?(\.merged)?\.parquet$"
)


class TableWriter:
    """The parts of one table, in `folder`.

    `journalled`: the cuts that the journal holds already, which the rows to come fill first.
    `cut(table, rows, content)`: makes a cut durable, then writes its part. `write(table, name,
    content)`: writes the part of a journalled cut, unless a later driver is there, which may have
    taken rows back. `clock`: seconds, from any zero.
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
        _make_clean(folder, {c.part for c in self._journalled})

    def add(self, row: dict[str, Any]) -> None:
        """Keeps a row; writes a part if it is full. Raises: StoreError if it cannot be written."""
        self._rows.append(row)
        if len(self._rows) == PACK_ROWS:
            self._pack()
        self._counted()

    def pass_over(self) -> None:
        """Counts a row that was taken back: its cut, made before or after that, has a place for it,
        and its part does not hold it.

        Raises: StoreError as `add`.
        """
        self._counted()

    def _counted(self) -> None:
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
        """Closes a part whose first row is `max_seconds` old. Raises: StoreError if it cannot be
        written."""
        if self._count and self._clock() - self._since >= self._max_seconds:
            self.flush()

    def flush(self) -> None:
        """Closes the part begun, unless a journalled cut still waits for its rows. Raises:
        StoreError as `add`."""
        if self._count and not self._journalled:
            self._cut(self.table, self._count, self._content())
            self._count = 0

    def check_whole(self) -> None:
        """Raises: StoreError if a journalled part did not get its rows: then this search does not
        repeat the journal's."""
        if self._journalled:
            cut = self._journalled[0]
            raise StoreError(
                f"table {self.table}: the journal cut part {cut.part} at {cut.rows} rows, its "
                f"replay gave {self._count}; "
                "the search of this version does not repeat that run: resume it with the version "
                "that began it"
            )

    def _content(self) -> bytes:
        """The bytes of the rows that wait, which wait no more."""
        self._pack()
        table = pa.Table.from_batches(self._packed, schema=self._schema)
        self._packed = []
        return to_parquet(table)

    def _pack(self) -> None:
        if self._rows:
            self._packed.append(pa.RecordBatch.from_pylist(self._rows, schema=self._schema))
            self._rows = []


def _make_clean(folder: Folder, parts: set[str]) -> None:
    """Half-written files and parts that no cut of the journal names are gone from the folder."""
    folder.sweep()
    for name in folder.names():
        if _PART_NAME.match(name) and base_of(name) not in parts:
            folder.delete(name)


def _drop_merged(folder: Folder) -> None:
    """The parts that it was merged from are all there again, and others may follow that it does not
    hold."""
    for name in folder.names():
        if is_merged(name):
            folder.delete(name)
