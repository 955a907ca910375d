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
from raysearch.engine.networks.to_device import on_device as on_device
from raysearch.engine.patching.rows import Indices as Indices

Layers = Tensor | Sequence[Tensor]
"""One tensor for each layer, stacked if they have one shape."""

Tokens = slice | Indices
"""The same tokens of all items, or (item, token)."""


@dataclass(frozen=True, slots=True, eq=False)
class StoredBatch:
    """Activations of runs of inputs of one length.

    Args:
        activations: for each component (layer, run, token, width).
        places: for each component, the index in `activations` of each of its layers (-1: none).
        keys, values: (layer, base, head, token, d_head) of those runs that are bases; None if they
            are not stored.
        first_layer: the first layer whose keys and values are stored.
        runs: their number.
        first_token: the first token whose activations are stored.
    """

    activations: Mapping[str, Layers]
    places: Mapping[str, Indices]
    keys: Layers | None
    values: Layers | None
    first_layer: int
    runs: int
    first_token: int
    nbytes: int = field(init=False)

    def __post_init__(self) -> None:
        stored = [*self.activations.values(), self.keys, self.values]
        parts = (t for layers in stored if layers is not None for t in unstack(layers))
        object.__setattr__(self, "nbytes", sum(t.nbytes for t in parts))

    def shapes(self, tokens: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields tensors in the shape of keys and values (1, head, token, d_head) of `tokens`
        tokens of each layer."""
        assert self.keys is not None, "a run without keys and values cannot be replayed on"
        assert self.values is not None
        both = list(zip(unstack(self.keys), unstack(self.values), strict=True))
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
    """One run of a batch, and its index `row` there.

    Args:
        span: its tokens that are stored.
        base: its index among the bases of the batch (-1: its keys and values are not stored).
        blocks: the number of blocks that ran; None: all. Activations of later ones are missing.
    """

    batch: StoredBatch
    row: int
    span: ReadSpan
    base: int = -1
    blocks: int | None = None

    @property
    def nbytes(self) -> int:
        """The bytes of the run."""
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
        if not self.batch.first_token:
            return found
        before = found.new_full((self.batch.first_token, found.shape[1]), torch.nan)
        return torch.cat((before, found))


def _of_rows(layers: Layers, rows: Sequence[int]) -> Layers:
    return layers[:, rows] if isinstance(layers, Tensor) else [layer[rows] for layer in layers]


def unstack(layers: Layers) -> Sequence[Tensor]:
    """Returns one tensor for each layer."""
    return layers.unbind() if isinstance(layers, Tensor) else layers


def stack_layers(layers: Sequence[Tensor]) -> Layers:
    """Stacks the layers into one tensor if their shapes allow it."""
    alike = len({(t.shape, t.device, t.dtype) for t in layers}) == 1
    return torch.stack(list(layers)) if alike else layers


@dataclass(frozen=True, slots=True, eq=False)
class RunTable:
    """Many runs as arrays: of each the index of its batch, and its fields as in `CachedRun`."""

    batches: Sequence[StoredBatch]
    batch: Int[Indices, "run"]
    row: Int[Indices, "run"]
    base: Int[Indices, "run"]
    keys: Int[Indices, "run"]

    @staticmethod
    def of(runs: Sequence[CachedRun]) -> "RunTable":
        """Returns the table of `runs`, at least one."""
        batches = {id(run.batch): run.batch for run in runs}
        number = {key: at for at, key in enumerate(batches)}
        fields = [(number[id(run.batch)], run.row, run.base, run.span.keys) for run in runs]
        return RunTable(list(batches.values()), *np.array(fields, dtype=np.int64).T)

    def __len__(self) -> int:
        return len(self.batch)

    def extended(self, more: "RunTable") -> "RunTable":
        """Returns the table with the runs of another one after its own."""
        number = {id(batch): at for at, batch in enumerate(self.batches)}
        for batch in more.batches:
            number.setdefault(id(batch), len(number))
        batches = [*self.batches, *(b for b in more.batches if number[id(b)] >= len(self.batches))]
        theirs = np.array([number[id(batch)] for batch in more.batches])[more.batch]
        return RunTable(
            batches,
            np.concatenate((self.batch, theirs)),
            *(
                np.concatenate(both)
                for both in ((self.row, more.row), (self.base, more.base), (self.keys, more.keys))
            ),
        )

    def take(self, at: Indices) -> "RunTable":
        """Returns the runs of these indices."""
        fields = self.batch, self.row, self.base, self.keys
        return RunTable(self.batches, *(field[at] for field in fields))

    def by_batch(self) -> Iterator[tuple[StoredBatch, Indices]]:
        """Yields each batch with the indices of its runs."""
        for at in np.unique(self.batch).tolist():
            yield self.batches[at], np.flatnonzero(self.batch == at)


def gather(
    runs: RunTable, run_of: Indices, component: str, layer_of: Indices, tokens: Tokens
) -> Float[Tensor, "item token width"]:
    """Returns activations of many runs in one tensor: for each item those of its run (an index in
    `runs`) and layer (an index among those of `component`) at its tokens.

    A few operations for each batch that the runs are of.
    """
    parts, items_of = [], []
    of_items = runs.take(run_of)
    for batch, items in of_items.by_batch():
        columns = _columns(tokens if isinstance(tokens, slice) else tokens[items], batch)
        stored, rows = batch.activations[component], of_items.row[items]
        places = batch.places[component][layer_of[items]]
        assert (places >= 0).all(), f"{component} is not stored in every layer"
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
    for batch, at in runs.by_batch():
        layers, rows = of(batch), runs.base[at]
        assert layers is not None, "a run without keys and values cannot be replayed on"
        above = slice(layer - batch.first_layer, None)
        assert above.start >= 0, "keys of lower layers are not stored"
        if isinstance(layers, Tensor):
            parts.append(_of_bases(layers[above, :, :, :tokens], rows, 1))
        else:
            parts.append([_of_bases(t[:, :, :tokens], rows, 0) for t in layers[above]])
        places.append(at)
    stacks = [part for part in parts if isinstance(part, Tensor)]
    if len(stacks) == len(parts):
        return _in_order(stacks, places, 1)
    of_layers = zip(*map(unstack, parts), strict=True)
    return [_in_order(of_layer, places, 0) for of_layer in of_layers]


def _of_bases(stored: Tensor, rows: Indices, dimension: int) -> Tensor:
    """Returns some entries along a dimension; those that follow each other are not copied."""
    if (np.diff(rows) == 1).all():
        return stored.narrow(dimension, int(rows[0]), len(rows))
    return stored.index_select(dimension, on_device(rows, stored.device))


def _in_order(parts: Sequence[Tensor], places: Sequence[Indices], dimension: int) -> Tensor:
    """Joins parts along a dimension, each of whose entries goes to its place."""
    if len(parts) == 1:
        return parts[0]
    joined = torch.cat([part.to(parts[0].device) for part in parts], dimension)
    back = on_device(np.argsort(np.concatenate(places)), joined.device)
    return joined.index_select(dimension, back)


def _columns(tokens: Tokens, batch: StoredBatch) -> Tokens:
    """Returns where tokens stand among those that are stored."""
    first = batch.first_token
    if isinstance(tokens, slice):
        assert tokens.start >= first, "tokens that are not stored"
        return slice(tokens.start - first, None if tokens.stop is None else tokens.stop - first)
    assert (tokens >= first).all(), "tokens that are not stored"
    return tokens - first


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
    items_of = [np.flatnonzero(layer_of == layer) for layer in np.unique(layer_of)]
    parts = [
        _picked(
            *(layers[layer_of[at[0]]][None], np.zeros_like(at), row_of[at]),
            tokens if isinstance(tokens, slice) else tokens[at],
        )
        for at in items_of
    ]
    return _in_order(parts, items_of, 0)
