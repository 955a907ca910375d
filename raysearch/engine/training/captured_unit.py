"""The unit that a featurizer is trained for, on every pair: the rows to run, and the activations of
base and source.

Invariants: all tokens of the unit form one vector, of the same width in every pair; base and source
are captured once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from raysearch.core.events import Encoded, Ids
from raysearch.core.hypothesis import Intervention, Subspace, Unit
from raysearch.engine.execution.activation_cache import ActivationCache
from raysearch.engine.execution.executors import Executor
from raysearch.engine.networks.components import Components
from raysearch.engine.networks.gradient_mode import without_gradients
from raysearch.engine.networks.network import ModelInput, Network
from raysearch.engine.networks.point import Point
from raysearch.engine.patching.build import build_row
from raysearch.engine.patching.edits import chosen, sources_of
from raysearch.engine.patching.operations import Collect
from raysearch.engine.patching.oracle import collect
from raysearch.engine.patching.rows import FeatureIndices, Patch, Row
from raysearch.errors import JobError, NotYetError


@dataclass(frozen=True, slots=True, eq=False)
class CapturedUnit:
    """The unit on a sequence of pairs, in their order. `base`, `source`: its activations, float32,
    on the network's device. `free`: whether the row's outcome equals the base's own run. `tokens`:
    number of tokens of the unit."""

    rows: tuple[Row, ...]
    free: Bool[NDArray[np.bool_], "pair"]
    base: Float[Tensor, "pair width"]
    source: Float[Tensor, "pair width"]
    tokens: int

    @property
    def width(self) -> int:
        return self.base.shape[1]

    @property
    def nbytes(self) -> int:
        return self.base.nbytes + self.source.nbytes


def unit_of(intervention: Intervention) -> Unit:
    """Returns the only unit. Raises: JobError, NotYetError for an intervention that cannot be
    trained."""
    if len(intervention.units) != 1:
        raise NotYetError(
            f"a subspace of {len(intervention.units)} units is not fit yet; name one unit"
        )
    if intervention.kind != "interchange":
        raise JobError(
            f"a fitted subspace is interchanged, and cannot be of kind {intervention.kind!r}"
        )
    (unit,) = intervention.units
    if unit.source_site is not None and unit.source_site.component != unit.site.component:
        raise NotYetError(
            "a subspace between two components is not fit yet; take from the same component"
        )
    return unit


def capture_unit(
    network: Network,
    hook_points: Components,
    executor: Executor,
    cache: ActivationCache,
    unit: Unit,
    pairs: Sequence[Encoded],
) -> CapturedUnit:
    """Captures the whole unit on `pairs`. Raises: as `build_row`; JobError if its width differs
    between pairs."""
    whole = Intervention((replace(unit, subspace=Subspace(coordinates=unit.subspace.coordinates)),))
    rows = [build_row(pair, whole, hook_points) for pair in pairs]
    counts = {len(row.patches[0].tokens): pair.index for pair, row in zip(pairs, rows, strict=True)}
    if len(counts) > 1:
        (one, first), (other, second) = sorted(counts.items())[:2]
        raise JobError(
            f"position {unit.site.position!r} has {one} tokens in pair {first}, {other} in pair "
            f"{second}; "
            "a fitted subspace needs as many in every pair"
        )
    (tokens,) = counts
    patch = rows[0].patches[0]
    if tokens > 1 and any(
        network.firings(hook_points.at(patch.point).module, row.base) > 1 for row in rows
    ):
        raise NotYetError(
            f"position {unit.site.position!r} has {tokens} steps of a recurrent network; fit a "
            f"subspace of one step"
        )
    base, source = _vectors(network, hook_points, executor, cache, rows)
    free = np.array([executor.is_free(row) for row in rows])
    return CapturedUnit(tuple(rows), free, base, source, tokens)


@without_gradients()
def _vectors(
    network: Network,
    hook_points: Components,
    executor: Executor,
    cache: ActivationCache,
    rows: Sequence[Row],
) -> tuple[Float[Tensor, "row width"], Float[Tensor, "row width"]]:
    """Returns the activations of base and source at the patch of each row."""
    found: dict[Row, tuple[Tensor, Tensor]] = {}
    cache.wanted.points(patch.point for row in rows[:1] for patch in row.patches)
    for batch in executor.batches(list(dict.fromkeys(rows))):
        reads = [_reads(row) for row in batch]
        if executor.name == "plain":
            both = [[_read_one(network, hook_points, *read) for read in of_row] for of_row in reads]
        else:
            runs = cache.runs([*(Row(row.base) for row in batch), *sources_of(batch)])
            both = [
                [
                    chosen(cache.at(runs[Row(given)], point), tokens, features).flatten().float()
                    for given, point, tokens, features in of_row
                ]
                for of_row in reads
            ]
        found.update({row: (base, source) for row, (base, source) in zip(batch, both, strict=True)})
    base, source = zip(*(found[row] for row in rows), strict=True)
    return torch.stack(base), torch.stack(source)


_Read = tuple[ModelInput, Point, Ids, FeatureIndices]


def _reads(row: Row) -> tuple[_Read, _Read]:
    (patch,) = row.patches
    (source,) = patch.sources
    return (
        (row.base, patch.point, patch.tokens, patch.features),
        (source.run.base, source.point, source.tokens, source.features),
    )


def _read_one(
    network: Network,
    hook_points: Components,
    given: ModelInput,
    point: Point,
    tokens: Ids,
    features: FeatureIndices,
) -> Float[Tensor, "flat"]:
    (seen,) = collect(
        network, hook_points, Row(given, (Patch(point, tokens, (), Collect(), features),))
    )
    return seen.flatten().float().clone()


def inputs_of(rows: Sequence[Row]) -> dict[ModelInput, tuple[bool, int]]:
    """Returns for each distinct input its first occurrence: whether it is a source there, and the
    index of the row."""
    found: dict[ModelInput, tuple[bool, int]] = {}
    for at, row in enumerate(rows):
        found.setdefault(row.patches[0].sources[0].run.base, (True, at))
    for at, row in enumerate(rows):
        found.setdefault(row.base, (False, at))
    return found
