"""Stores what is read of the runs of one forward pass: the tokens and layers that are wanted.

Invariants: activations do not depend on the choices of a row, so that runs are stored without them.
"""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import DynamicCache

from raysearch.engine.execution.cached_runs import CachedRun, Layers, StoredBatch, stacked
from raysearch.engine.execution.capture_request import CaptureRequest
from raysearch.engine.networks.components import Components, HookPoint, hook_at
from raysearch.engine.networks.hooks import Hook, HookCall
from raysearch.engine.networks.network import ModelInput, Network
from raysearch.engine.patching.rows import Row


class Capture:
    """Stores `batch` while it runs with `hooks`, up to `blocks` blocks (None: all). `keys`: store
    keys and values of bases, which the pass writes to `cache`, if there is one, and only the tokens
    that are read."""

    def __init__(
        self,
        network: Network,
        hook_points: Components,
        wanted: CaptureRequest,
        batch: Sequence[Row],
        blocks: int | None,
        keys: bool,
    ) -> None:
        self._network, self._wanted, self._batch, self._blocks = network, wanted, batch, blocks
        self._hook_points = hook_points
        self._pads = [network.pad(row.base) for row in batch]
        self._spans = [wanted.span(row) for row in batch]
        ends = (
            (pad + s.first, pad + s.stop) for pad, s in zip(self._pads, self._spans, strict=True)
        )
        self._columns = _around(ends) if keys else slice(0, None)
        self._places = {name: wanted.places(name, blocks) for name in wanted.names()}
        self._seen: dict[str, list[list[Tensor]]] = {}
        self.hooks: list[Hook] = []
        for component, places in self._places.items():
            every = list(hook_points.of(component).values())
            self._seen[component] = [[] for _ in places]
            for place, parts in zip(places, self._seen[component], strict=True):
                self.hooks.append(self._reader(every[place], batch[0].base, parts))
        whole = keys and blocks is None
        self._bases = [at for at, span in enumerate(self._spans) if whole and span.keys]
        self.cache = DynamicCache() if self._bases else None

    def runs(self) -> dict[Row, CachedRun]:
        """Returns the runs, of one batch, after the forward pass."""
        ends = ((self._pads[at], self._pads[at] + self._spans[at].keys) for at in self._bases)
        columns, first_layer = _around(ends), self._wanted.first_layer
        stored = StoredBatch(
            {
                component: stacked([torch.cat(parts, 1) for parts in of_layers])
                for component, of_layers in self._seen.items()
            },
            {name: self._wanted.numbers(name, places) for name, places in self._places.items()},
            *self._keys_and_values(first_layer, columns),
            *(first_layer, len(self._batch)),
        )
        number = {at: base for base, at in enumerate(self._bases)}
        runs = {}
        for at, (row, pad) in enumerate(zip(self._batch, self._pads, strict=True)):
            runs[Row(row.base, row.patches)] = CachedRun(
                *(stored, at, pad - self._columns.start, self._spans[at]),
                *(number.get(at, -1), pad - columns.start, self._blocks),
            )
        return runs

    def _reader(self, hook_point: HookPoint, given: ModelInput, into: list[Tensor]) -> Hook:
        def read(activation: Float[Tensor, "row token width"], _hook_call: HookCall) -> None:
            into.append(
                hook_point.read(activation[:, self._columns]).clone()
            )  # some models add to it in place afterwards

        return hook_at(self._network, hook_point, read, given)

    def _keys_and_values(self, first: int, columns: slice) -> tuple[Layers | None, Layers | None]:
        """Returns keys and values (base, head, token, d_head) of some columns in each layer from
        `first` on; none without a cache."""
        if self.cache is None:
            return None, None
        stored = [
            (getattr(layer, "keys", None), getattr(layer, "values", None))
            for layer in self.cache.layers
        ]
        keys = [k for k, _ in stored if k is not None]
        values = [v for _, v in stored if v is not None]
        assert len(self._network.blocks) <= min(len(keys), len(values)), (
            "a model of which a layer stores no keys and values cannot be replayed"
        )
        bases = torch.tensor(self._bases)
        some_keys, some_values = (
            stacked([t[:, :, columns].index_select(0, bases.to(t.device)) for t in layers[first:]])
            for layers in (keys, values)
        )
        return some_keys, some_values


def _around(columns: Iterable[tuple[int, int]]) -> slice:
    """Returns the columns from the first to the last of some ranges."""
    found = list(columns) or [(0, 0)]
    firsts, stops = zip(*found, strict=True)
    return slice(min(firsts), max(stops))
