"""Rows: runs of the network with patches.

Invariants: a row is a frozen value, so that equal rows are run once; a source is a run like any
other, and may itself be patched (serial interventions); tokens count from the first of the input.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from raysearch.core.events import Ids
from raysearch.engine.networks.network import ModelInput
from raysearch.engine.networks.point import Point
from raysearch.engine.patching.operations import Interchange, Operation

INTERCHANGE = Interchange()

Indices = NDArray[np.int64]
"""Positions in an array: of rows, tokens, layers or features."""

FeatureIndices = range | tuple[int, ...] | None
"""Coordinates of a component's vector, from 0. None: all."""


@dataclass(frozen=True, slots=True)
class Source:
    """The activation that a patch reads: these tokens and features at `point` in `run`."""

    run: "Row"
    point: Point
    tokens: Ids
    features: FeatureIndices = None


@dataclass(frozen=True, slots=True)
class Patch:
    """Applies `kind` to these features of these tokens at `point`. Sources have as many tokens and
    features as the patch."""

    point: Point
    tokens: Ids
    sources: tuple[Source, ...] = ()
    kind: Operation = INTERCHANGE
    features: FeatureIndices = None


@dataclass(frozen=True, slots=True)
class Row:
    """A run on `base` with `patches`, applied in order. Without patches: the run without
    intervention.

    `among`: ids that its answer is chosen from; empty: all.
    """

    base: ModelInput
    patches: tuple[Patch, ...] = ()
    among: Ids = ()
    _hash: int = field(default=0, init=False, repr=False, compare=False)

    def __hash__(self) -> int:
        """Computes the hash once: rows are looked up often, and a source is a row within a row."""
        if not self._hash:
            object.__setattr__(self, "_hash", hash((self.base, self.patches, self.among)) or 1)
        return self._hash

    @property
    def unpatched(self) -> "Row":
        """The run of the base without intervention, with the same choices."""
        return Row(self.base, (), self.among)

    def after(self, token: int) -> "Row":
        """Returns the run for the next token of an answer: `token` is appended, and the patches
        stay."""
        assert isinstance(self.base, tuple), "only a text goes on"
        return Row((*self.base, token), self.patches, self.among)


def swap(
    base: ModelInput,
    source: ModelInput,
    layer: int | None,
    tokens: Ids,
    component: str = "residual",
) -> Row:
    """Returns a plain interchange: the same tokens, the same whole activation."""
    point = Point(layer, component)
    return Row(base, (Patch(point, tokens, (Source(Row(source), point, tokens),)),))
