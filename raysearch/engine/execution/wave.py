"""A wave: rows that pass through the layers together, as arrays.

Invariants: all rows of a wave start at one token and have one length; they are in the order in
which they enter, so that those under way are always the first ones.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from raysearch.engine.execution.cached_runs import CachedRun, Indices, gather
from raysearch.engine.networks.components import Components, HookPoint
from raysearch.engine.networks.hooks import Edit, HookSide
from raysearch.engine.networks.network import ModelInput
from raysearch.engine.networks.point import Point
from raysearch.engine.patching.edits import ReadSource, Replacements, Writes, edit_of, edits_of
from raysearch.engine.patching.rows import Patch, Row
from raysearch.engine.patching.swaps import PatchPlace, Place, Swaps, distinct
from raysearch.errors import PositionError


@dataclass(frozen=True, slots=True, order=True)
class WaveShape:
    """The first patched token of a wave and its number of tokens. All rows of a wave have one
    shape."""

    start: int
    length: int


@dataclass(frozen=True, slots=True, order=True)
class EntryPoint:
    """The place where a row enters its wave: before block `layer`, or after it."""

    layer: int
    after: bool

    @property
    def point(self) -> Point:
        """The point of the base's run whose activation the row starts with."""
        return Point(self.layer, "residual" if self.after else "block_input")


def entry_of(hook_point: HookPoint) -> EntryPoint:
    """Returns the entry point of a row whose first patch is here: before the block in which the
    patch lies; after it for a patch of the block's output."""
    assert hook_point.layer is not None, "a patch outside of the blocks is not replayed"
    return EntryPoint(hook_point.layer, hook_point.is_block and hook_point.side == "output")


@dataclass(frozen=True, slots=True)
class Wave:
    """Rows of one shape in the order of entry.

    Args:
        bases: the distinct runs that rows start from.
        base: index in `bases` of each row.
        entries: entry points in order, each with the number of rows that enter there.
        edits: what is written while a block runs, or after it.
        place: place in the wave of each row in the order in which rows were given.
    """

    shape: WaveShape
    bases: Sequence[Row]
    base: Int[Tensor, "row"]
    entries: Mapping[EntryPoint, int]
    edits: Mapping[EntryPoint, Sequence[tuple[HookPoint, Edit]]]
    place: Int[Tensor, "row"]

    @property
    def first_layer(self) -> int:
        """The block from which the wave runs."""
        return min(self.entries).layer

    def rows_of(self, entry: EntryPoint) -> tuple[int, int]:
        """Returns the first of the rows that enter there, and the first after them."""
        first = sum(count for other, count in self.entries.items() if other < entry)
        return first, first + self.entries[entry]


class SwapWaves:
    """Makes waves of swaps."""

    def __init__(self, hook_points: Components) -> None:
        self._hook_points = hook_points

    def entries(self, swaps: Swaps) -> Int[Indices, "row"]:
        """Returns a number for the place at which each row enters; it grows with depth."""
        return _of_places(swaps, self._entry_number)

    def _entry_number(self, place: Place) -> int:
        entry = self._entry(place)
        return 2 * entry.layer + entry.after

    def _entry(self, place: Place) -> EntryPoint:
        return min(entry_of(self._hook_points.at(patch.point)) for patch in place)

    def points(self, swaps: Swaps) -> set[Point]:
        """Returns the points that are read of bases and sources."""
        places = [swaps.places[at] for at in np.unique(swaps.place)]
        sources = {patch.source_point for place in places for patch in place}
        return {*(sources - {None}), *(self._entry(place).point for place in places)}

    def reads(self, swaps: Swaps) -> Iterator[tuple[ModelInput, int, int, bool]]:
        """Yields each input with the first and last token that is read of it as a source, or from
        which its rows start, and whether it is a base."""
        starts, lent = swaps.starts(), swaps.source >= 0
        tokens = swaps.source_tokens[lent]
        for number, first, last, is_base in (
            (swaps.base, starts, starts, True),
            (swaps.source[lent], tokens.min(1), tokens.max(1), False),
        ):
            runs, which = np.unique(number, return_inverse=True)
            low, high = np.full(len(runs), np.iinfo(np.int64).max), np.zeros(len(runs), np.int64)
            np.minimum.at(low, which.reshape(-1), first)
            np.maximum.at(high, which.reshape(-1), last)
            for run, *ends in zip(runs.tolist(), low.tolist(), high.tolist(), strict=True):
                yield swaps.runs[run].base, *ends, is_base

    def sources(self, swaps: Swaps) -> dict[Row, list[Point]]:
        """Returns the source runs, each with the deepest point that is read of it."""
        patches = swaps.source.shape[1]

        def depths_of(place: Place) -> list[int]:
            layers = [-1 if p.source_point is None else p.source_point.layer or 0 for p in place]
            return [*layers, *[-1] * (patches - len(place))]

        depths = np.broadcast_to(_of_places(swaps, depths_of)[..., None], swaps.source.shape)
        at = np.nonzero(swaps.source >= 0)
        sources, order = swaps.source[at], np.lexsort((depths[at], swaps.source[at]))
        found: dict[Row, list[Point]] = {}
        for last in order[np.flatnonzero(np.diff(sources[order], append=-1))]:
            point = swaps.places[swaps.place[at[0][last]]][at[1][last]].source_point
            assert point is not None
            found[swaps.runs[sources[last]]] = [point]
        return found

    def of(self, swaps: Swaps, runs: Mapping[Row, CachedRun]) -> Wave:
        """Returns the wave of swaps of one shape, which are in the order of `entries` and `place`.
        `runs`: those of sources."""
        entries = self.entries(swaps)
        numbers, counts = np.unique(entries, return_counts=True)
        assert (np.diff(entries) >= 0).all(), "rows of a wave are in the order of entry"
        bases, base_of = np.unique(swaps.base, return_inverse=True)
        return Wave(
            WaveShape(int(swaps.starts()[0]), int(swaps.lengths()[0])),
            [swaps.runs[base] for base in bases],
            torch.from_numpy(base_of.reshape(-1)),
            {
                EntryPoint(number // 2, number % 2 == 1): count
                for number, count in zip(numbers.tolist(), counts.tolist(), strict=True)
            },
            self._edits(swaps, runs),
            torch.arange(len(swaps)),
        )

    def _edits(
        self, swaps: Swaps, runs: Mapping[Row, CachedRun]
    ) -> dict[EntryPoint, list[tuple[HookPoint, Edit]]]:
        writes: dict[EntryPoint, dict[tuple[int, HookSide], list[Writes]]] = {}
        for group, replacements in self._read(swaps, runs):
            patch, hook_point = group.patch, self._hook_points.at(group.patch.point)
            at = group.start, group.stop
            columns = torch.from_numpy(swaps.tokens[slice(*at), group.number, : patch.tokens])
            rows = torch.arange(*at)[:, None].expand_as(columns)
            here = writes.setdefault(entry_of(hook_point), {})
            here.setdefault((id(hook_point.module), hook_point.side), []).append(
                Writes(hook_point, patch.kind, patch.features, rows, columns, replacements)
            )
        return {
            entry: [(of_module[0].hook_point, edit_of(of_module)) for of_module in of.values()]
            for entry, of in writes.items()
        }

    def _read(
        self, swaps: Swaps, runs: Mapping[Row, CachedRun]
    ) -> Iterator[tuple["_Group", Float[Tensor, "row token _width"] | None]]:
        """Yields the groups of rows with one patch, and what their sources have; of several sources
        the mean. What is read of one component is read at once."""
        sources, source_of = np.unique(swaps.source, return_inverse=True)
        number = source_of.reshape(swaps.source.shape)
        of_sources = [runs[swaps.runs[at]] for at in sources if at >= 0]
        number = number - (
            len(sources) - len(of_sources)
        )  # -1 is the first of them, if it is there
        groups = list(_groups(swaps))
        for component in dict.fromkeys(group.component for group in groups):
            some = [group for group in groups if group.component == component]
            if component is None:
                yield from ((group, None) for group in some)
                continue
            reads = [_Reads.of(group, number, swaps.source_tokens) for group in some]
            layers = [self._hook_points.place(group.patch.source_point) for group in some]  # type: ignore[arg-type]
            found = gather(
                *(of_sources, np.concatenate([read.runs for read in reads]), component),
                np.repeat(layers, [len(read.runs) for read in reads]),
                np.concatenate([read.tokens for read in reads]),
            )
            parts = torch.split(found, [len(read.runs) for read in reads])
            for group, read, part in zip(some, reads, parts, strict=True):
                yield group, read.replacements(group.patch, part)


@dataclass(frozen=True, slots=True)
class _Group:
    """Rows `start`..`stop` - 1 of a wave, which have `patch` as their patch of this number."""

    start: int
    stop: int
    number: int
    patch: PatchPlace

    @property
    def component(self) -> str | None:
        """The component that is read of sources, if there are any."""
        point = self.patch.source_point
        return None if point is None else point.component


def _groups(swaps: Swaps) -> Iterator[_Group]:
    """Yields the groups of rows, which are in the order of their places, patch by
    patch."""
    starts = np.flatnonzero(np.diff(swaps.place, prepend=-1)).tolist()
    for start, stop in zip(starts, [*starts[1:], len(swaps)], strict=True):
        for number, patch in enumerate(swaps.places[swaps.place[start]]):
            yield _Group(start, stop, number, patch)


@dataclass(frozen=True, slots=True)
class _Reads:
    """The reads of a group: a run and its tokens for each item. `which`: with several sources,
    the set of sources of each row (None: an item is a row)."""

    runs: Int[Indices, "item"]
    tokens: Int[Indices, "item token"]
    which: Int[Indices, "row"] | None

    @staticmethod
    def of(
        group: _Group,
        numbers: Int[Indices, "row patch source"],
        source_tokens: Int[Indices, "row patch source token"],
    ) -> "_Reads":
        """Returns the reads of a group. A set of several sources is read once for all its rows."""
        at, count = slice(group.start, group.stop), group.patch.sources
        runs = numbers[at, group.number, :count]
        tokens = source_tokens[at, group.number, :count]
        which = None
        if count > 1:
            keys = np.concatenate((runs, tokens.reshape(len(runs), -1)), axis=1)
            first, which = distinct(keys)
            runs, tokens = runs[first], tokens[first]
        return _Reads(runs.reshape(-1), tokens.reshape(-1, tokens.shape[-1]), which)

    def replacements(
        self, patch: PatchPlace, found: Float[Tensor, "item token width"]
    ) -> Float[Tensor, "row token _feature"]:
        """Returns what replaces the activation of each row."""
        found = found[:, : patch.tokens]
        if patch.source_features is not None:
            found = found[..., list(patch.source_features)]
        if self.which is None:
            return found
        sets = torch.split(found.contiguous(), patch.sources)
        means = torch.stack([of_set.mean(0) for of_set in sets])  # one by one, as rows are
        return means[torch.from_numpy(self.which).to(means.device)]


def _of_places(swaps: Swaps, value: Callable[[Place], Any]) -> NDArray[Any]:
    """Returns the value of each row's place; it is asked for once for each place that rows have."""
    used, which = np.unique(swaps.place, return_inverse=True)
    return np.array([value(swaps.places[at]) for at in used])[which.reshape(-1)]


class RowWaves:
    """Makes waves of rows."""

    def __init__(self, hook_points: Components) -> None:
        self._hook_points = hook_points

    def shape_of(self, row: Row) -> WaveShape | None:
        """Returns the shape of the wave that `row` belongs to; None if it has no patch, or one
        outside of the blocks."""
        if not row.patches or any(self._hook_points.at(p.point).layer is None for p in row.patches):
            return None
        assert isinstance(row.base, tuple), "a language model is given token ids"
        tokens = [t for p in row.patches for t in p.tokens]
        if max(tokens) >= len(row.base):
            raise PositionError(
                f"the base has {len(row.base)} tokens, and no token {max(tokens)} (from 0); name "
                f"one it has"
            )
        return WaveShape(min(tokens), len(row.base))

    def entry_point_of(self, row: Row) -> EntryPoint:
        """Returns the place where `row`, which has a shape, enters its wave."""
        return min(self.entry_point(patch.point) for patch in row.patches)

    def entry_point(self, point: Point) -> EntryPoint:
        """Returns the place where a row enters whose first patch is at `point`."""
        return entry_of(self._hook_points.at(point))

    def of(
        self,
        rows: Sequence[Row],
        read_source: ReadSource,
        replacements: Replacements | None = None,
    ) -> Wave:
        """Returns the wave of rows of one shape. `replacements`: as in `Executor.logits`."""
        shape = self.shape_of(rows[0])
        assert shape is not None, "rows of a wave are patched in the blocks"
        assert all(self.shape_of(row) == shape for row in rows), (
            "rows of one wave begin at one token and have one length"
        )
        order = sorted(range(len(rows)), key=lambda at: self.entry_point_of(rows[at]))
        ordered = [rows[at] for at in order]
        bases = {base: at for at, base in enumerate(dict.fromkeys(Row(row.base) for row in rows))}
        own = None if replacements is None else [replacements[at] for at in order]
        return Wave(
            shape,
            list(bases),
            torch.tensor([bases[Row(row.base)] for row in ordered]),
            {entry: len(list(of)) for entry, of in groupby(ordered, self.entry_point_of)},
            self._edits(ordered, read_source, own),
            torch.tensor(order).argsort(),
        )

    def _edits(
        self, rows: Sequence[Row], read_source: ReadSource, replacements: Replacements | None
    ) -> dict[EntryPoint, list[tuple[HookPoint, Edit]]]:
        entries = sorted({self.entry_point(patch.point) for row in rows for patch in row.patches})
        edits = {}
        for entry in entries:
            here = partial(self._is_at, entry)
            own = [Row(row.base, tuple(filter(here, row.patches))) for row in rows]
            edits[entry] = edits_of(
                own, [0] * len(own), self._hook_points, read_source, replacements
            )
        return edits

    def _is_at(self, entry: EntryPoint, patch: Patch) -> bool:
        return self.entry_point(patch.point) == entry
