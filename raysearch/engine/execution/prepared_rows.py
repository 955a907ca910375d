"""Rows that are run again and again with other vectors written into them, as training does.

All that the vectors do not change is looked up once, when the rows are prepared, so that a run is a
few tensor operations and no Python for each row.

Invariants: the logits are those of `Executor.logits` for the same rows and vectors.
"""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from raysearch.core.events import Ids
from raysearch.engine.execution.activation_cache import ActivationCache
from raysearch.engine.execution.executors import Executor
from raysearch.engine.execution.replay_executor import ReplayExecutor
from raysearch.engine.execution.wave_executor import parts_of_runs
from raysearch.engine.networks.components import Components, HookPoint, hook_at
from raysearch.engine.networks.hooks import HookCall, owned_hooks
from raysearch.engine.networks.network import ModelInput, Network
from raysearch.engine.networks.point import Point
from raysearch.engine.networks.tensor_network import TensorNetwork
from raysearch.engine.patching.build_swaps import swaps_of
from raysearch.engine.patching.edits import hook_columns
from raysearch.engine.patching.rows import FeatureIndices, Indices, Patch, Row


@dataclass(frozen=True, slots=True)
class WrittenRows:
    """Prepared rows of one batch key, with the vectors to write into them. Their indices: `here`,
    and on the device.

    `vectors`: those to write, as (start, stop, vectors) of rows that are patched at one place.
    """

    here: Indices
    at: Int[Tensor, "row"]
    vectors: Sequence[tuple[int, int, Float[Tensor, "_part _width"]]]


class PreparedRows(Protocol):
    """Rows with one patch each, known by their indices. `order`: by batch key, entry layer and
    place."""

    order: "RunOrder"

    def parts(self, rows: Indices, most: int) -> Iterator[range]:
        """Yields the ranges of `rows`, which have one batch key, that fit into memory together: at
        most `most` rows."""
        ...

    def logits(self, written: WrittenRows) -> Float[Tensor, "row answer"]:
        """Computes the logits (float32) at the answer. Gradients flow to the vectors unless the
        caller disables them."""
        ...


class RunOrder:
    """The order in which rows are best run. `ranks`: of each row; rows of one rank are patched at
    one place. `batches`: for each rank the number of its batch key: rows of one may share a batch.
    """

    def __init__(
        self, rows: Sequence[Row], batch_keys: Sequence[Hashable], layers: Sequence[int]
    ) -> None:
        numbers = [_numbers(batch_keys), layers, _numbers([_place(row) for row in rows])]
        distinct, ranks = np.unique(np.array(numbers), axis=1, return_inverse=True)
        self.ranks: Indices = ranks.reshape(-1)
        self.batches: Indices = distinct[0]


def prepare(
    network: Network,
    hook_points: Components,
    executor: Executor,
    cache: ActivationCache,
    rows: Sequence[Row],
) -> PreparedRows:
    """Returns `rows`, ready to be run as `executor` runs them."""
    if isinstance(executor, ReplayExecutor):
        return WaveRows(executor, cache, rows)
    if executor.name == "batched" and isinstance(network, TensorNetwork):
        places = {_place(row): row for row in rows}
        once = (
            network.firings(hook_points.at(place[0]).module, row.base) == 1
            for place, row in places.items()
        )
        if all(once):
            return StackedInputs(network, hook_points, rows)
    return ListedRows(executor, cache, rows)


class ListedRows:
    """Rows of any executor, as one Python object each: where a network's modules run several times,
    or patches lie outside of the blocks of a language model."""

    def __init__(self, executor: Executor, cache: ActivationCache, rows: Sequence[Row]) -> None:
        self._executor = executor
        self._cache = cache
        self._rows = rows
        batch_keys = [executor.batch_key(row) for row in rows]
        self.order = RunOrder(rows, batch_keys, [executor.entry(row) for row in rows])

    def parts(self, rows: Indices, most: int) -> Iterator[range]:
        start = 0
        for part in self._cache.parts_that_fit([self._rows[at] for at in rows], most):
            yield range(start, start + len(part))
            start += len(part)

    def logits(self, written: WrittenRows) -> Float[Tensor, "row answer"]:
        rows = [self._rows[at] for at in written.here]
        replacements = [
            vector.view(len(rows[start].patches[0].tokens), -1)
            for start, _, vectors in written.vectors
            for vector in vectors.unbind()
        ]
        return self._executor.logits(rows, replacements)


class WaveRows(ListedRows):
    """Rows of a language model, which run in waves. `batches`: for each row its batch key's number;
    those patched outside of the blocks are run one by one."""

    def __init__(
        self, executor: ReplayExecutor, cache: ActivationCache, rows: Sequence[Row]
    ) -> None:
        super().__init__(executor, cache, rows)
        self._replay = executor
        inside = [at for at, row in enumerate(rows) if executor.shape_of(row) is not None]
        self._number = np.full(len(rows), -1)
        self._number[inside] = np.arange(len(inside))
        executor.want_rows([rows[at] for at in inside])
        own = [replace(rows[at].patches[0], sources=()) for at in inside]
        unread = [Row(rows[at].base, (patch,)) for at, patch in zip(inside, own, strict=True)]
        self._swaps = swaps_of(unread) if unread else None

    def parts(self, rows: Indices, most: int) -> Iterator[range]:
        if self._swaps is None or (self._number[rows] < 0).any():
            yield from super().parts(rows, most)
            return
        bases = self._swaps.base[self._number[rows]][:, None]
        fits = self._cache.table(self._swaps.runs) is not None
        for part in parts_of_runs(bases, len(rows) if fits else self._cache.room):
            for start in range(0, len(part), most):
                at = part[start : start + most]
                yield range(int(at[0]), int(at[-1]) + 1)

    def logits(self, written: WrittenRows) -> Float[Tensor, "row answer"]:
        numbers = self._number[written.here]
        if self._swaps is None or numbers[0] < 0:
            return super().logits(written)
        return self._replay.written_logits(self._swaps.take(numbers), written.vectors)


class StackedInputs:
    """Rows of a network on tensors, whose inputs are stacked once."""

    def __init__(
        self, network: TensorNetwork, hook_points: Components, rows: Sequence[Row]
    ) -> None:
        self._network = network
        self._rows = rows
        batch_keys = [network.batch_key(row.base) for row in rows]
        layers = [hook_points.at(row.patches[0].point).layer or 0 for row in rows]
        self.order = RunOrder(rows, batch_keys, layers)
        firsts = np.unique(self.order.ranks, return_index=True)[1]
        self._places = [
            _Place.of(rows[at].patches[0], hook_points, network.device) for at in firsts
        ]
        distinct: dict[Hashable, dict[ModelInput, int]] = {}
        inputs = [
            distinct.setdefault(key, {}).setdefault(row.base, len(distinct[key]))
            for key, row in zip(batch_keys, rows, strict=True)
        ]
        self._input_of = torch.tensor(inputs, device=network.device)
        self._inputs = [network.stack(list(of_key)) for of_key in distinct.values()]

    def parts(self, rows: Indices, most: int) -> Iterator[range]:
        return (range(at, min(at + most, len(rows))) for at in range(0, len(rows), most))

    def logits(self, written: WrittenRows) -> Float[Tensor, "row answer"]:
        given, hooks = self._rows[written.here[0]].base, []
        for start, stop, vectors in written.vectors:
            place = self._places[self.order.ranks[written.here[start]]]
            edit = partial(place.write, range(start, stop), vectors)
            hooks.append(hook_at(self._network, place.hook_point, edit, given))
        inputs = self._inputs[self.order.batches[self.order.ranks[written.here[0]]]]
        with owned_hooks(hooks):
            return self._network.logits(inputs.index_select(0, self._input_of[written.at]))


@dataclass(frozen=True, slots=True)
class _Place:
    """A place where rows are patched. `columns`: of the module's vector (None: all)."""

    hook_point: HookPoint
    tokens: Int[Tensor, "token"]
    columns: Int[Tensor, "feature"] | None
    is_first: bool

    @staticmethod
    def of(patch: Patch, hook_points: Components, device: torch.device) -> "_Place":
        hook_point = hook_points.at(patch.point)
        columns = hook_columns(hook_point, patch.features)
        return _Place(
            hook_point,
            torch.tensor(patch.tokens, device=device),
            None if columns is None else columns.to(device),
            patch.tokens == tuple(range(len(patch.tokens))),
        )

    def write(
        self,
        rows: range,
        vectors: Float[Tensor, "part width"],
        activation: Float[Tensor, "row token width"],
        _: HookCall,
    ) -> Float[Tensor, "row token width"]:
        """Returns the activation of a batch with `vectors` written into these rows."""
        new = vectors.view(len(rows), len(self.tokens), -1).to(activation.dtype)
        if self.columns is None and self.is_first and new.shape == activation.shape:
            return new
        at = torch.arange(rows.start, rows.stop, device=new.device)[:, None]
        if self.columns is None:
            return activation.index_put((at, self.tokens), new)
        return activation.index_put((at[..., None], self.tokens[:, None], self.columns), new)


def _numbers(keys: Sequence[Hashable]) -> list[int]:
    """Numbers distinct keys in the order in which they first occur."""
    found: dict[Hashable, int] = {}
    return [found.setdefault(key, len(found)) for key in keys]


def _place(row: Row) -> tuple[Point, Ids, FeatureIndices]:
    """Returns a key that is equal for rows that are patched at one place."""
    (patch,) = row.patches
    return patch.point, patch.tokens, patch.features
