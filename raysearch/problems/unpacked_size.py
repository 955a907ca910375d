"""Refuses a packed file of pairs that grows out of proportion when it is read.

Invariants: a file is refused before more than its limit is in memory.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from raysearch.errors import PairsError
from raysearch.limits import UNPACKED_BYTES, UNPACKED_TIMES

_HEADER_TYPE, _HEADER, _DICTIONARY, _RECORDS = 1, 2, 2, 3
"""Fields of a message's table, and two values of its header type (format/Message.fbs of Arrow)."""
_DICTIONARY_DATA, _BUFFERS, _COMPRESSION = 1, 2, 3
"""Fields of the tables of a dictionary batch and of a record batch."""


def allowed_bytes(path: Path) -> int:
    """Returns the bytes that the pairs of a file may take in memory."""
    return max(UNPACKED_BYTES, UNPACKED_TIMES * path.stat().st_size)


def check_size(path: Path, taken: int, allowed: int) -> None:
    """Raises: PairsError for a file that takes more memory than is allowed."""
    if taken > allowed:
        raise PairsError(
            f"{path}: takes {taken / 2**20:,.0f} MiB in memory or more, and of a file of its size "
            f"at most {allowed / 2**20:,.0f} MiB are read; write it as plain JSON lines, or in "
            "parts"
        )


class CountedFile:
    """An unpacked file that is read up to a limit. Raises: PairsError beyond it."""

    def __init__(self, path: Path, file: Any) -> None:
        self._path, self._file = path, file
        self._taken, self._allowed = 0, allowed_bytes(path)

    def read(self, size: int) -> bytes:
        """Returns the next bytes, at most `size` of them; none at the end."""
        chunk: bytes = self._file.read(size)
        self._taken += len(chunk)
        check_size(self._path, self._taken, self._allowed)
        return chunk


def check_arrow(path: Path, skipped: int) -> None:
    """Checks what the compressed buffers of an Arrow file say of their size.

    Args:
        skipped: the bytes before the first message.

    Raises:
        PairsError: they take more memory than is allowed.
        ArrowInvalid: the file is damaged.
    """
    allowed, taken = allowed_bytes(path), 0
    with pa.memory_map(str(path)) as file:
        file.seek(skipped)
        for message in pa.ipc.MessageReader.open_stream(file):
            try:
                taken += sum(_unpacked_sizes(message.metadata.to_pybytes(), message.body))
            except struct.error as e:
                raise pa.ArrowInvalid("a message has no buffers where it says") from e
            check_size(path, taken, allowed)


def _unpacked_sizes(metadata: bytes, body: Any) -> Iterator[int]:
    """Yields the size of each compressed buffer of a message, which its first 8 bytes say."""
    message = _indirect(metadata, 0)
    kind = _field(metadata, message, _HEADER_TYPE)
    if not kind or metadata[kind] not in (_DICTIONARY, _RECORDS):
        return
    batch = _indirect(metadata, _field(metadata, message, _HEADER))
    if metadata[kind] == _DICTIONARY:
        batch = _indirect(metadata, _field(metadata, batch, _DICTIONARY_DATA))
    if not _field(metadata, batch, _COMPRESSION):
        return
    buffers = _indirect(metadata, _field(metadata, batch, _BUFFERS))
    for i in range(*struct.unpack_from("<I", metadata, buffers)):
        start, length = struct.unpack_from("<qq", metadata, buffers + 4 + 16 * i)
        if length >= 8:
            yield max(0, *struct.unpack_from("<q", body, start))  # -1: not compressed


def _field(metadata: bytes, table: int, number: int) -> int:
    """Returns where a field of a FlatBuffers table is; 0 if the table lacks it."""
    fields = table - struct.unpack_from("<i", metadata, table)[0]
    (size,) = struct.unpack_from("<H", metadata, fields)
    at = 4 + 2 * number
    offset = struct.unpack_from("<H", metadata, fields + at)[0] if at < size else 0
    return table + offset if offset else 0


def _indirect(metadata: bytes, at: int) -> int:
    """Returns where the offset at a place points to."""
    return int(at + struct.unpack_from("<I", metadata, at)[0])
