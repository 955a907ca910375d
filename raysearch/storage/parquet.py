"""Arrow tables as Parquet bytes and back; and which files of a folder make its table.

Invariants: a file's bytes are complete before they are written anywhere; a merged part replaces all
parts that sort before it, so that each row counts once, whether those still exist or not.
"""

import re
from collections.abc import Iterable, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

PART = ".parquet"
MERGED = ".merged.parquet"
"""Suffix of a merged part; before it come the name of the last part in it and the digest of its
bytes.
"""
_PART_NAME = re.compile(
    r"^\d{8}T\d{6}\.\d{6}Z-[0-9a-f]{6}-\d{8}-\d{8}(\.[0-9a-f]{64})?(\.merged)?\.parquet$"
)
_DIGEST = re.compile(r"\.([0-9a-f]{64})$")


def to_parquet(table: pa.Table) -> bytes:
    """Returns the bytes of a Parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue())


def from_parquet(content: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """Returns the table of a Parquet file, or some of its columns.

    Raises:
        pa.ArrowException: the file is damaged.
        KeyError: the same.
    """
    return pq.ParquetFile(pa.BufferReader(content)).read(
        columns=None if columns is None else list(columns)
    )


def parts_that_count(names: Iterable[str]) -> list[str]:
    """Returns the files of a table's folder that make the table, in the order of its rows."""
    parts = sorted(n.removesuffix(PART) for n in names if is_part(n))
    merged = max((p for p in parts if is_merged(f"{p}{PART}")), default="")
    return [f"{p}{PART}" for p in parts if p >= merged]


def is_part(name: str) -> bool:
    """Says whether a file has the name of a part: one that was put there by hand is none."""
    return _PART_NAME.match(name) is not None


def is_merged(name: str) -> bool:
    """Says whether a file is a merged part."""
    return name.endswith(MERGED)


def merged_name(last: str, digest: str) -> str:
    """Returns the name of the part that merges all parts up to `last`, with content of this
    SHA-256.
    """
    return f"{base_of(last)}.{digest}{MERGED}"


def merged_digest(name: str) -> str | None:
    """Returns the SHA-256 in the name of a merged part; None if an older version merged it."""
    found = _DIGEST.search(name.removesuffix(MERGED))
    return found and found[1]


def base_of(name: str) -> str:
    """Returns the name of a part without suffixes; for a merged part, of the last part in it."""
    return _DIGEST.sub("", name.removesuffix(MERGED).removesuffix(PART))
