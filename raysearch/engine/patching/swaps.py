"""Swaps: rows with one patch from one source, as arrays, without a Python object for each row.

Most rows of a search are swaps: one intervention on thousands of pairs differs in tokens and runs
alone, and one pair under thousands of interventions in places alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Int
from numpy.typing import NDArray

from raysearch.core.events import Ids
from raysearch.engine.networks.network import tokens_of
from raysearch.engine.networks.point import Point
from raysearch.engine.patching.operations import Featurized, Interchange, Operation
from raysearch.engine.patching.rows import FeatureIndices, Patch, Row, Source

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Place:
    """The part of an intervention that is the same on every pair: point, features and operation,
    and the source's. `tokens`: their number."""

    point: Point
    features: FeatureIndices
    kind: Operation
    source_point: Point
    source_features: FeatureIndices
    tokens: int

    @property
    def may_change_nothing(self) -> bool:
        """Whether equal activations in base and source leave the run as it is."""
        return (
            isinstance(self.kind, Interchange | Featurized)
            and self.point == self.source_point
            and self.features == self.source_features
        )


@dataclass(frozen=True, slots=True)
class Swaps:
    """Rows, each with one patch from one source.

    Args:
        runs: the distinct runs without intervention that are bases or sources.
        choices: the distinct sets of ids that answers are chosen from.
        places: the distinct places; `place`, `base`, `source` and `choice` are indices.
        same: whether base and source are the same up to the last of the tokens.
        tokens, source_tokens: of each row; where a place has fewer, the first one again.
    """

    runs: Sequence[Row]
    choices: Sequence[Ids]
    places: Sequence[Place]
    place: Int[Indices, "row"]
    base: Int[Indices, "row"]
    source: Int[Indices, "row"]
    choice: Int[Indices, "row"]
    same: Bool[NDArray[np.bool_], "row"]
    tokens: Int[Indices, "row token"]
    source_tokens: Int[Indices, "row token"]

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
        place = self.places[self.place[at]]
        tokens, source_tokens = (
            tuple(all_of[at, : place.tokens].tolist())
            for all_of in (self.tokens, self.source_tokens)
        )
        source = Source(
            self.runs[self.source[at]], place.source_point, source_tokens, place.source_features
        )
        patch = Patch(place.point, tokens, (source,), place.kind, place.features)
        return Row(self.runs[self.base[at]].base, (patch,), self.choices[self.choice[at]])

    def distinct(self) -> tuple[Indices, Indices]:
        """Returns the first index of each distinct row, in order, and for each row which of these it
        equals."""
        numbers = [self.place, self.base, self.source, self.choice]
        keys = np.column_stack([*numbers, self.tokens, self.source_tokens])
        _, first, inverse = np.unique(_as_one(keys), return_index=True, return_inverse=True)
        order = np.argsort(first)
        return first[order], np.argsort(order)[inverse.reshape(-1)]

    def unchanged(self) -> NDArray[np.bool_]:
        """Returns for each row whether it certainly equals the base's own run: it writes the value
        that is already there."""
        may = np.array([place.may_change_nothing for place in self.places])  # once for a task
        at_same = np.equal(self.tokens, self.source_tokens).all(axis=1)
        found: NDArray[np.bool_] = self.same & may[self.place] & at_same
        return found

    def lengths(self) -> Indices:
        """Returns the number of tokens of each row's base."""
        bases, base_of = np.unique(self.base, return_inverse=True)
        lengths = np.array([tokens_of(self.runs[base].base) for base in bases])
        return lengths[base_of.reshape(-1)]


def _as_one(keys: Int[Indices, "row column"]) -> NDArray[np.void]:
    """Returns each row of numbers as one value, which sorts faster than rows do."""
    keys = np.ascontiguousarray(keys)
    return keys.view(np.dtype((np.void, keys.dtype.itemsize * keys.shape[1])))[:, 0]
