"""Stores what is read of the runs of one forward pass: the tokens and layers that are wanted.

Invariants: activations do not depend on the choices of a row, so that runs are stored without them.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache

from raysearch.engine.execution.cached_runs import CachedRun, Layers, StoredBatch, stack_layers
from raysearch.engine.execution.capture_request import CaptureRequest
from raysearch.engine.networks.components import Components, HookPoint, hook_at
from raysearch.engine.networks.hooks import Activation, Hook, HookCall
from raysearch.engine.networks.network import ModelInput, Network
from raysearch.engine.networks.to_device import on_device
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
        self._spans = [wanted.span(row) for row in batch]
        first, stop = min(s.first for s in self._spans), max(s.stop for s in self._spans)
        self._tokens = slice(first, stop) if keys else slice(0, None)
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
        tokens = max((self._spans[at].keys for at in self._bases), default=0)
        first_layer = self._wanted.first_layer
        stored = StoredBatch(
            {
                component: stack_layers([torch.cat(parts, 1) for parts in of_layers])
                for component, of_layers in self._seen.items()
            },
            {name: self._wanted.numbers(name, places) for name, places in self._places.items()},
            *self._keys_and_values(first_layer, tokens),
            *(first_layer, len(self._batch), self._tokens.start),
        )
        number = {at: base for base, at in enumerate(self._bases)}
        return {
            Row(row.base, row.patches): CachedRun(
                stored, at, self._spans[at], number.get(at, -1), self._blocks
            )
            for at, row in enumerate(self._batch)
        }

    def _reader(self, hook_point: HookPoint, given: ModelInput, into: list[Tensor]) -> Hook:
        def read(activation: Activation, _hook_call: HookCall) -> None:
            into.append(
                hook_point.read(activation[:, self._tokens]).clone()
            )  # some models add to it in place afterwards

        return hook_at(self._network, hook_point, read, given)

    def _keys_and_values(self, first: int, tokens: int) -> tuple[Layers | None, Layers | None]:
        """Returns keys and values (base, head, token, d_head) of the first tokens in each layer
        from `first` on; none without a cache."""
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
        bases = {device: on_device(self._bases, device) for device in {t.device for t in keys}}
        some_keys, some_values = (
            stack_layers(
                [t[:, :, :tokens].index_select(0, bases[t.device]) for t in layers[first:]]
            )
            for layers in (keys, values)
        )
        return some_keys, some_values
