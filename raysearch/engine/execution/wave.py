"""A wave: rows that pass through the layers together, as arrays.

Invariants: all rows of a wave start at one token and have one length; they are in the order in
which they enter, so that those under way are always the first ones.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from raysearch.engine.execution.cached_runs import Indices, RunTable, gather, on_device
from raysearch.engine.networks.components import Components, HookPoint
from raysearch.engine.networks.hooks import Edit, HookSide
from raysearch.engine.networks.network import tokens_of
from raysearch.engine.networks.point import Point
from raysearch.engine.patching.edits import Writes, edit_of
from raysearch.engine.patching.swaps import PatchPlace, Place, Swaps, distinct


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
    def number(self) -> int:
        """A number that grows with depth."""
        return 2 * self.layer + self.after

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
        entries: entry points in order, each with the rows that enter there.
        edits: what is written while a block runs, or after it.
    """

    shape: WaveShape
    bases: RunTable
    base: Int[Indices, "row"]
    entries: Mapping[EntryPoint, range]
    edits: Mapping[EntryPoint, Sequence[tuple[HookPoint, Edit]]]

    @property
    def first_layer(self) -> int:
        """The block from which the wave runs."""
        return min(self.entries).layer


@dataclass(frozen=True, slots=True)
class Group:
    """Rows `start`..`stop` - 1 of a wave, which have `patch` as their patch of this number."""

    start: int
    stop: int
    number: int
    patch: PatchPlace

    def sets(self, swaps: Swaps) -> tuple[Int[Indices, "set"], Int[Indices, "row"]]:
        """Returns the first row of each set of sources, and which set each row has. A set of
        several sources is read once for all its rows."""
        rows = np.arange(self.start, self.stop)
        if self.patch.sources == 1:
            return rows, rows - self.start
        sources, tokens = (of[self.cells(rows)] for of in (swaps.source, swaps.source_tokens))
        first, which = distinct(np.column_stack((sources, tokens.reshape(len(rows), -1))))
        return rows[first], which

    def cells(self, rows: Indices) -> tuple[Indices, int, slice]:
        """Returns where the sources of these rows are in arrays by row, patch and source."""
        return rows, self.number, slice(self.patch.sources)

    def replacements(
        self, found: Float[Tensor, "item most width"], which: Int[Indices, "row"]
    ) -> Float[Tensor, "row token _feature"]:
        """Returns what replaces the activation of each row. `found`: what its sets have."""
        patch, found = self.patch, found[:, : self.patch.tokens]
        if patch.source_features is not None:
            found = found[..., on_device(patch.source_features, found.device)]
        if patch.sources == 1:
            return found
        sets = torch.split(found.contiguous(), patch.sources)
        means = torch.stack([of_set.mean(0) for of_set in sets])  # one by one, as rows are
        return means[on_device(which, means.device)]


class Waves:
    """Makes waves of swaps."""

    def __init__(self, hook_points: Components) -> None:
        self._hook_points = hook_points

    def entry_of(self, place: Place) -> EntryPoint:
        """Returns the entry point of a row: before the block of its first patch; after it if that
        is of the block's output."""
        return min(entry_of(self._hook_points.at(patch.point)) for patch in place)

    def entries(self, swaps: Swaps) -> Int[Indices, "row"]:
        """Returns a number for the place at which each row enters; it grows with depth."""
        return swaps.of_places(lambda place: self.entry_of(place).number)

    def points(self, swaps: Swaps) -> set[Point]:
        """Returns the points that are read of bases and sources."""
        places = [swaps.places[at] for at in np.unique(swaps.place)]
        return {*self.source_points(swaps), *(self.entry_of(place).point for place in places)}

    def source_points(self, swaps: Swaps) -> set[Point]:
        """Returns the points that are read of sources."""
        places = [swaps.places[at] for at in np.unique(swaps.place)]
        return {p.source_point for place in places for p in place if p.source_point is not None}

    def of(
        self,
        swaps: Swaps,
        bases: RunTable,
        base: Int[Indices, "row"],
        written: Iterable[tuple[Group, Float[Tensor, "_row _token _width"] | None]],
    ) -> Wave:
        """Returns the wave of swaps of one shape, which are in the order of `entries` and `place`.
        `bases`, `base`: as in `Wave`. `written`: what replaces the activation of each group, such
        as `read` gives."""
        numbers = self.entries(swaps)
        assert (np.diff(numbers) >= 0).all(), "rows of a wave are in the order of entry"
        found, starts = np.unique(numbers, return_index=True)
        ends = zip(starts.tolist(), [*starts[1:].tolist(), len(swaps)], strict=True)
        entries = {
            EntryPoint(number // 2, number % 2 == 1): range(*rows)
            for number, rows in zip(found.tolist(), ends, strict=True)
        }
        length = tokens_of(swaps.runs[swaps.base[0]].base)
        shape = WaveShape(int(swaps.tokens[0].min()), length)
        edits: dict[EntryPoint, list[tuple[HookPoint, Edit]]] = {}
        for hook_point, edit in self.edits(swaps, written):
            edits.setdefault(entry_of(hook_point), []).append((hook_point, edit))
        return Wave(shape, bases, base, entries, edits)

    def edits(
        self,
        swaps: Swaps,
        written: Iterable[tuple[Group, Float[Tensor, "_row _token _width"] | None]],
    ) -> list[tuple[HookPoint, Edit]]:
        """Returns for each module and side that is patched what is written there."""
        writes: dict[tuple[int, HookSide], list[Writes]] = {}
        for group, replacements in written:
            patch, hook_point = group.patch, self._hook_points.at(group.patch.point)
            columns = swaps.tokens[group.start : group.stop, group.number, : patch.tokens]
            rows = np.arange(group.start, group.stop)[:, None].repeat(patch.tokens, 1)
            writes.setdefault((id(hook_point.module), hook_point.side), []).append(
                Writes(hook_point, patch.kind, patch.features, rows, columns, replacements)
            )
        return [(of_module[0].hook_point, edit_of(of_module)) for of_module in writes.values()]

    def read(
        self, swaps: Swaps, table_of: Callable[[Indices], RunTable]
    ) -> list[tuple[Group, Float[Tensor, "_row _token _width"] | None]]:
        """Returns the groups of rows with one patch, and what their sources have; of several
        sources the mean. What is read of one component and width is read at once. `table_of`:
        returns the runs of these numbers."""
        used, number = np.unique(swaps.source, return_inverse=True)
        number = number.reshape(swaps.source.shape) - np.count_nonzero(used < 0)  # -1: none
        groups, tokens = list(_groups(swaps)), swaps.source_tokens
        found: dict[Group, Tensor] = {}
        for read in {of for group in groups if (of := self._read_with(group)) is not None}:
            table = table_of(used[used >= 0])
            some = [group for group in groups if self._read_with(group) == read]
            sets = [group.sets(swaps) for group in some]
            cells = [group.cells(rows) for group, (rows, _) in zip(some, sets, strict=True)]
            counts = [number[at].size for at in cells]
            layers = [self._hook_points.place(p) for g in some if (p := g.patch.source_point)]
            every = gather(
                *(table, np.concatenate([number[at].ravel() for at in cells]), read[0]),
                np.repeat(layers, counts),
                np.concatenate([tokens[at].reshape(-1, tokens.shape[-1]) for at in cells]),
            )
            for group, (_, which), part in zip(some, sets, torch.split(every, counts), strict=True):
                found[group] = group.replacements(part, which)
        return [(group, found.get(group)) for group in groups]

    def _read_with(self, group: Group) -> tuple[str, int] | None:
        """Returns the component and width that are read of sources, if there are any."""
        point = group.patch.source_point
        return None if point is None else (point.component, self._hook_points.at(point).width)


def _groups(swaps: Swaps) -> Iterator[Group]:
    """Yields the groups of rows, which are in the order of their places, patch by
    patch."""
    starts = np.flatnonzero(np.diff(swaps.place, prepend=-1)).tolist()
    for start, stop in zip(starts, [*starts[1:], len(swaps)], strict=True):
        for number, patch in enumerate(swaps.places[swaps.place[start]]):
            yield Group(start, stop, number, patch)
