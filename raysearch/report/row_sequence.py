"""The rows of a table as a sequence of dicts.

Invariants: few rows are Python objects at once, however many the table has; one is about 3 KB. A
choice or another order of rows is their numbers, not a copy of the table.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

TableRow = Mapping[str, Any]
AT_ONCE = 1000
"""Rows that are Python objects at once."""


class Rows(Sequence[TableRow]):
    """A sequence of rows of a table.

    Args:
        numbers: of the rows, in their order; None: all, as they stand.
    """

    def __init__(self, table: pa.Table, numbers: pa.Array | None = None) -> None:
        self._whole = table
        self._numbers = numbers

    @property
    def table(self) -> pa.Table:
        """The rows as a table; a copy, where they are some or in another order."""
        return self._whole if self._numbers is None else self._whole.take(self._numbers)

    def __len__(self) -> int:
        return int(self._whole.num_rows if self._numbers is None else len(self._numbers))

    @overload
    def __getitem__(self, at: int) -> TableRow: ...

    @overload
    def __getitem__(self, at: slice) -> "Rows": ...

    def __getitem__(self, at: int | slice) -> "TableRow | Rows":
        if isinstance(at, slice):
            return self.take(range(len(self))[at])
        row: TableRow = self.take([range(len(self))[at]]).table.to_pylist()[0]
        return row

    def __iter__(self) -> Iterator[TableRow]:
        for first in range(0, len(self), AT_ONCE):
            yield from self._slice(first).table.to_pylist()

    def __add__(self, others: "Rows") -> "Rows":
        """Returns these rows and then others of the same table."""
        assert self._whole is others._whole
        return Rows(self._whole, pa.concat_arrays([self._all_numbers(), others._all_numbers()]))

    def take(self, indices: Sequence[int]) -> "Rows":
        """Returns the rows at `indices`, in their order."""
        return self._take(pa.array(indices, pa.int64()))

    def places(self, column: str, *values: Any) -> pa.Array:
        """Returns where the rows are that have one of the values in a column; None is a value
        too."""
        own = self.column(column)
        found = pc.is_in(own, pa.array(values, own.type))
        return pa.array(np.flatnonzero(found.to_numpy()), pa.int64())

    def where(self, column: str, *values: Any) -> "Rows":
        """Returns the rows that have one of the values in a column; None is a value too."""
        found = self.places(column, *values)
        return self if len(found) == len(self) else self._take(found)

    def in_order_of(self, column: str, order: pa.ChunkedArray) -> "Rows":
        """Returns the rows in the order that their values of a column have in `order`."""
        at = pc.index_in(self.column(column), order.combine_chunks())
        return self._take(pc.sort_indices(at).cast(pa.int64()))

    def only(self, *columns: str) -> "Rows":
        """Returns the rows with these columns alone."""
        return Rows(self._whole.select(columns), self._numbers)

    def column(self, name: str) -> pa.ChunkedArray:
        """Returns a column."""
        return self.only(name).table[name]

    def values(self, column: str) -> list[Any]:
        """Returns the different values of a column, in the order in which they come first."""
        found: list[Any] = pc.unique(self.column(column)).to_pylist()
        return found

    def _take(self, places: pa.Array) -> "Rows":
        own = self._numbers
        return Rows(self._whole, places if own is None else own.take(places))

    def _slice(self, first: int) -> "Rows":
        if self._numbers is None:
            return Rows(self._whole.slice(first, AT_ONCE))
        return Rows(self._whole, self._numbers.slice(first, AT_ONCE))

    def _all_numbers(self) -> pa.Array:
        return pa.array(range(len(self)), pa.int64()) if self._numbers is None else self._numbers
