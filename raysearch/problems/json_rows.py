"""Reads JSON files of pairs: one object a line, in blocks of lines; or one array of objects.

Invariants: a block is read into Arrow only if that gives the same as reading it line by line; blank
lines count as lines and hold nothing; a byte order mark is no part of the text.
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

from raysearch.errors import PairsError, check_memory
from raysearch.problems.decompress import open_unpacked
from raysearch.problems.strict_json import array_values, parse_json

BLOCK = 2**21
"""Size of a block, in bytes, approximately."""
DEEPEST = 64
"""Most brackets of a line that is read into Arrow, whose reader has no limit of its own."""
_HALVES = re.compile(rb"\\u[dD][89abAB]")
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


@dataclass(frozen=True)
class JsonLines:
    """Lines that are not blank.

    Args:
        numbers: their numbers, from 1.
        table: returns them as Arrow; None if that cannot be done.
        value: returns the value of the line at an index.
    """

    numbers: list[int]
    table: Callable[[], pa.Table | None]
    value: Callable[[int], Any]


def read_lines(path: Path) -> Iterator[JsonLines]:
    """Yields the lines of a file in blocks.

    Raises:
        PairsError: the file is neither UTF-8 nor UTF-16 with a byte order mark.
    """
    first, done = 1, 0
    with open_unpacked(path) as file:
        for block in _blocks(_utf8(path, file)):
            _check_utf8(path, block, done)
            raw = block.split(b"\n")
            full = [(number, line) for number, line in enumerate(raw, first) if line.strip()]
            first, done = first + block.count(b"\n"), done + len(block)
            if full:
                yield _lines(path, block, [n for n, _ in full], [line for _, line in full])


def _lines(path: Path, block: bytes, numbers: list[int], lines: list[bytes]) -> JsonLines:
    def value(at: int) -> Any:
        try:
            return parse_json(lines[at].decode().removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}"))
        except json.JSONDecodeError as e:
            raise PairsError(
                f"{path}: line {numbers[at]}: is no JSON: {e.msg} at column {e.colno}; give an "
                f"object a line"
            ) from e
        except ValueError as e:
            raise PairsError(f"{path}: line {numbers[at]}: {e}") from e

    return JsonLines(numbers, lambda: _table(block, lines), value)


def _table(block: bytes, lines: list[bytes]) -> pa.Table | None:
    """Returns the lines as Arrow; None if its reader is not reliable for them, or finds another
    number of objects.
    """
    if _HALVES.search(block) or not all(map(_is_shallow_object, lines)):
        return None  # a block that begins with null kills Arrow's reader (pyarrow 25)
    options = pyarrow.json.ReadOptions(use_threads=False, block_size=len(block) + 1)
    try:
        table = pyarrow.json.read_json(pa.BufferReader(block), read_options=options)
    except (pa.ArrowException, UnicodeDecodeError) as e:
        check_memory(e, "reading pairs")
        return None  # reading line by line says which line is wrong, and how
    return table if len(table) == len(lines) else None


def _is_shallow_object(line: bytes) -> bool:
    return line.lstrip()[:1] == b"{" and line.count(b"{") + line.count(b"[") <= DEEPEST


def array_entries(path: Path) -> Iterator[Any] | None:
    """Returns the entries of a file that is one JSON array; None if it does not start as one."""
    with open_unpacked(path) as file:
        head = b"".join(_up_to_text(_utf8(path, file)))
    return _entries(path) if head.lstrip()[:1] == b"[" else None


def _up_to_text(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yields the first chunks, up to one that is not blank."""
    for chunk in chunks:
        yield chunk
        if chunk.strip():
            return


def _entries(path: Path) -> Iterator[Any]:
    with open_unpacked(path) as file:
        content = b"".join(_utf8(path, file))
    _check_utf8(path, content, 0)
    entries = 0
    try:
        for value in array_values(content.decode()):
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
    """Yields the content in UTF-8, without its byte order mark."""
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
    """Joins chunks into blocks that end where lines end."""
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
