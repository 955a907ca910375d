"""Reads files of pairs in batches of rows: JSON lines or one JSON array, packed or not; Parquet;
Arrow.

Invariants: the format of a file is found by its first bytes, not its name; only one batch is in
memory at a time; a row is numbered by its line, row or place in an array; errors name file and
number.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from raysearch.errors import PairsError, check_memory
from raysearch.problems.decompress import read_head, refuse_foreign
from raysearch.problems.json_rows import array_entries, read_lines
from raysearch.problems.pair_parts import PairsPart
from raysearch.problems.unpacked_size import allowed_bytes, check_arrow, check_size

ROWS = 4096
"""Rows in a batch of a table."""


@dataclass(frozen=True)
class RowBatch:
    """Rows of a part.

    Args:
        word: what a row is called in an error.
        table: returns the rows as Arrow; None if they cannot be read so.
        value: returns the row at an index as plain values.
    """

    part: PairsPart
    word: str
    numbers: Sequence[int]
    table: Callable[[], pa.Table | None]
    value: Callable[[int], Any]

    def __len__(self) -> int:
        return len(self.numbers)

    def where(self, at: int) -> str:
        """Returns the file and number of the row at an index, for errors."""
        return f"{self.part.path}: {self.word} {self.numbers[at]}"

    def raw(self, at: int) -> Any:
        """Returns the row at an index, with the fields that its part gives.

        Raises:
            PairsError: it cannot be read.
        """
        value = self.value(at)
        return (
            {**self.part.given, **_without_nulls(value)}
            if self.part.given and isinstance(value, dict)
            else value
        )


def read_batches(part: PairsPart) -> Iterator[RowBatch]:
    """Yields the rows of a part.

    Raises:
        PairsError: it cannot be read.
    """
    head = read_head(part.path)
    refuse_foreign(part.path, head)
    if head.startswith(b"PAR1"):
        return _table_batches(part, "Parquet", _parquet)
    if head.startswith((b"ARROW1", b"FEA1", b"\xff\xff\xff\xff")):
        return _table_batches(part, "Arrow", _arrow)
    return _text_batches(part)


def _text_batches(part: PairsPart) -> Iterator[RowBatch]:
    array = array_entries(part.path)
    if array is not None:
        for number, value in enumerate(array, 1):
            yield RowBatch(part, "pair", (number,), _no_table, partial(_entry, value))
        return
    for block in read_lines(part.path):
        yield RowBatch(part, "line", block.numbers, block.table, block.value)


def _table_batches(
    part: PairsPart, what: str, read: Callable[[Path], Iterator[pa.RecordBatch]]
) -> Iterator[RowBatch]:
    first = 1
    try:
        for batch in read(part.path):
            table = _without_index(pa.Table.from_batches([batch]))
            numbers = range(first, first + len(table))
            first += len(table)
            yield RowBatch(part, "row", numbers, partial(_itself, table), partial(_value, table))
    except (OSError, pa.ArrowException, UnicodeDecodeError) as e:
        check_memory(e, f"reading {part.path}")
        raise PairsError(
            f"{part.path}: cannot be read as {what}: {' '.join(str(e).split())[:300]}"
        ) from e


def _parquet(path: Path) -> Iterator[pa.RecordBatch]:
    import pyarrow.parquet as pq

    allowed = allowed_bytes(path)
    with pq.ParquetFile(path) as file:
        metadata = file.metadata
        groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        taken = sum(group.total_byte_size for group in groups)
        check_size(path, taken, allowed)
        # A value may repeat at no cost on disk: none is larger than what its column chunk holds.
        largest = max((_largest(group) for group in groups), default=0)
        rows = max(1, min(ROWS, allowed // max(1, largest)))
        taken = 0
        for batch in file.iter_batches(batch_size=rows, use_threads=False):
            taken += batch.nbytes
            check_size(path, taken, allowed)
            yield batch


def _largest(group: Any) -> int:
    """Returns the bytes that a row of a row group may take in its largest column: each value at
    most those of its column chunk."""
    columns = [group.column(i) for i in range(group.num_columns)]
    values = max((-(-c.num_values // max(1, group.num_rows)) for c in columns), default=1)
    return max((c.total_uncompressed_size for c in columns), default=0) * max(1, values)


def _arrow(path: Path) -> Iterator[pa.RecordBatch]:
    import pyarrow.feather as feather

    with pa.OSFile(str(path)) as file:
        head = file.read(6)
        file.seek(0)
        if head.startswith(b"FEA1"):  # its buffers are never compressed
            found = feather.read_table(file).to_batches(max_chunksize=ROWS)
        elif head == b"ARROW1":
            check_arrow(path, 8)
            reader = pa.ipc.open_file(file)
            found = (reader.get_batch(i) for i in range(reader.num_record_batches))
        else:
            check_arrow(path, 0)
            found = iter(pa.ipc.open_stream(file))
        for batch in found:
            for start in range(0, len(batch), ROWS):
                yield batch.slice(start, ROWS)


def _without_index(table: pa.Table) -> pa.Table:
    """Returns the table without the columns of pandas' row labels, unless they are fields of a
    pair.
    """
    from raysearch.problems.pair_line import FIELDS, INDEX

    metadata = table.schema.pandas_metadata or {}
    labels = [name for name in metadata.get("index_columns", ()) if isinstance(name, str)]
    names = [
        n for n in table.column_names if INDEX.fullmatch(n) or (n in labels and n not in FIELDS)
    ]
    return table.drop_columns(list(dict.fromkeys(names)))


def _itself(table: pa.Table) -> pa.Table:
    return table


def _no_table() -> None:
    return None


def _entry(value: Any, _at: int) -> Any:
    return value


def _value(table: pa.Table, at: int) -> Any:
    (row,) = table.slice(at, 1).to_pylist(maps_as_pydicts="strict")
    return row


def _without_nulls(value: dict[str, Any]) -> dict[str, Any]:
    return {key: inner for key, inner in value.items() if inner is not None}
