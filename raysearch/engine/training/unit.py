"""The unit that a fit is for, on every pair: the rows to run, and what base and source have there.

Invariants: all tokens of the unit are one vector, of the same width in every pair; base and source
are captured once; which rows travel together does not change while training goes on.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from raysearch.core.events import Encoded, Ids
from raysearch.core.hypothesis import Intervention, Subspace, Unit
from raysearch.engine.execution.activation_cache import ActivationCache
from raysearch.engine.execution.executors import Executor
from raysearch.engine.networks.components import Components
from raysearch.engine.networks.hooks import constant
from raysearch.engine.networks.network import ModelInput, Network
from raysearch.engine.networks.point import Point
from raysearch.engine.patching.build import build_row
from raysearch.engine.patching.edits import sources_of
from raysearch.engine.patching.operations import Collect
from raysearch.engine.patching.oracle import collect
from raysearch.engine.patching.rows import FeatureIndices, Patch, Row
from raysearch.errors import JobError, NotYetError


@dataclass(frozen=True, slots=True, eq=False)
class PairRow:
    """A pair at the unit, ready to run. `at`: its place among the unit's vectors; `free`: the
    base's own run is the outcome."""

    row: Row
    at: int
    free: bool
    company: Hashable
    joins: int


@dataclass(frozen=True, slots=True, eq=False)
class AnswerToken:
    """A token of an answer: the row that is to say it, the id that is wanted there and the base's
    own (as `losses_of` has them)."""

    lane: PairRow
    wanted: int
    own: int


@dataclass(frozen=True, slots=True, eq=False)
class CapturedUnit:
    """A unit on pairs, by the pair's index. `base`, `source`: float32, on the network's device.
    `tokens`: of the unit."""

    lanes: dict[int, PairRow]
    base: Float[Tensor, "pair width"]
    source: Float[Tensor, "pair width"]
    tokens: int

    @property
    def width(self) -> int:
        return self.base.shape[1]


def unit_of(intervention: Intervention) -> Unit:
    """Its only unit. Raises: JobError, NotYetError for what cannot be fit."""
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


def captured(
    network: Network,
    taps: Components,
    path: Executor,
    captures: ActivationCache,
    unit: Unit,
    pairs: Sequence[Encoded],
) -> CapturedUnit:
    """The unit, whole, on `pairs`. Raises: as `row_of`; JobError where its width is not the same in
    all pairs."""
    whole = Intervention((replace(unit, subspace=Subspace(coordinates=unit.subspace.coordinates)),))
    rows = {pair.index: build_row(pair, whole, taps) for pair in pairs}
    counts = {len(row.patches[0].tokens): index for index, row in rows.items()}
    if len(counts) > 1:
        (one, first), (other, second) = sorted(counts.items())[:2]
        raise JobError(
            f"position {unit.site.position!r} has {one} tokens in pair {first}, {other} in pair "
            f"{second}; "
            "a fitted subspace needs as many in every pair"
        )
    (tokens,) = counts
    patch = next(iter(rows.values())).patches[0]
    if tokens > 1 and any(
        network.firings(taps.at(patch.point).module, row.base) > 1 for row in rows.values()
    ):
        raise NotYetError(
            f"position {unit.site.position!r} has {tokens} steps of a recurrent network; fit a "
            f"subspace of one step"
        )
    base, source = _vectors(network, taps, path, captures, list(rows.values()))
    lanes = {
        index: PairRow(row, at, path.is_free(row), path.company(row), path.joins(row))
        for at, (index, row) in enumerate(rows.items())
    }
    return CapturedUnit(lanes, base, source, tokens)


def turns_of(path: Executor, lane: PairRow, wanted: Ids, own: Ids) -> tuple[AnswerToken, ...]:
    """A turn for each token of `wanted`, said after those before it: greedy decoding says `wanted`
    just where each is the arg max."""
    turns: list[AnswerToken] = []
    for at, token in enumerate(wanted):
        if at:
            row = lane.row.after(wanted[at - 1])
            lane = replace(lane, row=row, company=path.company(row), joins=path.joins(row))
        turns.append(AnswerToken(lane, token, own[at] if at < len(own) else token))
    return tuple(turns)


@constant()
def _vectors(
    network: Network,
    taps: Components,
    path: Executor,
    captures: ActivationCache,
    rows: Sequence[Row],
) -> tuple[Float[Tensor, "row width"], Float[Tensor, "row width"]]:
    """What base and source of each row have at its patch."""
    found: dict[Row, tuple[Tensor, Tensor]] = {}
    captures.want(patch.point.component for row in rows[:1] for patch in row.patches)
    for batch in path.batches(list(dict.fromkeys(rows))):
        reads = [_reads(row) for row in batch]
        if path.name == "plain":
            both = [[_plainly(network, taps, *read) for read in of_row] for of_row in reads]
        else:
            runs = captures.runs([*(Row(row.base) for row in batch), *sources_of(batch)])
            both = [
                [
                    _chosen(captures.at(runs[Row(given)], point), tokens, features)
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


def _plainly(
    network: Network,
    taps: Components,
    given: ModelInput,
    point: Point,
    tokens: Ids,
    features: FeatureIndices,
) -> Tensor:
    (seen,) = collect(network, taps, Row(given, (Patch(point, tokens, (), Collect(), features),)))
    return seen.flatten().float().clone()


def _chosen(
    seen: Float[Tensor, "token width"], tokens: Ids, features: FeatureIndices
) -> Float[Tensor, "width"]:
    chosen = seen[list(tokens)]
    return (chosen if features is None else chosen[:, list(features)]).flatten().float()


def inputs_of(rows: Sequence[Row]) -> dict[ModelInput, tuple[bool, int]]:
    """Of each distinct input of the rows, where it is first found: whether it is the source there,
    and which row."""
    found: dict[ModelInput, tuple[bool, int]] = {}
    for at, row in enumerate(rows):
        found.setdefault(row.patches[0].sources[0].run.base, (True, at))
    for at, row in enumerate(rows):
        found.setdefault(row.base, (False, at))
    return found
