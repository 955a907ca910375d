"""Files of pairs: JSON lines, or the same fields in Parquet or Arrow; texts, or tensors in
safetensors files.

Invariants: every line is checked, and an invalid one is refused with its number and field; lines
without `split` are assigned by the ratio of the counts that the job asks for; no (base, source) is
in two splits, unless lines are draws, each assigned by itself; the order is permuted by the seed;
of a large file, only as many pairs are stored as a search can ask for, and those left out are
counted.
"""

import random
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from raysearch.causal import (
    SPLITS,
    Input,
    LeftOutCount,
    Pair,
    PairSample,
    Split,
    digest_of,
    split_of_digest,
)
from raysearch.errors import PairsError
from raysearch.problems.batch_check import plain_pairs
from raysearch.problems.pair_line import PairLine, parse_line
from raysearch.problems.pair_parts import parts_of
from raysearch.problems.pair_rows import RowBatch, read_batches
from raysearch.problems.tensor_references import TensorFiles, file_of

SPARE = 16
"""Pairs of each split that are stored, as a multiple of those asked for, to replace those that the
model does not solve.
"""
FEWEST = 1024
"""Pairs of each split that are stored in any case."""


def read_pairs(path: Path, counts: Mapping[Split, int], seed: int) -> tuple[Pair, ...]:
    """Returns the pairs of a file, in the order of the run.

    Raises:
        PairsError: as in `read_sample`.
    """
    return read_sample(path, counts, seed).pairs


def read_sample(
    path: Path, counts: Mapping[Split, int], seed: int, by_line: bool = False
) -> PairSample:
    """Returns the pairs of a file (or folder of files) in the order of the run, and counts those
    left out.

    `index` of a pair is the place of its line in the permuted order of all lines.

    Args:
        by_line: assign each line by itself, whatever equal lines are assigned to, so that test
            lines are draws of whatever all lines are draws of.

    Raises:
        PairsError: a line is invalid; the text names line and field.
        JobError: the file cannot be read.
    """
    tensors = TensorFiles(_tensor_folder(path))
    index = _read_index(path, counts, seed, tensors, by_line)
    places, left_out = index.choose({s: max(FEWEST, SPARE * counts.get(s, 0)) for s in SPLITS})
    found: dict[int, Pair] = {}
    at = 0
    for batch in _each_batch(path):
        for row in range(len(batch)):
            if at + row in places:
                line = parse_line(batch.raw(row), partial(batch.where, row))
                found[places[at + row]] = _pair(
                    places[at + row], line, index.split(at + row), batch, row, tensors
                )
        at += len(batch)
    return PairSample(tuple(found[index] for index in sorted(found)), left_out)


def tensor_names(path: Path) -> tuple[str, ...]:
    """Returns the tensor files that a file of pairs names, as written there.

    Raises:
        JobError: there is no file.
        PairsError: it cannot be read.
    """
    names: dict[str, None] = {}
    for batch in _each_batch(path):
        if plain_pairs(batch.table()) is not None:
            continue
        for row in range(len(batch)):
            names |= dict.fromkeys(_tensor_files(batch.raw(row)))
    return tuple(names)


def place_of(path: Path, index: int, seed: int) -> str:
    """Returns the file and line of the pair with this `index` in `read_sample`."""
    rows = [(b, row) for b, batch in enumerate(_each_batch(path)) for row in range(len(batch))]
    random.Random(f"{seed}.order").shuffle(rows)
    wanted, row = rows[index]
    batch = next(batch for b, batch in enumerate(_each_batch(path)) if b == wanted)
    return batch.where(row)


@dataclass
class _LineIndex:
    """An index of all lines: split and set (as numbers) and the digest of the inputs of each."""

    counts: Mapping[Split, int]
    seed: int
    by_line: bool = False
    splits: bytearray = field(default_factory=bytearray)
    sets: "array[int]" = field(default_factory=lambda: array("l"))
    digests: "array[int]" = field(default_factory=lambda: array("Q"))
    has_splits: bool = False
    names: dict[str | None, int] = field(default_factory=dict)

    def add(self, contents: Sequence[str], line_split: Split | None, kind: str | None) -> None:
        """Adds a line; `line_split` is the split that the line itself gives, or None."""
        digest = digest_of(contents, self.seed)
        line = (*contents, str(len(self.splits)))
        dealt = digest_of(line, self.seed) if self.by_line else digest
        self.has_splits |= line_split is not None
        self.splits.append(
            _NUMBERS[split_of_digest(dealt, self.counts)]
            if line_split is None
            else _NUMBERS[line_split] | _EXPLICIT
        )
        self.sets.append(self.names.setdefault(kind, len(self.names)))
        self.digests.append(int.from_bytes(digest[8:16], "little"))

    def split(self, at: int) -> Split:
        return SPLITS[self.splits[at] & ~_EXPLICIT]

    def choose(self, most: Mapping[Split, int]) -> tuple[dict[int, int], tuple[LeftOutCount, ...]]:
        """Returns the place in the run of each line that is used, at most `most` of each split; and
        what is left out.
        """
        order = list(range(len(self.splits)))
        random.Random(f"{self.seed}.order").shuffle(order)
        places: dict[int, int] = {}
        counts: Counter[Split] = Counter()
        left: Counter[tuple[Split, int]] = Counter()
        for place, at in enumerate(order):
            split = self.split(at)
            if counts[split] < most[split]:
                counts[split] += 1
                places[at] = place
            else:
                left[split, self.sets[at]] += 1
        kinds = {number: name for name, number in self.names.items()}
        return places, tuple(LeftOutCount("beyond", s, kinds[k], n) for (s, k), n in left.items())

    def conflicting_digests(self) -> set[int]:
        """Returns digests of lines that may be in two splits: all that are, and a few others."""
        if not self.has_splits:
            return set()
        first: dict[int, int] = {}
        pairs = zip(self.digests, self.splits, strict=True)
        return {digest for digest, split in pairs if first.setdefault(digest, split) != split}


_NUMBERS = {split: number for number, split in enumerate(SPLITS)}
_EXPLICIT = 0x80
"""Bit in a split's number: the line itself gives the split."""


def _read_index(
    path: Path,
    counts: Mapping[Split, int],
    seed: int,
    tensors: TensorFiles,
    by_line: bool = False,
) -> _LineIndex:
    """Checks every line and returns their index.

    Raises:
        PairsError: a line is invalid.
        JobError: the file cannot be read.
    """
    index = _LineIndex(counts, seed, by_line)
    first_line = _FirstLine()
    for batch in _each_batch(path):
        found = plain_pairs(batch.table())
        given, given_split = (
            batch.part.given,
            next((s for s in SPLITS if s == batch.part.given.get("split")), None),
        )
        if found is None or not first_line.agrees(found.variables, found.sources):
            for row in range(len(batch)):
                line, contents = _line(batch, row, tensors)
                first_line.check(batch.where(row), line)
                index.add(contents, line.split, line.set)
            continue
        first_line.first = first_line.first or (batch.where(0), found.variables, found.sources)
        for contents, split, kind in zip(found.contents, found.splits, found.sets, strict=True):
            index.add(contents, split or given_split, kind or given.get("set"))
    if not index.splits:
        raise PairsError(f"{path}: holds no pairs; a search needs at least one line")
    _check_splits(path, index.conflicting_digests(), index, tensors)
    return index


def _line(batch: RowBatch, row: int, tensors: TensorFiles) -> tuple[PairLine, tuple[str, ...]]:
    """Returns a line, and the contents of its inputs.

    Raises:
        PairsError: it is invalid.
    """
    line = parse_line(batch.raw(row), partial(batch.where, row))
    base, sources = _inputs(line, batch.where(row), tensors)
    return line, (base.content, *(source.content for source in sources.values()))


def _inputs(line: PairLine, where: str, tensors: TensorFiles) -> tuple[Input, dict[str, Input]]:
    try:
        return line.inputs(tensors)
    except PairsError as e:
        raise PairsError(f"{where}: {e}") from e


@dataclass
class _FirstLine:
    """Place, variables and sources of the first line, which all other lines must have too."""

    first: tuple[str, frozenset[str], frozenset[str]] | None = None

    def agrees(self, variables: frozenset[str], sources: frozenset[str]) -> bool:
        return self.first is None or self.first[1:] == (variables, sources)

    def check(self, where: str, line: PairLine) -> None:
        """Checks that a line has the variables and sources of the first.

        Raises:
            PairsError: it has not.
        """
        variables, sources = frozenset(line.counterfactual), frozenset(line.sources_by_name)
        if self.first is None:
            self.first = (where, variables, sources)
        if self.agrees(variables, sources):
            return
        place, wanted, _ = self.first
        first = place.rpartition(": ")[2]
        if variables != wanted:
            raise PairsError(
                f"{where}: counterfactual: has {', '.join(sorted(variables))}; {first} has "
                f"{', '.join(sorted(wanted))}; every line needs the same variables"
            )
        raise PairsError(
            f"{where}: sources: has {', '.join(line.sources_by_name)}; {first} has "
            f"{', '.join(sorted(self.first[2]))}; every line needs the same"
        )


def _check_splits(path: Path, suspects: set[int], index: _LineIndex, tensors: TensorFiles) -> None:
    """Checks that no base is in two splits with the same sources.

    Args:
        suspects: digests of the lines that are read again.

    Raises:
        PairsError: one is.
    """
    found: dict[tuple[str, ...], tuple[str, Split | None]] = {}
    at = 0
    for batch in _each_batch(path) if suspects else ():
        for row in range(len(batch)):
            if index.digests[at + row] not in suspects:
                continue
            line, contents = _line(batch, row, tensors)
            place = batch.where(row)
            other, split = found.setdefault(contents, (place.rpartition(": ")[2], line.split))
            if split != line.split:
                raise PairsError(
                    f"{place}: split: its base and source stand in {other} too, under split "
                    f"{split!r}; a pair may be in one split only (got {line.split!r})"
                )
        at += len(batch)


def _each_batch(path: Path) -> Iterator[RowBatch]:
    return (batch for part in parts_of(path) for batch in read_batches(part))


def _tensor_folder(path: Path) -> Path:
    """Returns the folder in which tensors are searched."""
    return path if path.is_dir() else path.parent


def _tensor_files(raw: Any) -> list[str]:
    """Returns the tensor files that a line names."""
    sides = [raw.get(side) for side in ("base", "source")] if isinstance(raw, dict) else []
    several = raw.get("sources") if isinstance(raw, dict) else None
    sides += several.values() if isinstance(several, dict) else ()
    named = [
        side["tensor"]
        for side in sides
        if isinstance(side, dict) and isinstance(side.get("tensor"), str)
    ]
    return [file for file in map(file_of, named) if file is not None]


def _pair(
    index: int, line: PairLine, split: Split, batch: RowBatch, row: int, tensors: TensorFiles
) -> Pair:
    base, sources = _inputs(line, batch.where(row), tensors)
    answers = {name: line.answers[name] for name in ("base", *sources) if name in line.answers}
    return Pair(
        index, base, sources, answers, dict(line.counterfactual), split, line.set, line.choices
    )
