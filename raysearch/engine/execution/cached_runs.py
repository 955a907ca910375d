"""Runs that were computed in one batch, stored as the batch's own tensors.

Runs are views of these tensors, so that nothing is copied for a run, and activations of many runs
are read in one operation for each batch.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from raysearch.engine.execution.read_spans import ReadSpan

Layers = Tensor | Sequence[Tensor]
"""One tensor for each layer, stacked if they have one shape."""

Indices = NDArray[np.int64]
Tokens = slice | Indices
"""The same tokens of all items, or (item, token)."""


@dataclass(frozen=True, slots=True, eq=False)
class StoredBatch:
    """Activations of runs that were padded to one length, at the left.

    Args:
        activations: for each component (layer, run, token, width).
        places: for each component, the index in `activations` of each of its layers (-1: none).
        keys, values: (layer, base, head, token, d_head) of those runs that are bases; None if they
            are not stored.
        first_layer: the first layer whose keys and values are stored.
        runs: their number.
    """

    activations: Mapping[str, Layers]
    places: Mapping[str, Indices]
    keys: Layers | None
    values: Layers | None
    first_layer: int
    runs: int
    nbytes: int = field(init=False)

    def __post_init__(self) -> None:
        stored = [*self.activations.values(), self.keys, self.values]
        parts = (t for layers in stored if layers is not None for t in unstacked(layers))
        object.__setattr__(self, "nbytes", sum(t.nbytes for t in parts))

    def part(self, runs: "Sequence[CachedRun]") -> "list[CachedRun]":
        """Returns some runs with a copy of their activations."""
        rows, bases = [run.row for run in runs], [run.base for run in runs if run.base >= 0]
        activations = {name: _of_rows(of, rows) for name, of in self.activations.items()}
        keys, values = (
            None if of is None else _of_rows(of, bases) for of in (self.keys, self.values)
        )
        batch = replace(self, activations=activations, keys=keys, values=values, runs=len(rows))
        number = {base: at for at, base in enumerate(bases)}
        return [
            replace(run, batch=batch, row=at, base=number.get(run.base, -1))
            for at, run in enumerate(runs)
        ]


@dataclass(frozen=True, slots=True, eq=False)
class CachedRun:
    """One run of a batch: its index `row` there, and the column of its first token, which is
    negative if tokens are left out.

    Args:
        base: its index among the bases of the batch (-1: its keys and values are not stored).
        key_pad: the column of its first token in these.
        span: its tokens that are stored.
        blocks: the number of blocks that ran; None: all. Activations of later ones are missing.
    """

    batch: StoredBatch
    row: int
    pad: int
    span: ReadSpan
    base: int = -1
    key_pad: int = 0
    blocks: int | None = None

    @property
    def nbytes(self) -> int:
        """The bytes of the run, with its padding."""
        return self.batch.nbytes // self.batch.runs

    def has(self, component: str, places: Collection[int]) -> bool:
        """Returns whether the component was stored at all layers of these indices."""
        stored = self.batch.places.get(component)
        return stored is not None and bool((stored[list(places)] >= 0).all())

    def at(self, component: str, layer: int) -> Float[Tensor, "token width"]:
        """Returns the activation of a component at the layer of this index; NaN for tokens that
        are not stored."""
        place = self.batch.places[component][layer]
        assert place >= 0, f"{component} is not stored in every layer"
        found: Tensor = self.batch.activations[component][place][self.row]
        if self.pad >= 0:
            return found[self.pad :]
        return torch.cat((found.new_full((-self.pad, found.shape[1]), torch.nan), found))

    def shapes(self, tokens: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields tensors in the shape of keys and values (1, head, token, d_head) of `tokens`
        tokens of each layer."""
        keys, values = self.batch.keys, self.batch.values
        assert keys is not None, "a run without keys and values cannot be replayed on"
        assert values is not None
        both = list(zip(unstacked(keys), unstacked(values), strict=True))
        for some in [both[0]] * self.batch.first_layer + both:
            yield tuple(t.new_zeros(()).expand(1, t.shape[1], tokens, t.shape[3]) for t in some)  # type: ignore[misc]


def _of_rows(layers: Layers, rows: Sequence[int]) -> Layers:
    return layers[:, rows] if isinstance(layers, Tensor) else [layer[rows] for layer in layers]


def unstacked(layers: Layers) -> Sequence[Tensor]:
    """Returns one tensor for each layer."""
    return layers.unbind() if isinstance(layers, Tensor) else layers


def stacked(layers: Sequence[Tensor]) -> Layers:
    """Stacks the layers into one tensor if their shapes allow it."""
    alike = len({(t.shape, t.device, t.dtype) for t in layers}) == 1
    return torch.stack(list(layers)) if alike else layers


def gather(
    runs: Sequence[CachedRun], run_of: Indices, component: str, layer_of: Indices, tokens: Tokens
) -> Float[Tensor, "item token width"]:
    """Returns activations of many runs in one tensor: for each item those of its run (an index in
    `runs`) and layer (an index among those of `component`) at its tokens.

    A few operations for each batch that the runs are of.
    """
    parts, items_of = [], []
    for (batch, pad), of_batch in _by_batch(runs, lambda run: run.pad).items():
        row_in = np.full(len(runs), -1)
        row_in[of_batch] = [runs[at].row for at in of_batch]
        items = np.flatnonzero(row_in[run_of] >= 0)
        if len(items):
            columns = _shifted(tokens, pad) if isinstance(tokens, slice) else tokens[items] + pad
            stored, rows = batch.activations[component], row_in[run_of[items]]
            places = batch.places[component][layer_of[items]]
            assert (places >= 0).all(), f"{component} is not stored in every layer"
            assert isinstance(columns, slice) or (columns >= 0).all(), "tokens are not stored"
            parts.append(_picked(stored, places, rows, columns))
            items_of.append(items)
    return _in_order(parts, items_of, 0)


def prefixes(
    runs: Sequence[CachedRun], of: Callable[[StoredBatch], Layers | None], tokens: int, layer: int
) -> Layers:
    """Returns keys or values (layer, run, head, token, d_head) of the first tokens of runs, from a
    layer on. `of`: returns those of a batch. A few operations for each batch."""
    by_batch = _by_batch(runs, lambda run: run.key_pad)
    places = list(by_batch.values())
    parts: list[Layers] = []
    for (batch, pad), at in by_batch.items():
        assert all(runs[place].span.keys >= tokens for place in at), "keys of earlier tokens"
        layers, rows = of(batch), torch.tensor([runs[place].base for place in at])
        assert layers is not None, "a run without keys and values cannot be replayed on"
        columns, above = slice(pad, pad + tokens), slice(layer - batch.first_layer, None)
        assert above.start >= 0, "keys of lower layers are not stored"
        if isinstance(layers, Tensor):
            some = layers[above, :, :, columns]
            parts.append(some.index_select(1, rows.to(some.device)))
        else:
            picked = [t[:, :, columns].index_select(0, rows.to(t.device)) for t in layers[above]]
            parts.append(picked)
    stacks = [part for part in parts if isinstance(part, Tensor)]
    if len(stacks) == len(parts):
        return _in_order(stacks, places, 1)
    of_layers = zip(*map(unstacked, parts), strict=True)
    return [_in_order(of_layer, places, 0) for of_layer in of_layers]


def _by_batch(
    runs: Sequence[CachedRun], pad: Callable[[CachedRun], int]
) -> dict[tuple[StoredBatch, int], list[int]]:
    """Returns the indices of runs by their batch and padding."""
    found: dict[tuple[StoredBatch, int], list[int]] = {}
    for at, run in enumerate(runs):
        found.setdefault((run.batch, pad(run)), []).append(at)
    return found


def _in_order(
    parts: Sequence[Tensor], places: Sequence[Sequence[int] | Indices], dimension: int
) -> Tensor:
    """Joins parts along a dimension, each of whose entries goes to its place."""
    if len(parts) == 1:
        return parts[0]
    joined = torch.cat([part.to(parts[0].device) for part in parts], dimension)
    back = torch.from_numpy(np.argsort(np.concatenate(places))).to(joined.device)
    return joined.index_select(dimension, back)


def _shifted(tokens: slice, pad: int) -> slice:
    assert tokens.start + pad >= 0, "tokens that are not stored"
    return slice(tokens.start + pad, None if tokens.stop is None else tokens.stop + pad)


def _picked(
    layers: Layers, layer_of: Indices, row_of: Indices, tokens: Tokens
) -> Float[Tensor, "item token width"]:
    """Returns of each item the tokens of a layer and a run."""
    if isinstance(layers, Tensor):
        layer_at, row_at = (torch.from_numpy(of).to(layers.device) for of in (layer_of, row_of))
        if isinstance(tokens, slice):
            return layers[layer_at, row_at, tokens]
        columns = torch.from_numpy(tokens).to(layers.device)
        return layers[layer_at[:, None], row_at[:, None], columns]
    items = range(len(layer_of))
    chosen = [
        layers[layer_of[at]][
            row_of[at], tokens if isinstance(tokens, slice) else tokens[at].tolist()
        ]
        for at in items
    ]
    return torch.stack([activation.to(chosen[0].device) for activation in chosen])
