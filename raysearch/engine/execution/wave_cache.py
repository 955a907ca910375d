"""The keys and values that the rows of a wave attend to.

The tokens before a wave are those of a row's base, of which rows share one copy where the model
allows it (`shared_prefix_attention`); else each row gets a copy. Those of the wave are a row's own.
For further tokens these are kept: below its first patch a row has its base's there, too.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import Cache, PretrainedConfig

from raysearch.engine.execution.cached_runs import on_device, prefixes
from raysearch.engine.execution.partial_attention import Groups, Heads, RowsByBase, attend
from raysearch.engine.execution.shared_prefix_attention import attend_by
from raysearch.engine.execution.wave import Wave


class WaveCache(Cache):
    """The keys and values of a wave's rows. `shared`: layers in which rows share one copy of those
    before the wave; `keeps`: whether those of the wave are kept; `rows`: the number of rows that
    have entered, of `length` tokens each."""

    def __init__(self, wave: Wave, shared: frozenset[int], keeps: bool) -> None:
        self.rows, self.shared, self.keeps = 0, shared, keeps
        self.batch, self.length = wave.bases.batches[0], wave.shape.length
        self._start, self._base, self._count = wave.shape.start, wave.base, len(wave.bases)
        self._first_layer = 0 if keeps else wave.first_layer
        tokens = self.length if keeps else self._start
        self._both: Any = ((), ())
        if tokens:
            self._both = tuple(
                prefixes(wave.bases, of, tokens, self._first_layer)
                for of in (lambda batch: batch.keys, lambda batch: batch.values)
            )
        self._own: dict[int, tuple[Tensor, Tensor]] = {}
        self._by_base: dict[tuple[Any, ...], RowsByBase] = {}
        self._layer = wave.first_layer

    def update(
        self,
        key_states: Float[Tensor, "row group token d_head"],
        value_states: Float[Tensor, "row group token _d_value"],
        layer_idx: int,
        *_: Any,
        **__: Any,
    ) -> tuple[
        Float[Tensor, "row group all_tokens d_head"], Float[Tensor, "row group all_tokens _d_value"]
    ]:
        self._layer, both = layer_idx, (key_states, value_states)
        if layer_idx in self._own:
            both = _appended(self._own[layer_idx], both)
        if self.keeps:
            self._own[layer_idx] = both
        if layer_idx in self.shared or not self._start:
            return both
        base = on_device(self._base[: self.rows], key_states.device)
        keys, values = self._of_bases(layer_idx, slice(self._start))
        return _appended((keys[base], values[base]), both)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self._start

    def attend(
        self, module: nn.Module, query: Heads, key: Groups, value: Groups, scale: float, more: Any
    ) -> Heads:
        """Returns the attention of the rows that have entered, in the layer that was updated
        last."""
        causal = query.shape[2] == key.shape[2]
        rows = self._rows(query, key.shape[1])
        before = self._of_bases(self._layer, slice(self._start))
        return attend(query, key, value, before, rows, scale, causal)

    @contextmanager
    def attending(self, layer: int, configs: Sequence[PretrainedConfig]) -> Iterator[None]:
        """Makes the model's attention in `layer` read this cache, if rows share it there."""
        if layer not in self.shared:
            yield
            return
        with attend_by(configs, self):
            yield

    def complete(self, layers: int) -> None:
        """Gives rows their base's keys and values where they had not entered, so that one more
        token of each can run through all `layers`."""
        self.rows = len(self._base)
        for layer in range(layers):
            own = self._own.get(layer)
            base = self._base if own is None else self._base[len(own[0]) :]
            all_bases = self._of_bases(layer, slice(self._start, None))
            some = [of[on_device(base, of.device)] for of in all_bases]
            if own is not None:
                some = [torch.cat((mine, of)) for mine, of in zip(own, some, strict=True)]
            self._own[layer] = some[0], some[1]

    def _of_bases(self, layer: int, tokens: slice) -> tuple[Tensor, Tensor]:
        """Returns the bases' keys and values of some tokens in a layer."""
        keys, values = (of[layer - self._first_layer][..., tokens, :] for of in self._both)
        return keys, values

    def _rows(self, query: Heads, groups: int) -> RowsByBase:
        key = self.rows, query.device, query.dtype, query.shape[1:3], groups, query.requires_grad
        if key not in self._by_base:
            self._by_base[key] = RowsByBase.of(self._base[: self.rows], self._count, query, groups)
        return self._by_base[key]


def _appended(before: tuple[Tensor, Tensor], after: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Returns keys and values of tokens and of those after them."""
    return torch.cat((before[0], after[0]), -2), torch.cat((before[1], after[1]), -2)
