"""Runs that were computed in one batch, stored as the batch's own tensors.

Runs are views of these tensors, so that nothing is copied for a run, and activations of many runs
are read in one operation for each batch.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from raysearch.engine.execution.read_spans import ReadSpan
from raysearch.engine.patching.rows import Indices as Indices

Layers = Tensor | Sequence[Tensor]
"""One tensor for each layer, stacked if they have one shape."""

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

    def shapes(self, tokens: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields tensors in the shape of keys and values (1, head, token, d_head) of `tokens`
        tokens of each layer."""
        assert self.keys is not None, "a run without keys and values cannot be replayed on"
        assert self.values is not None
        both = list(zip(unstacked(self.keys), unstacked(self.values), strict=True))
        for some in [both[0]] * self.first_layer + both:
            keys, values = (t.new_zeros(()).expand(1, t.shape[1], tokens, t.shape[3]) for t in some)
            yield keys, values

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


def _of_rows(layers: Layers, rows: Sequence[int]) -> Layers:
    return layers[:, rows] if isinstance(layers, Tensor) else [layer[rows] for layer in layers]


def unstacked(layers: Layers) -> Sequence[Tensor]:
    """Returns one tensor for each layer."""
    return layers.unbind() if isinstance(layers, Tensor) else layers


def stacked(layers: Sequence[Tensor]) -> Layers:
    """Stacks the layers into one tensor if their shapes allow it."""
    alike = len({(t.shape, t.device, t.dtype) for t in layers}) == 1
    return torch.stack(list(layers)) if alike else layers


@dataclass(frozen=True, slots=True, eq=False)
class RunTable:
    """Many runs as arrays: of each the index of its batch, and its fields as in `CachedRun`."""

    batches: Sequence[StoredBatch]
    batch: Int[Indices, "run"]
    row: Int[Indices, "run"]
    pad: Int[Indices, "run"]
    base: Int[Indices, "run"]
    key_pad: Int[Indices, "run"]
    keys: Int[Indices, "run"]

    @staticmethod
    def of(runs: Sequence[CachedRun]) -> "RunTable":
        """Returns the table of `runs`, at least one."""
        batches = {id(run.batch): run.batch for run in runs}
        number = {key: at for at, key in enumerate(batches)}
        fields = [(number[id(r.batch)], r.row, r.pad, r.base, r.key_pad, r.span.keys) for r in runs]
        return RunTable(list(batches.values()), *np.array(fields, dtype=np.int64).T)

    def __len__(self) -> int:
        return len(self.batch)

    def take(self, at: Indices) -> "RunTable":
        """Returns the runs of these indices."""
        fields = self.batch, self.row, self.pad, self.base, self.key_pad, self.keys
        return RunTable(self.batches, *(field[at] for field in fields))

    def by_batch(self, pads: Indices) -> Iterator[tuple[StoredBatch, int, Indices]]:
        """Yields each batch and padding with the indices of its runs."""
        first, which = np.unique(np.stack((self.batch, pads)), axis=1, return_inverse=True)
        for at, (batch, pad) in enumerate(first.T.tolist()):
            yield self.batches[batch], pad, np.flatnonzero(which.reshape(-1) == at)


def gather(
    runs: RunTable, run_of: Indices, component: str, layer_of: Indices, tokens: Tokens
) -> Float[Tensor, "item token width"]:
    """Returns activations of many runs in one tensor: for each item those of its run (an index in
    `runs`) and layer (an index among those of `component`) at its tokens.

    A few operations for each batch that the runs are of.
    """
    parts, items_of = [], []
    of_items = runs.take(run_of)
    for batch, pad, items in of_items.by_batch(of_items.pad):
        columns = _shifted(tokens, pad) if isinstance(tokens, slice) else tokens[items] + pad
        stored, rows = batch.activations[component], of_items.row[items]
        places = batch.places[component][layer_of[items]]
        assert (places >= 0).all(), f"{component} is not stored in every layer"
        assert isinstance(columns, slice) or (columns >= 0).all(), "tokens are not stored"
        parts.append(_picked(stored, places, rows, columns))
        items_of.append(items)
    return _in_order(parts, items_of, 0)


def prefixes(
    runs: RunTable, of: Callable[[StoredBatch], Layers | None], tokens: int, layer: int
) -> Layers:
    """Returns keys or values (layer, run, head, token, d_head) of the first tokens of runs, from a
    layer on. `of`: returns those of a batch. A few operations for each batch; nothing is copied if
    the runs follow each other in one."""
    assert (runs.keys >= tokens).all(), "keys of earlier tokens are stored"
    places: list[Indices] = []
    parts: list[Layers] = []
    for batch, pad, at in runs.by_batch(runs.key_pad):
        layers, rows = of(batch), runs.base[at]
        assert layers is not None, "a run without keys and values cannot be replayed on"
        columns, above = slice(pad, pad + tokens), slice(layer - batch.first_layer, None)
        assert above.start >= 0, "keys of lower layers are not stored"
        if isinstance(layers, Tensor):
            parts.append(_of_bases(layers[above, :, :, columns], rows, 1))
        else:
            parts.append([_of_bases(t[:, :, columns], rows, 0) for t in layers[above]])
        places.append(at)
    stacks = [part for part in parts if isinstance(part, Tensor)]
    if len(stacks) == len(parts):
        return _in_order(stacks, places, 1)
    of_layers = zip(*map(unstacked, parts), strict=True)
    return [_in_order(of_layer, places, 0) for of_layer in of_layers]


def _of_bases(stored: Tensor, rows: Indices, dimension: int) -> Tensor:
    """Returns some entries along a dimension; those that follow each other are not copied."""
    if (np.diff(rows) == 1).all():
        return stored.narrow(dimension, int(rows[0]), len(rows))
    return stored.index_select(dimension, on_device(rows, stored.device))


def on_device(numbers: Tensor | Indices, device: torch.device) -> Tensor:
    """Returns numbers of the host on a device, without waiting for it."""
    tensor = numbers if isinstance(numbers, Tensor) else torch.from_numpy(numbers)
    return tensor.to(device, non_blocking=True)


def _in_order(parts: Sequence[Tensor], places: Sequence[Indices], dimension: int) -> Tensor:
    """Joins parts along a dimension, each of whose entries goes to its place."""
    if len(parts) == 1:
        return parts[0]
    joined = torch.cat([part.to(parts[0].device) for part in parts], dimension)
    back = on_device(np.argsort(np.concatenate(places)), joined.device)
    return joined.index_select(dimension, back)


def _shifted(tokens: slice, pad: int) -> slice:
    assert tokens.start + pad >= 0, "tokens that are not stored"
    return slice(tokens.start + pad, None if tokens.stop is None else tokens.stop + pad)


def _picked(
    layers: Layers, layer_of: Indices, row_of: Indices, tokens: Tokens
) -> Float[Tensor, "item token width"]:
    """Returns of each item the tokens of a layer and a run."""
    if isinstance(layers, Tensor):
        layer_at, row_at = (on_device(of, layers.device) for of in (layer_of, row_of))
        if isinstance(tokens, slice):
            return layers[layer_at, row_at, tokens]
        columns = on_device(tokens, layers.device)
        return layers[layer_at[:, None], row_at[:, None], columns]
    items = range(len(layer_of))
    chosen = [
        layers[layer_of[at]][
            row_of[at], tokens if isinstance(tokens, slice) else tokens[at].tolist()
        ]
        for at in items
    ]
    return torch.stack([activation.to(chosen[0].device) for activation in chosen])
