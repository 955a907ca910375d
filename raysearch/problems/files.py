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

from raysearch.causal import ONE_SOURCE, Input, Pair, Split, lenders, split_of
from raysearch.errors import JobError, PairsError
from raysearch.in_words import brief, in_words
from raysearch.problems.json_line import json_of
from raysearch.problems.tensor_file import TensorFiles, file_of


class _Fields(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Tokens(_Fields):
    tokens: tuple[Annotated[int, Field(ge=0)], ...]


class _Text(_Fields):
    text: str
    positions: dict[
        str,
        Annotated[
            Annotated[tuple[int, int], Tag("span")] | Annotated[_Tokens, Tag("tokens")],
            Discriminator(lambda at: "tokens" if isinstance(at, dict) else "span"),
        ],
    ] = {}

    def input(self, _side: str, _tensors: TensorFiles) -> Input:
        spans = {name: at for name, at in self.positions.items() if isinstance(at, tuple)}
        tokens = {name: at.tokens for name, at in self.positions.items() if isinstance(at, _Tokens)}
        return Input(self.text, spans, tokens=tokens)


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


_Word = Annotated[str, Field(min_length=1)]


class _Line(_Fields):
    base: _Side
    source: _Side | None = None
    sources: Annotated[dict[_Word, _Side], Field(min_length=1)] | None = None
    answers: dict[str, _Word]
    counterfactual: Annotated[dict[_Word, _Word], Field(min_length=1)]
    split: Split | None = None
    set: str | None = None
    choices: tuple[_Word, ...] = ()

    @property
    def lending(self) -> dict[str, tuple[str, _Side]]:
        """Of each source, by name, the field that has it and what is there."""
        several = {name: (f"sources.{name}", side) for name, side in (self.sources or {}).items()}
        return several if self.source is None else {ONE_SOURCE: ("source", self.source), **several}


@dataclass(frozen=True)
class _Read:
    """A line, with its inputs."""

    number: int
    line: _Line
    base: Input
    sources: Mapping[str, Input]

    @property
    def contents(self) -> tuple[str, ...]:
        return self.base.content, *(source.content for source in self.sources.values())


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
        several = raw.get("sources") if isinstance(raw, dict) else None
        sides += several.values() if isinstance(several, dict) else ()
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
    try:
        line = _Line.model_validate(raw)
    except ValidationError as e:
        first = e.errors()[0]
        branches = {1: ("text", "tensor"), 4: ("span", "tokens") if "text" in first["loc"][1:2] else ()}
        if first["loc"][0] == "sources":
            branches = {2: ("text", "tensor"), 5: ("span", "tokens") if "text" in first["loc"][2:3] else ()}
        field = ".".join(str(k) for i, k in enumerate(first["loc"]) if k not in branches.get(i, ()))
        if first["type"] == "missing":
            raise PairsError(f"{path}: line {number}: {field}: missing; a pair needs it") from e
        if first["type"] == "extra_forbidden":
            raise PairsError(f"{path}: line {number}: {_shown(field)}: unknown field; leave it out") from e
        what = in_words(first)
        raise PairsError(f"{path}: line {number}: {_shown(field)}: {what} (got {brief(first['input'])})") from e
    try:
        _check_sources(line)
    except PairsError as e:
        raise PairsError(f"{path}: line {number}: {e}") from e
    return line


def _check_sources(line: _Line) -> None:
    """Raises: PairsError where answers or counterfactuals do not go with the sources."""
    if (line.source is None) == (line.sources is None):
        raise PairsError(
            "source: missing; a pair needs it" if line.source is None else "source: give it or sources, not both"
        )
    names = tuple(line.lending)
    wrong = next(
        (name for name in names if name == "base" or "," in name or "<-" in name or name != name.strip()), None
    )
    if wrong is not None:
        raise PairsError(
            f'sources.{_shown(wrong)}: is no name of a source; give one without "<-" and commas, and not "base"'
        )
    for name in ("base", *names):
        if name not in line.answers:
            raise PairsError(f"answers.{_shown(name)}: missing; a pair needs it")
    for name in line.answers:
        if name not in ("base", *names):
            raise PairsError(f"answers.{_shown(name)}: unknown field; answers are of base, {', '.join(names)}")
    for variable in line.counterfactual:
        lent = lenders(variable)
        if any(name not in names for name in lent) or (len(names) > 1 and not lent):
            raise PairsError(
                f"counterfactual.{_shown(variable)}: does not say which of {', '.join(names)} lends each variable; write it as "
                f'"{_shown(variable.partition("<-")[0])}<-{names[0]}", several with commas between'
            )


def _shown(field: str) -> str:
    return field if len(field) <= 100 else f"{field[:96]} ..."


def line_of(path: Path, index: int, seed: int) -> int:
    """The line on which the pair `index` of `read_pairs` stands."""
    numbers = [number for number, _ in _rows(path)]
    random.Random(f"{seed}.order").shuffle(numbers)
    return numbers[index]


def _read(path: Path, number: int, line: _Line, tensors: TensorFiles) -> _Read:
    try:
        sources = {name: side.input(field, tensors) for name, (field, side) in line.lending.items()}
        return _Read(number, line, line.base.input("base", tensors), sources)
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
        if set(read.sources) != set(lines[0].sources):
            raise PairsError(
                f"{path}: line {read.number}: sources: has {', '.join(read.sources)}; line {first} has "
                f"{', '.join(lines[0].sources)}; every line needs the same"
            )


def _check_splits(path: Path, lines: list[_Read]) -> None:
    seen: dict[tuple[str, ...], tuple[int, Split | None]] = {}
    for read in lines:
        other, split = seen.setdefault(read.contents, (read.number, read.line.split))
        if split != read.line.split:
            raise PairsError(
                f"{path}: line {read.number}: split: its base and source stand in line {other} too, under split {split!r}; "
                f"a pair may be in one split only (got {read.line.split!r})"
            )


def _pair(index: int, read: _Read, split: Split) -> Pair:
    line = read.line
    answers = {name: line.answers[name] for name in ("base", *read.sources)}
    return Pair(index, read.base, dict(read.sources), answers, dict(line.counterfactual), split, line.set, line.choices)
