"""The rows of a table as a sequence of dicts.

Invariants: few rows are Python objects at once, however many the table has; one is about 3 KB.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

import pyarrow as pa
import pyarrow.compute as pc

Row = Mapping[str, Any]
AT_ONCE = 1000
"""Rows that are Python objects at once."""


class Rows(Sequence[Row]):
    """A sequence of rows; `table` holds them."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @overload
    def __getitem__(self, at: int) -> Row: ...

    @overload
    def __getitem__(self, at: slice) -> "Rows": ...

    def __getitem__(self, at: int | slice) -> "Row | Rows":
        if isinstance(at, slice):
            return self.take(range(len(self))[at])
        row: Row = self.take([range(len(self))[at]]).table.to_pylist()[0]
        return row

    def __iter__(self) -> Iterator[Row]:
        for batch in self.table.to_batches(max_chunksize=AT_ONCE):
            yield from batch.to_pylist()

    def take(self, indices: Sequence[int]) -> "Rows":
        """Returns the rows at `indices`, in their order."""
        return Rows(self.table.take(pa.array(indices, pa.int64())))

    def where(self, column: str, *values: Any) -> "Rows":
        """Returns the rows that have one of the values in a column; None is a value too."""
        found = pc.is_in(self.table[column], pa.array(values, self.table.schema.field(column).type))
        return self if pc.all(found).as_py() else Rows(self.table.filter(found))

    def in_order_of(self, column: str, order: pa.ChunkedArray) -> "Rows":
        """Returns the rows in the order that their values of a column have in `order`."""
        at = pc.index_in(self.table[column], order.combine_chunks())
        return Rows(self.table.take(pc.sort_indices(at)))

    def only(self, *columns: str) -> "Rows":
        """Returns the rows with these columns alone."""
        return Rows(self.table.select(columns))

    def values(self, column: str) -> list[Any]:
        """Returns the different values of a column, in the order in which they come first."""
        found: list[Any] = pc.unique(self.table[column]).to_pylist()
        return found
