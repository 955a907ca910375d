"""Swaps: rows as arrays, without a Python object for each row.

Most rows of a search are swaps: one intervention on thousands of pairs differs in tokens and runs
alone, and one pair under thousands of interventions in places alone.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Int
from numpy.typing import NDArray

from raysearch.core.events import Ids
from raysearch.engine.networks.network import ModelInput, tokens_of
from raysearch.engine.networks.point import Point
from raysearch.engine.patching.operations import Featurized, Interchange, Operation
from raysearch.engine.patching.rows import FeatureIndices, Indices, Patch, Row, Source


@dataclass(frozen=True, slots=True)
class PatchPlace:
    """The part of a patch that is the same on every pair: point, features and operation, and the
    sources'. `tokens`, `sources`: their numbers."""

    point: Point
    features: FeatureIndices
    kind: Operation
    source_point: Point | None
    source_features: FeatureIndices
    tokens: int
    sources: int

    @staticmethod
    def of(patch: Patch) -> "PatchPlace | None":
        """Returns the place of a patch; None if its sources are read at several places."""
        read = {(source.point, source.features) for source in patch.sources}
        if len(read) > 1:
            return None
        point, features = next(iter(read), (None, None))
        counts = len(patch.tokens), len(patch.sources)
        return PatchPlace(patch.point, patch.features, patch.kind, point, features, *counts)

    @property
    def may_change_nothing(self) -> bool:
        """Says whether equal activations in base and source leave the run as it is."""
        return (
            isinstance(self.kind, Interchange | Featurized)
            and self.sources == 1
            and self.point == self.source_point
            and self.features == self.source_features
        )


Place = tuple[PatchPlace, ...]
"""The part of an intervention that is the same on every pair."""


@dataclass(frozen=True, slots=True)
class Swaps:
    """Rows, each with the patches of its place.

    Args:
        runs: the distinct runs that are bases or sources.
        choices: the distinct sets of ids that answers are chosen from.
        places: the distinct places; `place`, `base`, `source` and `choice` are indices.
        source: -1 where a place has fewer patches or sources.
        same: whether each patch has one source, which is the base's own text up to its last token.
        tokens, source_tokens: where a place has fewer, the row's first one again.
    """

    runs: Sequence[Row]
    choices: Sequence[Ids]
    places: Sequence[Place]
    place: Int[Indices, "row"]
    base: Int[Indices, "row"]
    source: Int[Indices, "row patch source"]
    choice: Int[Indices, "row"]
    same: Bool[NDArray[np.bool_], "row"]
    tokens: Int[Indices, "row patch token"]
    source_tokens: Int[Indices, "row patch source token"]

    def __len__(self) -> int:
        return len(self.place)

    def take(self, at: Indices) -> "Swaps":
        """Returns the rows of these indices."""
        return replace(
            self,
            place=self.place[at],
            base=self.base[at],
            source=self.source[at],
            choice=self.choice[at],
            same=self.same[at],
            tokens=self.tokens[at],
            source_tokens=self.source_tokens[at],
        )

    def row(self, at: int) -> Row:
        """Returns one row as an object."""
        patches = []
        for number, of in enumerate(self.places[self.place[at]]):
            sources = []
            for source in range(of.sources):
                assert of.source_point is not None
                theirs = tuple(self.source_tokens[at, number, source, : of.tokens].tolist())
                run = self.runs[self.source[at, number, source]]
                sources.append(Source(run, of.source_point, theirs, of.source_features))
            tokens = tuple(self.tokens[at, number, : of.tokens].tolist())
            patches.append(Patch(of.point, tokens, tuple(sources), of.kind, of.features))
        return Row(self.runs[self.base[at]].base, tuple(patches), self.choices[self.choice[at]])

    def starts(self) -> Int[Indices, "row"]:
        """Returns the first token that each row writes."""
        found: Indices = self.tokens.reshape(len(self), -1).min(1)
        return found

    def all_runs(self) -> Int[Indices, "row run"]:
        """Returns base and sources of each row; the base again where it has fewer."""
        sources = self.source.reshape(len(self), -1)
        return np.column_stack((self.base, np.where(sources < 0, self.base[:, None], sources)))

    def of_places(self, value: Callable[[Place], Any]) -> NDArray[Any]:
        """Returns the value of each row's place, which is computed once for each place."""
        used, which = np.unique(self.place, return_inverse=True)
        return np.array([value(self.places[at]) for at in used])[which.reshape(-1)]

    def reads(self) -> Iterator[tuple[ModelInput, int, int, bool]]:
        """Yields each input with the first and last token that is read of it as a source, or from
        which its rows start, and whether it is a base."""
        starts, has = self.starts(), self.source >= 0
        tokens = self.source_tokens[has]
        for number, first, last, is_base in (
            (self.base, starts, starts, True),
            (self.source[has], tokens.min(1), tokens.max(1), False),
        ):
            runs, which = np.unique(number, return_inverse=True)
            low, high = np.full(len(runs), np.iinfo(np.int64).max), np.zeros(len(runs), np.int64)
            np.minimum.at(low, which.reshape(-1), first)
            np.maximum.at(high, which.reshape(-1), last)
            for run, *ends in zip(runs.tolist(), low.tolist(), high.tolist(), strict=True):
                yield self.runs[run].base, *ends, is_base

    def sources(self) -> dict[Row, list[Point]]:
        """Returns the source runs, each with the deepest point that is read of it; one outside of
        the blocks, such as the embedding, counts as the deepest."""
        patches = self.source.shape[1]
        points = {p.source_point for place in self.places for p in place if p.source_point}
        order = sorted(points, key=lambda at: (at.layer is None, at.layer or 0, at.component))
        depth: dict[Point | None, int] = {point: number for number, point in enumerate(order)}
        depth[None] = -1

        def depths_of(place: Place) -> list[int]:
            return [*(depth[p.source_point] for p in place), *[-1] * (patches - len(place))]

        depths = np.broadcast_to(self.of_places(depths_of)[..., None], self.source.shape)
        deepest = np.full(len(self.runs) + 1, -1)  # the last one takes what is no source
        np.maximum.at(deepest, self.source, depths)
        found = np.flatnonzero(deepest[:-1] >= 0).tolist()
        return {self.runs[at]: [order[deepest[at]]] for at in found}

    def distinct(self) -> tuple[Indices, Indices]:
        """Returns the first index of each distinct row, in order, and for each row which of these
        it equals."""
        numbers = [self.place, self.base, self.choice]
        return distinct(
            np.column_stack(
                numbers
                + [a.reshape(len(self), -1) for a in (self.source, self.tokens, self.source_tokens)]
            )
        )

    def distinct_bases(self) -> tuple[Int[Indices, "base"], Int[Indices, "row"]]:
        """Returns the distinct bases, and which of them each row has.

        They are sorted: what is stored of neighbours is read without a copy. Where each row has a
        base of its own and these are not all neighbours, as in a batch of training, they are in
        the order of the rows, which attention then need not copy into another.
        """
        used, which = np.unique(self.base, return_inverse=True)
        if len(used) == len(self) and used[-1] - used[0] >= len(used):
            return self.base, np.arange(len(self))
        return used, which.reshape(-1)

    def unchanged(self) -> NDArray[np.bool_]:
        """Returns for each row whether it certainly equals the base's own run: it writes the value
        that is already there."""
        may = [all(patch.may_change_nothing for patch in place) for place in self.places]
        at_same = np.equal(self.tokens, self.source_tokens[:, :, 0]).all(axis=(1, 2))
        found: NDArray[np.bool_] = self.same & np.array(may)[self.place] & at_same
        return found

    def after(self, ids: Int[Indices, "row"]) -> "Swaps":
        """Returns the rows for the next token of an answer: `ids` are appended to the bases, and
        patches stay."""
        first, which = distinct(np.column_stack((self.base, ids)))
        bases = zip(self.base[first].tolist(), ids[first].tolist(), strict=True)
        longer = [self.runs[base].after(token) for base, token in bases]
        return replace(self, runs=[*self.runs, *longer], base=len(self.runs) + which)

    def lengths(self) -> Indices:
        """Returns the number of tokens of each row's base."""
        bases, base_of = np.unique(self.base, return_inverse=True)
        lengths = np.array([tokens_of(self.runs[base].base) for base in bases])
        return lengths[base_of.reshape(-1)]


def distinct(keys: Int[Indices, "row column"]) -> tuple[Indices, Indices]:
    """Returns the first index of each distinct row of numbers, in order, and for each row which of
    these it equals."""
    keys = np.ascontiguousarray(keys)  # as one value a row sorts faster
    as_one = keys.view(np.dtype((np.void, keys.dtype.itemsize * keys.shape[1])))[:, 0]
    _, first, inverse = np.unique(as_one, return_index=True, return_inverse=True)
    order = np.argsort(first)
    return first[order], np.argsort(order)[inverse.reshape(-1)]


def is_identity(row: Row, patch: Patch) -> bool:
    """Returns whether the patch writes the value that is already there: an interchange with its own
    activation, from the same point after the same tokens."""
    if not isinstance(patch.kind, Interchange | Featurized) or len(patch.sources) != 1:
        return False
    (source,) = patch.sources
    if source.run.patches or source.point != patch.point or source.features != patch.features:
        return False
    ours, theirs = row.base, source.run.base
    if not isinstance(ours, tuple) or not isinstance(theirs, tuple):
        return False
    return (
        source.tokens == patch.tokens
        and ours[: max(patch.tokens) + 1] == theirs[: max(patch.tokens) + 1]
    )
