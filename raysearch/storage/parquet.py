"""Arrow tables as the bytes of Parquet files, and back; and which files of a folder make its table.

Invariants: what is written is whole before it goes anywhere; a part that others were merged into
stands for all that sort before it, so that each row counts once, whether those are still there or
not.
"""

import re
from collections.abc import Iterable, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

PART = ".parquet"
MERGED = ".merged.parquet"
"""How the name of a part ends that others were merged into; before it stand the name of the last of
them, and the digest of its bytes."""
_DIGEST = re.compile(r"\.([0-9a-f]{64})$")


def to_parquet(table: pa.Table) -> bytes:
    """The bytes of a Parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue())


def from_parquet(content: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """The table of a Parquet file, or some columns of it. Raises: pyarrow's errors, KeyError for a
    file that is damaged."""
    return pq.ParquetFile(pa.BufferReader(content)).read(
        columns=None if columns is None else list(columns)
    )


def parts_that_count(names: Iterable[str]) -> list[str]:
    """Of the files of a table's folder those that make the table, in the order of its rows."""
    parts = sorted(
        n.removesuffix(PART) for n in names if n.endswith(PART) and not n.startswith("_")
    )
    merged = max((p for p in parts if is_merged(f"{p}{PART}")), default="")
    return [f"{p}{PART}" for p in parts if p >= merged]


def is_merged(name: str) -> bool:
    """Whether a file is a part that others were merged into."""
    return name.endswith(MERGED)


def merged_name(last: str, digest: str) -> str:
    """The name of the part with content of this SHA-256 that all parts until `last` are merged
    into."""
    return f"{base_of(last)}.{digest}{MERGED}"


def merged_digest(name: str) -> str | None:
    """The SHA-256 that a merged part says it has; None where an earlier version merged it."""
    found = _DIGEST.search(name.removesuffix(MERGED))
    return found and found[1]


def base_of(name: str) -> str:
    """The name of a part, or of the last that a merged one holds, without endings."""
    return _DIGEST.sub("", name.removesuffix(MERGED).removesuffix(PART))
