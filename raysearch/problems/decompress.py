"""Opens a file and unpacks it if it is packed (gzip, bzip2, xz, Zstandard, LZ4), whatever its name.

Invariants: a truncated or damaged file is refused; a file of a kind that holds no pairs (a
spreadsheet, a database) is refused by name.
"""

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from raysearch.errors import PairsError
from raysearch.problems.unpacked_size import CountedFile
from raysearch.visible_text import one_line

_WRITE = 'write JSON lines, or Parquet (pandas: to_json(path, orient="records", lines=True))'
_FOREIGN = {
    b"PK\x03\x04": "a zip archive or a spreadsheet",
    b"ORC": "ORC",
    b"PARE": "encrypted Parquet",
    b"\x89HDF": "HDF5",
    b"SQLite": "a SQLite database",
    b"Obj\x01": "Avro",
    b"\x80": "a Python pickle, which is never opened",
    b"7z\xbc\xaf": "a 7z archive",
}
_TABLES = (".csv", ".tsv", ".xls", ".xlsx")
_PACKED: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
    b"\x28\xb5\x2f\xfd": lambda path: pa.input_stream(str(path), compression="zstd"),
    b"\x04\x22\x4d\x18": lambda path: pa.input_stream(str(path), compression="lz4"),
}


def read_head(path: Path) -> bytes:
    """Returns the first bytes of a file.

    Raises:
        PairsError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(8)
    except OSError as e:
        raise PairsError(f"{path}: cannot be read ({e.strerror}); give a file of pairs") from e


def refuse_foreign(path: Path, head: bytes) -> None:
    """Checks that a file is not of a kind that holds no pairs.

    Raises:
        PairsError: it is.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    what = next((name for magic, name in _FOREIGN.items() if head.startswith(magic)), None)
    if what is not None:
        raise PairsError(f"{path}: holds {what} and no pairs; {_WRITE}")
    if table := next((suffix for suffix in suffixes if suffix in _TABLES), None):
        raise PairsError(
            f"{path}: holds no pairs: they have fields within fields, which {table[1:].upper()} "
            f"cannot say; {_WRITE}"
        )
    if suffixes[-1:] == [".parquet"] and not head.startswith(b"PAR1"):
        raise PairsError(
            f"{path}: cannot be read as Parquet: it does not begin with PAR1; write it again, or "
            f"name it as what it is"
        )


@contextmanager
def open_unpacked(path: Path) -> Iterator[Any]:
    """Opens a file for reading its unpacked bytes.

    Raises:
        PairsError: it cannot be read or unpacked, or grows beyond its limit.
    """
    head = read_head(path)
    unpack = next((found for magic, found in _PACKED.items() if head.startswith(magic)), None)
    try:
        with path.open("rb") if unpack is None else unpack(path) as file:
            yield file if unpack is None else CountedFile(path, file)
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as e:
        raise PairsError(
            f"{path}: holds packed data that cannot be unpacked ({str(e)[:120]}); copy it again"
        ) from e
    except OSError as e:
        reason = e.strerror or one_line(e)
        what = "cannot be read" if unpack is None else "holds packed data that cannot be unpacked"
        raise PairsError(f"{path}: {what} ({reason}); give a file of pairs") from e
