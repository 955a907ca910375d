"""Arrow tables as the bytes of Parquet files, and back: what is written is whole before it goes anywhere."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq


def to_parquet(table: pa.Table) -> bytes:
    """The bytes of a Parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue())


def from_parquet(content: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """The table of a Parquet file, or some columns of it. Raises: pyarrow's errors, KeyError for a file that is damaged."""
    return pq.ParquetFile(pa.BufferReader(content)).read(columns=None if columns is None else list(columns))
