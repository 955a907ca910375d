"""Files of pairs: JSONL, or the same columns in Parquet.

Invariants: a line that is not of the form is refused with its number and the field, nothing is skipped; a file without `split` is
dealt out by the ratio of the counts that the job asks, no (base, source) going to two splits; order is permuted by the seed.
"""

import json
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from raysearch.causal import ONE_SOURCE, Input, Pair, Split, split_of
from raysearch.errors import JobError, NotYetError, PairsError

NOT_YET_FIELDS = ("sources", "choices")


class _Fields(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Text(_Fields):
    text: str
    positions: dict[str, tuple[int, int]] = {}


class _Answers(_Fields):
    base: Annotated[str, Field(min_length=1)]
    source: Annotated[str, Field(min_length=1)]


class _Line(_Fields):
    base: _Text
    source: _Text
    answers: _Answers
    counterfactual: Annotated[dict[str, Annotated[str, Field(min_length=1)]], Field(min_length=1)]
    split: Split | None = None
    set: str | None = None


def read_pairs(path: Path, counts: Mapping[Split, int], seed: int) -> tuple[Pair, ...]:
    """All pairs of a file, in the order of the run. Raises: PairsError with line and field; JobError where it cannot be read."""
    if not path.is_file():
        raise JobError(f"problem.pairs: there is no file {path}; give a JSONL or Parquet file of pairs")
    rows = _parquet(path) if path.suffix == ".parquet" else _jsonl(path)
    lines = [(number, _parse(path, number, raw)) for number, raw in rows]
    if not lines:
        raise PairsError(f"{path}: holds no pairs; a search needs at least one line")
    _check_variables(path, lines)
    _check_splits(path, lines)
    dealt = [(number, line, line.split or _deal(line, counts, seed)) for number, line in lines]
    random.Random(f"{seed}.order").shuffle(dealt)
    return tuple(_pair(path, number, i, line, split) for i, (number, line, split) in enumerate(dealt))


def _jsonl(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise PairsError(f"{path}: cannot be read as text in UTF-8: {e}") from e
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except json.JSONDecodeError as e:
                raise PairsError(f"{path}: line {number}: is no JSON: {e.msg} at column {e.colno}") from e


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
        if isinstance(given, dict) and "tensor" in given:
            raise NotYetError(f"{path}: line {number}: {side}.tensor: not yet supported by this version; give text")
        positions = given.get("positions") if isinstance(given, dict) else None
        if isinstance(positions, dict) and any(isinstance(p, dict) for p in positions.values()):
            raise NotYetError(
                f"{path}: line {number}: {side}.positions: token indices are not yet supported; give [start, end)"
            )
    try:
        return _Line.model_validate(raw)
    except ValidationError as e:
        first = e.errors()[0]
        field = ".".join(str(k) for k in first["loc"])
        if first["type"] == "missing":
            raise PairsError(f"{path}: line {number}: {field}: missing") from e
        if first["type"] == "extra_forbidden":
            raise PairsError(f"{path}: line {number}: {field}: unknown field") from e
        raise PairsError(f"{path}: line {number}: {field}: {first['msg']} (got {first['input']!r})") from e


def _check_variables(path: Path, lines: list[tuple[int, _Line]]) -> None:
    first, wanted = lines[0][0], set(lines[0][1].counterfactual)
    for number, line in lines:
        got = set(line.counterfactual)
        if got != wanted:
            raise PairsError(
                f"{path}: line {number}: counterfactual: has {', '.join(sorted(got))}; line {first} has {', '.join(sorted(wanted))}; "
                "every line needs the same variables"
            )


def _check_splits(path: Path, lines: list[tuple[int, _Line]]) -> None:
    seen: dict[tuple[str, str], tuple[int, Split | None]] = {}
    for number, line in lines:
        key = line.base.text, line.source.text
        other, split = seen.setdefault(key, (number, line.split))
        if split != line.split:
            raise PairsError(
                f"{path}: line {number}: split: its base and source stand in line {other} too, under split {split!r}; "
                f"a pair may be in one split only (got {line.split!r})"
            )


def _deal(line: _Line, counts: Mapping[Split, int], seed: int) -> Split:
    return split_of((line.base.text, line.source.text), counts, seed)


def _pair(path: Path, number: int, index: int, line: _Line, split: Split) -> Pair:
    try:
        base, source = (Input(t.text, t.positions) for t in (line.base, line.source))
    except PairsError as e:
        raise PairsError(f"{path}: line {number}: {e}") from e
    answers = {"base": line.answers.base, ONE_SOURCE: line.answers.source}
    return Pair(index, base, {ONE_SOURCE: source}, answers, dict(line.counterfactual), split, line.set)
