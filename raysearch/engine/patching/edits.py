"""Turns rows into hooks: all patches of a batch at one place as one edit.

Invariants: patches of one row act in order; each row is written at its own columns of the batch
only; equal patches (same point, kind, features, number of tokens) are computed together.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from raysearch.core.events import Ids
from raysearch.engine.networks.components import Components, HookPoint
from raysearch.engine.networks.hooks import Activation, Edit, HookCall, HookSide
from raysearch.engine.networks.point import Point
from raysearch.engine.networks.to_device import on_device
from raysearch.engine.patching.operations import Operation
from raysearch.engine.patching.rows import FeatureIndices, Indices, Patch, Row, Source
from raysearch.errors import PositionError

ReadSource = Callable[[Source], Float[Tensor, "token width"]]
"""Returns the component that a source refers to, at all tokens of its run."""

Replacements = Sequence[Float[Tensor, "_token _feature"]]
"""The activations, one a row, for its only patch, instead of its source's. Gradients may flow to
them."""


@dataclass(frozen=True, slots=True)
class Writes:
    """Equal patches at one place, written together: applies `kind` to `features` of the tokens at
    (`rows`, `columns`) of the batch. `replacements`: the sources' activations, if `kind` needs any.
    """

    hook_point: HookPoint
    kind: Operation
    features: FeatureIndices
    rows: Int[Indices, "item token"]
    columns: Int[Indices, "item token"]
    replacements: Float[Tensor, "item token feature"] | None


@dataclass(slots=True)
class _Collected:
    """Equal patches as they are found, one after the other."""

    hook_point: HookPoint
    kind: Operation
    features: FeatureIndices
    rows: list[list[int]] = field(default_factory=list)
    columns: list[list[int]] = field(default_factory=list)
    replacements: list[Float[Tensor, "_token _feature"]] = field(default_factory=list)

    def together(self) -> Writes:
        """Returns them as tensors."""
        return Writes(
            self.hook_point,
            self.kind,
            self.features,
            np.array(self.rows),
            np.array(self.columns),
            torch.stack(self.replacements) if self.replacements else None,
        )


def edits_of(
    rows: Sequence[Row],
    hook_points: Components,
    read_source: ReadSource,
    replacements: Replacements | None = None,
) -> list[tuple[HookPoint, Edit]]:
    """Returns for each module and side that is patched its hook point and an edit that writes all
    patches of the rows there."""
    places = _by_module(enumerate(rows), hook_points).values()
    return [
        (
            hook_point,
            edit_of(_round_by_round(of_rows, hook_points, read_source, replacements)),
        )
        for hook_point, of_rows in places
    ]


def edit_of(rounds: Sequence[Writes]) -> Edit:
    """Returns an edit that makes all writes to a copy of the activation, one after the other."""
    first_column = min(int(writes.columns.min()) for writes in rounds)
    last_column = max(int(writes.columns.max()) for writes in rounds)

    def edit(activation: Activation, hook_call: HookCall) -> Activation | None:
        end = hook_call.first + activation.shape[1]
        if hook_call.last and last_column >= end:
            raise PositionError(
                f"an activation of {end} tokens has no token {last_column} (from 0); "
                f"name one it has"
            )
        if first_column >= end or last_column < hook_call.first:
            return None
        edited = activation.clone()
        for writes in rounds:
            _write(edited, writes, hook_call.first)
        return edited

    return edit


def _write(edited: Float[Tensor, "row token width"], writes: Writes, first: int) -> None:
    """Writes in place; the activation's first column is `first`. If only some tokens of a unit run
    now (steps of a recurrent network), each token is written by itself."""
    device, tokens = edited.device, writes.rows.shape[1]
    rows, columns = writes.rows.flatten(), writes.columns.flatten() - first
    replacements = writes.replacements
    if replacements is not None:
        replacements = replacements.to(device=device, dtype=edited.dtype)
    now = (columns >= 0) & (columns < edited.shape[1])
    if not now.all():
        rows, columns, tokens = rows[now], columns[now], 1
        if replacements is not None:
            replacements = replacements.flatten(0, 1)[on_device(now.nonzero()[0], device), None]
        if not len(rows):
            return
    where = tuple(on_device(at, device) for at in (rows, columns))
    vector = hook_columns(writes.hook_point, writes.features)
    if vector is not None:
        vector = on_device(vector, device)
    base = _items(edited[where], vector, tokens)
    new = writes.kind.forward(base, replacements).flatten(0, 1)
    if vector is None:
        edited[where] = new
    else:
        edited[where[0][:, None], where[1][:, None], vector] = new


def hook_columns(hook_point: HookPoint, features: FeatureIndices) -> Int[Tensor, "feature"] | None:
    """Returns the columns of these features in the module's activation. None: all."""
    if features is None:
        return hook_point.columns
    chosen = torch.tensor(list(features))
    return chosen if hook_point.columns is None else hook_point.columns[chosen]


def replacement_of(patch: Patch, read_source: ReadSource) -> Float[Tensor, "token feature"] | None:
    """Returns the activation that replaces the patched one, of shape (token, feature): that of the
    patch's source, or the mean over several. None if nothing comes from a source.

    Raises: PositionError for a source with fewer tokens than needed.
    """
    if not patch.kind.reads_source:
        return None
    return (
        torch.stack([_source_tokens(source, read_source(source)) for source in patch.sources]).mean(
            0
        )
        if len(patch.sources) > 1
        else _source_tokens(patch.sources[0], read_source(patch.sources[0]))
    )


def check_has_tokens(source: Source, count: int) -> None:
    """Raises: PositionError if the source's run, of so many tokens, lacks one that is read."""
    if max(source.tokens) >= count:
        raise PositionError(
            f"the source has {count} tokens; token {max(source.tokens)} (from 0) is to be "
            f"read; name one that it has"
        )


def _source_tokens(
    source: Source, seen: Float[Tensor, "token width"]
) -> Float[Tensor, "chosen feature"]:
    check_has_tokens(source, len(seen))
    return chosen(seen, source.tokens, source.features)


def chosen(
    seen: Float[Tensor, "token width"], tokens: Ids, features: FeatureIndices
) -> Float[Tensor, "chosen feature"]:
    """Returns a copy of some features of some tokens, without waiting for the device."""
    of_tokens = seen[on_device(tokens, seen.device)]
    return of_tokens if features is None else of_tokens[:, on_device(features, seen.device)]


def _items(
    tokens: Float[Tensor, "flat width"], vector: Int[Tensor, "feature"] | None, count: int
) -> Float[Tensor, "item token feature"]:
    features = tokens if vector is None else tokens[:, vector]
    return features.reshape(-1, count, features.shape[-1])


_Numbered = list[tuple[int, list[Patch]]]


def _by_module(
    rows: Iterable[tuple[int, Row]], hook_points: Components
) -> dict[tuple[int, HookSide], tuple[HookPoint, _Numbered]]:
    """Returns for each module and side the rows that are patched there, in order, with their
    patches."""
    places: dict[tuple[int, HookSide], tuple[HookPoint, _Numbered]] = {}
    for at, row in rows:
        own: dict[tuple[int, HookSide], list[Patch]] = {}
        for patch in row.patches:
            hook_point = hook_points.at(patch.point)
            place = id(hook_point.module), hook_point.side
            own.setdefault(place, []).append(patch)
            places.setdefault(place, (hook_point, []))
        for place, patches in own.items():
            places[place][1].append((at, patches))
    return places


def _round_by_round(
    rows: _Numbered,
    hook_points: Components,
    read_source: ReadSource,
    replacements: Replacements | None,
) -> list[Writes]:
    """Groups the first patches of all rows, then the second ones, and so on; in each round equal
    patches together."""
    rounds: dict[tuple[int, Point, Operation, FeatureIndices, int], _Collected] = {}
    for at, patches in rows:
        for order, patch in enumerate(patches):
            alike = order, patch.point, patch.kind, patch.features, len(patch.tokens)
            writes = rounds.get(alike)
            if writes is None:
                hook_point = hook_points.at(patch.point)
                writes = rounds[alike] = _Collected(hook_point, patch.kind, patch.features)
            writes.rows.append([at] * len(patch.tokens))
            writes.columns.append(list(patch.tokens))
            own = replacement_of(patch, read_source) if replacements is None else replacements[at]
            if own is not None:
                writes.replacements.append(own)
    return [rounds[alike].together() for alike in sorted(rounds, key=lambda alike: alike[0])]


def sources_of(rows: Iterable[Row]) -> Mapping[Row, set[Point]]:
    """Returns the source runs of the rows, and the points that are read from each."""
    wanted: dict[Row, set[Point]] = {}
    for row in rows:
        for patch in row.patches:
            for source in patch.sources:
                wanted.setdefault(source.run, set()).add(source.point)
    return wanted
