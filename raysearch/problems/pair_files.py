"""Files of pairs: JSON lines, or the same fields in Parquet or Arrow; inputs are texts, or tensors
in safetensors files beside it.

Invariants: every line is looked at, and one that is not of the form is refused with its number and
the field; a file without `split` is dealt out by the ratio of the counts that the job asks, no
(base, source) going to two splits; order is permuted by the seed; of a large file no more is kept
than a search can come to ask for, and what is left out is counted.
"""

import random
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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
    split_by,
)
from raysearch.errors import PairsError
from raysearch.problems.batch_check import plain
from raysearch.problems.pair_line import PairLine, line_of
from raysearch.problems.pair_parts import parts_of
from raysearch.problems.pair_rows import RowBatch, batches
from raysearch.problems.tensor_references import TensorFiles, file_of

SPARE = 16
"""Of a file so many times the pairs that are asked are kept of each split, to make up for those
that the model does not solve."""
FEWEST = 1024
"""So many are kept of a split in any case."""


def read_pairs(path: Path, counts: Mapping[Split, int], seed: int) -> tuple[Pair, ...]:
    """The pairs of a file, in the order of the run. Raises: as `read_drawn`."""
    return read_drawn(path, counts, seed).pairs


def read_drawn(path: Path, counts: Mapping[Split, int], seed: int) -> PairSample:
    """The pairs of a file (or folder of files) in the order of the run, and which of its lines were
    left out.

    `index` is the place of a line in the order of all. Raises: PairsError with line and field;
    JobError where it cannot be read.
    """
    tensors = TensorFiles(_beside(path))
    seen = _looked(path, counts, seed, tensors)
    places, left_out = seen.chosen({s: max(FEWEST, SPARE * counts.get(s, 0)) for s in SPLITS})
    found: dict[int, Pair] = {}
    at = 0
    for batch in _each_batch(path):
        for row in range(len(batch)):
            if at + row in places:
                line = line_of(batch.raw(row), lambda batch=batch, row=row: batch.where(row))  # type: ignore[misc]
                found[places[at + row]] = _pair(
                    places[at + row], line, seen.split(at + row), batch, row, tensors
                )
        at += len(batch)
    return PairSample(tuple(found[index] for index in sorted(found)), left_out)


def tensor_names(path: Path) -> tuple[str, ...]:
    """The files of tensors that a file of pairs names, as written there. Raises: JobError,
    PairsError where it cannot be read."""
    names: dict[str, None] = {}
    for batch in _each_batch(path):
        if plain(batch.table()) is not None:
            continue
        for row in range(len(batch)):
            names |= dict.fromkeys(_tensors_of(batch.raw(row)))
    return tuple(names)


def place_of(path: Path, index: int, seed: int) -> str:
    """Where the pair `index` of `read_drawn` stands: the file and its line."""
    rows = [(b, row) for b, batch in enumerate(_each_batch(path)) for row in range(len(batch))]
    random.Random(f"{seed}.order").shuffle(rows)
    wanted, row = rows[index]
    batch = next(batch for b, batch in enumerate(_each_batch(path)) if b == wanted)
    return batch.where(row)


@dataclass
class _Looked:
    """What is remembered of each line: its split, its set (both as numbers), and the digest of its
    inputs."""

    counts: Mapping[Split, int]
    seed: int
    splits: bytearray = field(default_factory=bytearray)
    sets: "array[int]" = field(default_factory=lambda: array("l"))
    digests: "array[int]" = field(default_factory=lambda: array("Q"))
    said: bool = False
    names: dict[str | None, int] = field(default_factory=dict)

    def add(self, contents: Sequence[str], said: Split | None, kind: str | None) -> None:
        """`said`: the split that the line itself gives; without, it is dealt out."""
        digest = digest_of(contents, self.seed)
        self.said |= said is not None
        self.splits.append(
            _NUMBERS[split_by(digest, self.counts)] if said is None else _NUMBERS[said] | _SAID
        )
        self.sets.append(self.names.setdefault(kind, len(self.names)))
        self.digests.append(int.from_bytes(digest[8:16], "little"))

    def split(self, at: int) -> Split:
        return SPLITS[self.splits[at] & ~_SAID]

    def chosen(self, most: Mapping[Split, int]) -> tuple[dict[int, int], tuple[LeftOutCount, ...]]:
        """The place in the order of the run of each line that is kept, of each split at most so
        many; and what is left out."""
        order = list(range(len(self.splits)))
        random.Random(f"{self.seed}.order").shuffle(order)
        places: dict[int, int] = {}
        kept: Counter[Split] = Counter()
        left: Counter[tuple[Split, int]] = Counter()
        for place, at in enumerate(order):
            split = self.split(at)
            if kept[split] < most[split]:
                kept[split] += 1
                places[at] = place
            else:
                left[split, self.sets[at]] += 1
        kinds = {number: name for name, number in self.names.items()}
        return places, tuple(LeftOutCount("beyond", s, kinds[k], n) for (s, k), n in left.items())

    def twice(self) -> set[int]:
        """The digests under which lines stand that do not agree on the split; few others among
        them."""
        if not self.said:
            return set()
        first: dict[int, int] = {}
        pairs = zip(self.digests, self.splits, strict=True)
        return {digest for digest, split in pairs if first.setdefault(digest, split) != split}


_NUMBERS = {split: number for number, split in enumerate(SPLITS)}
_SAID = 0x80
"""Of a split as a number: the line says it itself."""


def _looked(path: Path, counts: Mapping[Split, int], seed: int, tensors: TensorFiles) -> _Looked:
    """Looks at every line. Raises: PairsError, JobError."""
    seen = _Looked(counts, seed)
    same = _Same()
    for batch in _each_batch(path):
        found = plain(batch.table())
        given, given_split = (
            batch.part.given,
            next((s for s in SPLITS if s == batch.part.given.get("split")), None),
        )
        if found is None or not same.agrees(found.variables, found.sources):
            for row in range(len(batch)):
                line, contents = _line(batch, row, tensors)
                same.check(batch.where(row), line)
                seen.add(contents, line.split, line.set)
            continue
        same.first = same.first or (batch.where(0), found.variables, found.sources)
        for contents, split, kind in zip(found.contents, found.splits, found.sets, strict=True):
            seen.add(contents, split or given_split, kind or given.get("set"))
    if not seen.splits:
        raise PairsError(f"{path}: holds no pairs; a search needs at least one line")
    _check_splits(path, seen.twice(), seen, tensors)
    return seen


def _line(batch: RowBatch, row: int, tensors: TensorFiles) -> tuple[PairLine, tuple[str, ...]]:
    """A line, and the contents of its inputs. Raises: PairsError."""
    line = line_of(batch.raw(row), lambda: batch.where(row))
    base, sources = _inputs(line, batch.where(row), tensors)
    return line, (base.content, *(source.content for source in sources.values()))


def _inputs(line: PairLine, where: str, tensors: TensorFiles) -> tuple[Input, dict[str, Input]]:
    try:
        return line.inputs(tensors)
    except PairsError as e:
        raise PairsError(f"{where}: {e}") from e


@dataclass
class _Same:
    """The place, variables and sources of the first line, which all others must have too."""

    first: tuple[str, frozenset[str], frozenset[str]] | None = None

    def agrees(self, variables: frozenset[str], sources: frozenset[str]) -> bool:
        return self.first is None or self.first[1:] == (variables, sources)

    def check(self, where: str, line: PairLine) -> None:
        """Raises: PairsError where a line has others than the first."""
        variables, sources = frozenset(line.counterfactual), frozenset(line.lending)
        if self.first is None:
            self.first = (where, variables, sources)
        if self.agrees(variables, sources):
            return
        place, wanted, _ = self.first
        first = place.rpartition(": ")[2]
        if variables != wanted:
            raise PairsError(
                f"{where}: counterfactual: has {', '.join(sorted(variables))}; {first} has "
                f"{', '.join(sorted(wanted))}; every line needs "
                "the same variables"
            )
        raise PairsError(
            f"{where}: sources: has {', '.join(line.lending)}; {first} has "
            f"{', '.join(sorted(self.first[2]))}; every line needs the same"
        )


def _check_splits(path: Path, twice: set[int], seen: _Looked, tensors: TensorFiles) -> None:
    """Raises: PairsError where a base and its sources stand under two splits. `twice`: the digests
    that are looked at again."""
    found: dict[tuple[str, ...], tuple[str, Split | None]] = {}
    at = 0
    for batch in _each_batch(path) if twice else ():
        for row in range(len(batch)):
            if seen.digests[at + row] not in twice:
                continue
            line, contents = _line(batch, row, tensors)
            place = batch.where(row)
            other, split = found.setdefault(contents, (place.rpartition(": ")[2], line.split))
            if split != line.split:
                raise PairsError(
                    f"{place}: split: its base and source stand in {other} too, under split "
                    f"{split!r}; "
                    f"a pair may be in one split only (got {line.split!r})"
                )
        at += len(batch)


def _each_batch(path: Path) -> Iterator[RowBatch]:
    return (batch for part in parts_of(path) for batch in batches(part))


def _beside(path: Path) -> Path:
    """The folder in which tensors are looked for."""
    return path if path.is_dir() else path.parent


def _tensors_of(raw: Any) -> list[str]:
    """The files of tensors that a line names."""
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
