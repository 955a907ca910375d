"""Files of pairs: JSONL, or the same columns in Parquet; inputs are texts, or tensors in safetensors files beside it.

Invariants: a line that is not of the form is refused with its number and the field, nothing is skipped; a file without `split` is
dealt out by the ratio of the counts that the job asks, no (base, source) going to two splits; order is permuted by the seed.
"""

import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError

from raysearch.causal import ONE_SOURCE, Input, Pair, Split, split_of
from raysearch.errors import JobError, NotYetError, PairsError
from raysearch.in_words import brief, in_words
from raysearch.problems.json_line import json_of
from raysearch.problems.tensor_file import TensorFiles, file_of

NOT_YET_FIELDS = ("sources", "choices")


class _Fields(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Text(_Fields):
    text: str
    positions: dict[str, tuple[int, int]] = {}

    def input(self, _side: str, _tensors: TensorFiles) -> Input:
        return Input(self.text, self.positions)


class _Tokens(_Fields):
    tokens: tuple[Annotated[int, Field(ge=0)], ...]


class _Tensor(_Fields):
    tensor: str
    positions: dict[str, _Tokens] = {}

    def input(self, side: str, tensors: TensorFiles) -> Input:
        tokens = {name: at.tokens for name, at in self.positions.items()}
        try:
            stimulus = tensors[self.tensor]
        except PairsError as e:
            raise PairsError(f"{side}.tensor: {e}") from e
        return Input(stimulus=stimulus, tokens=tokens)


def _kind(side: Any) -> str:
    return "tensor" if isinstance(side, dict) and "tensor" in side else "text"


_Side = Annotated[Annotated[_Text, Tag("text")] | Annotated[_Tensor, Tag("tensor")], Discriminator(_kind)]


class _Answers(_Fields):
    base: Annotated[str, Field(min_length=1)]
    source: Annotated[str, Field(min_length=1)]


class _Line(_Fields):
    base: _Side
    source: _Side
    answers: _Answers
    counterfactual: Annotated[dict[str, Annotated[str, Field(min_length=1)]], Field(min_length=1)]
    split: Split | None = None
    set: str | None = None


@dataclass(frozen=True)
class _Read:
    """A line, with its inputs."""

    number: int
    line: _Line
    base: Input
    source: Input

    @property
    def contents(self) -> tuple[str, str]:
        return self.base.content, self.source.content


def read_pairs(path: Path, counts: Mapping[Split, int], seed: int) -> tuple[Pair, ...]:
    """All pairs of a file, in the order of the run. Raises: PairsError with line and field; JobError where it cannot be read."""
    tensors = TensorFiles(path.parent)
    lines = [_read(path, number, _parse(path, number, raw), tensors) for number, raw in _rows(path)]
    if not lines:
        raise PairsError(f"{path}: holds no pairs; a search needs at least one line")
    _check_variables(path, lines)
    _check_splits(path, lines)
    dealt = [(read, read.line.split or split_of(read.contents, counts, seed)) for read in lines]
    random.Random(f"{seed}.order").shuffle(dealt)
    return tuple(_pair(i, read, split) for i, (read, split) in enumerate(dealt))


def tensor_names(path: Path) -> tuple[str, ...]:
    """The files of tensors that a file of pairs names, as written there. Raises: JobError, PairsError where it cannot be read."""
    names: dict[str, None] = {}
    for _, raw in _rows(path):
        sides = [raw.get(side) for side in ("base", "source")] if isinstance(raw, dict) else []
        named = [side["tensor"] for side in sides if isinstance(side, dict) and isinstance(side.get("tensor"), str)]
        names |= {file: None for file in map(file_of, named) if file is not None}
    return tuple(names)


def _rows(path: Path) -> Iterator[tuple[int, Any]]:
    if not path.is_file():
        raise JobError(f"problem.pairs: there is no file {path}; give a JSONL or Parquet file of pairs")
    return _parquet(path) if path.suffix == ".parquet" else _jsonl(path)


def _jsonl(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as e:
        raise PairsError(
            f"{path}: is no text in UTF-8 (byte {e.start}); give JSON lines, or name a .parquet file"
        ) from e
    except OSError as e:
        raise PairsError(f"{path}: cannot be read ({e.strerror}); give a file of pairs") from e
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield number, json_of(line)
            except json.JSONDecodeError as e:
                raise PairsError(
                    f"{path}: line {number}: is no JSON: {e.msg} at column {e.colno}; give an object a line"
                ) from e
            except ValueError as e:
                raise PairsError(f"{path}: line {number}: {e}") from e


def _parquet(path: Path) -> Iterator[tuple[int, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(path).to_pylist(maps_as_pydicts="strict")
    except (OSError, pa.ArrowException) as e:
        raise PairsError(f"{path}: cannot be read as Parquet: {' '.join(str(e).split())}") from e
    for number, row in enumerate(rows, 1):
        yield number, _without_nulls(row)


def _without_nulls(value: Any) -> Any:
    """Parquet structs have every field in every row; what a row lacks is null there."""
    if isinstance(value, dict):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None}
    return value


def _parse(path: Path, number: int, raw: Any) -> _Line:
    if not isinstance(raw, dict):
        raise PairsError(
            f"{path}: line {number}: is {type(raw).__name__}; a pair is an object with base, source, answers, counterfactual"
        )
    for field in NOT_YET_FIELDS:
        if field in raw:
            raise NotYetError(f"{path}: line {number}: {field}: not yet supported by this version")
    for side in ("base", "source"):
        given = raw.get(side)
        positions = given.get("positions") if isinstance(given, dict) and "tensor" not in given else None
        if isinstance(positions, dict) and any(isinstance(p, dict) for p in positions.values()):
            raise NotYetError(
                f"{path}: line {number}: {side}.positions: token indices are not yet supported; give [start, end)"
            )
    try:
        return _Line.model_validate(raw)
    except ValidationError as e:
        first = e.errors()[0]
        field = ".".join(str(k) for i, k in enumerate(first["loc"]) if not (i == 1 and k in ("text", "tensor")))
        if first["type"] == "missing":
            raise PairsError(f"{path}: line {number}: {field}: missing; a pair needs it") from e
        if first["type"] == "extra_forbidden":
            raise PairsError(f"{path}: line {number}: {_shown(field)}: unknown field; leave it out") from e
        what = in_words(first)
        raise PairsError(f"{path}: line {number}: {_shown(field)}: {what} (got {brief(first['input'])})") from e


def _shown(field: str) -> str:
    return field if len(field) <= 100 else f"{field[:96]} ..."


def line_of(path: Path, index: int, seed: int) -> int:
    """The line on which the pair `index` of `read_pairs` stands."""
    numbers = [number for number, _ in _rows(path)]
    random.Random(f"{seed}.order").shuffle(numbers)
    return numbers[index]


def _read(path: Path, number: int, line: _Line, tensors: TensorFiles) -> _Read:
    try:
        return _Read(number, line, line.base.input("base", tensors), line.source.input("source", tensors))
    except PairsError as e:
        raise PairsError(f"{path}: line {number}: {e}") from e


def _check_variables(path: Path, lines: list[_Read]) -> None:
    first, wanted = lines[0].number, set(lines[0].line.counterfactual)
    for read in lines:
        got = set(read.line.counterfactual)
        if got != wanted:
            raise PairsError(
                f"{path}: line {read.number}: counterfactual: has {', '.join(sorted(got))}; line {first} has "
                f"{', '.join(sorted(wanted))}; every line needs the same variables"
            )


def _check_splits(path: Path, lines: list[_Read]) -> None:
    seen: dict[tuple[str, str], tuple[int, Split | None]] = {}
    for read in lines:
        other, split = seen.setdefault(read.contents, (read.number, read.line.split))
        if split != read.line.split:
            raise PairsError(
                f"{path}: line {read.number}: split: its base and source stand in line {other} too, under split {split!r}; "
                f"a pair may be in one split only (got {read.line.split!r})"
            )


def _pair(index: int, read: _Read, split: Split) -> Pair:
    line = read.line
    answers = {"base": line.answers.base, ONE_SOURCE: line.answers.source}
    return Pair(index, read.base, {ONE_SOURCE: read.source}, answers, dict(line.counterfactual), split, line.set)
