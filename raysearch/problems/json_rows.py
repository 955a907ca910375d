"""JSON as files of pairs hold it: an object a line, in blocks of lines; or one array of objects.

Invariants: a block is read into Arrow at once only where that is the same as reading it line by
line; blank lines count and hold nothing; a byte order mark is no part of the text.
"""

import codecs
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.json

from raysearch.errors import PairsError
from raysearch.problems.decompress import opened
from raysearch.problems.json_line import json_of, values_of

BLOCK = 2**21
"""Bytes of a block, about."""
DEEPEST = 64
"""Brackets of a line that is read into Arrow, whose reader nests as deep as it is told to."""
_HALVES = re.compile(rb"\\u[dD][89abAB]")
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


@dataclass(frozen=True)
class JsonLines:
    """Lines that are not blank: their numbers, from 1; the same as Arrow where that can be done
    (None else); and the value of each."""

    numbers: list[int]
    table: Callable[[], pa.Table | None]
    value: Callable[[int], Any]


def lines_of(path: Path) -> Iterator[JsonLines]:
    """The lines of a file in blocks. Raises: PairsError with the line for what is no UTF-8 (or
    UTF-16 with its mark)."""
    first, done = 1, 0
    with opened(path) as file:
        for block in _blocks(_utf8(path, file)):
            _check_utf8(path, block, done)
            raw = block.split(b"\n")
            kept = [(number, line) for number, line in enumerate(raw, first) if line.strip()]
            first, done = first + block.count(b"\n"), done + len(block)
            if kept:
                yield _lines(path, block, [n for n, _ in kept], [line for _, line in kept])


def _lines(path: Path, block: bytes, numbers: list[int], lines: list[bytes]) -> JsonLines:
    def value(at: int) -> Any:
        try:
            return json_of(lines[at].decode().removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}"))
        except json.JSONDecodeError as e:
            raise PairsError(
                f"{path}: line {numbers[at]}: is no JSON: {e.msg} at column {e.colno}; give an "
                f"object a line"
            ) from e
        except ValueError as e:
            raise PairsError(f"{path}: line {numbers[at]}: {e}") from e

    return JsonLines(numbers, lambda: _table(block, lines), value)


def _table(block: bytes, lines: list[bytes]) -> pa.Table | None:
    """The lines as Arrow; None where its reader is not to be trusted with them, or takes them for
    another number of objects."""
    if _HALVES.search(block) or not all(map(_is_shallow_object, lines)):
        return None  # a block that begins with null kills Arrow's reader (pyarrow 25)
    options = pyarrow.json.ReadOptions(use_threads=False, block_size=len(block) + 1)
    try:
        table = pyarrow.json.read_json(pa.BufferReader(block), read_options=options)
    except (pa.ArrowException, UnicodeDecodeError):
        return None  # read line by line, that says what is wrong with which
    return table if len(table) == len(lines) else None


def _is_shallow_object(line: bytes) -> bool:
    return line.lstrip()[:1] == b"{" and line.count(b"{") + line.count(b"[") <= DEEPEST


def arrays_of(path: Path) -> Iterator[Any] | None:
    """The entries of a file that is one JSON array; None where it does not begin as one."""
    with opened(path) as file:
        begun = b"".join(_some(_utf8(path, file)))
    return _entries(path) if begun.lstrip()[:1] == b"[" else None


def _some(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The first chunks, up to one that is not blank."""
    for chunk in chunks:
        yield chunk
        if chunk.strip():
            return


def _entries(path: Path) -> Iterator[Any]:
    with opened(path) as file:
        content = b"".join(_utf8(path, file))
    _check_utf8(path, content, 0)
    entries = 0
    try:
        for value in values_of(content.decode()):
            entries += 1
            yield value
    except json.JSONDecodeError as e:
        raise PairsError(
            f"{path}: holds no JSON array: {e.msg} at line {e.lineno}, column {e.colno}; give one "
            f"array of objects, or an object a line"
        ) from e
    except ValueError as e:
        raise PairsError(f"{path}: pair {entries + 1}: {e}") from e


def _utf8(path: Path, file: Any) -> Iterator[bytes]:
    """The content in UTF-8, without the mark that it may begin with."""
    chunk = file.read(BLOCK)
    encoding = next((name for mark, name in _MARKS.items() if chunk.startswith(mark)), None)
    if encoding is None:
        chunk = chunk.removeprefix(codecs.BOM_UTF8)
        while chunk:
            yield chunk
            chunk = file.read(BLOCK)
        return
    if len(chunk) <= 4:
        raise PairsError(
            f"{path}: holds the mark of {encoding.upper()} and no text; write pairs in UTF-8"
        )
    decoder = io.IncrementalNewlineDecoder(
        codecs.getincrementaldecoder(encoding)(), translate=False
    )
    try:
        while chunk:
            yield decoder.decode(chunk).encode()
            chunk = file.read(BLOCK)
        yield decoder.decode(b"", final=True).encode()
    except UnicodeError as e:
        raise PairsError(
            f"{path}: holds no text in {encoding.upper()}, as its first bytes say; write it in "
            f"UTF-8"
        ) from e


def _blocks(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The same, cut where lines end."""
    rest: list[bytes] = []
    for chunk in chunks:
        cut = chunk.rfind(b"\n") + 1
        if not cut:
            rest.append(chunk)
            continue
        yield b"".join([*rest, chunk[:cut]])
        rest = [chunk[cut:]]
    if last := b"".join(rest):
        yield last


def _check_utf8(path: Path, content: bytes, before: int) -> None:
    try:
        content.decode()
    except UnicodeDecodeError as e:
        raise PairsError(
            f"{path}: is no text in UTF-8 (byte {before + e.start}); give JSON lines, or name a "
            f".parquet file"
        ) from e
