"""The keys and values of the tokens before a wave, which its rows share with their bases.

A model whose attention goes through transformers' `AttentionInterface` attends to one copy of each
base's prefix, whatever the number of rows (`partial_attention`). In any other model, and where more
than causality is masked (a sliding window that is full, a bias by distance), each row gets a copy.

Invariants: the model has its own attention again however a call ends; no module is changed.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AttentionInterface, Cache, PretrainedConfig

from raysearch.engine.execution.cached_runs import CachedRun, prefixes
from raysearch.engine.execution.partial_attention import RowsByBase, attend
from raysearch.engine.networks.detached import detached
from raysearch.engine.networks.network import LanguageModel

log = logging.getLogger(__name__)

NAME = "raysearch_prefix"
"""The name of this way of attending in transformers' `AttentionInterface`."""
HARMLESS = frozenset(
    {"cache_position", "is_causal", "logits_to_keep", "position_embeddings", "position_ids"}
    | {"sliding_window", "use_cache"}
)
"""Arguments of an attention function that leave the formula as it is; `sliding_window` as long as
the input is no longer."""

Heads = Float[Tensor, "row head token d_head"]
Groups = Float[Tensor, "row group own d_head"]
"""Keys or values; consecutive heads share one group of them."""


class _Attends(Protocol):
    def attend(
        self, module: nn.Module, query: Heads, key: Groups, value: Groups, scale: float, more: Any
    ) -> Heads:
        """Returns the attention of `module`. `more`: its other arguments."""
        ...


_attending: ContextVar[_Attends] = ContextVar("attending")


def _attention(
    module: nn.Module,
    query: Heads,
    key: Groups,
    value: Groups,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **more: Any,
) -> tuple[Float[Tensor, "row token head d_head"], None]:
    """Computes attention as transformers asks for it."""
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    out = _attending.get().attend(module, query, key, value, scale, more)
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, _attention)


@contextmanager
def attended(configs: Sequence[PretrainedConfig], by: _Attends) -> Iterator[None]:
    """Makes the modules that have `configs` attend by `by`."""
    before = [config._attn_implementation for config in configs]
    token = _attending.set(by)
    try:
        for config in configs:
            config._attn_implementation = NAME
        yield
    finally:
        for config, name in zip(configs, before, strict=True):
            config._attn_implementation = name
        _attending.reset(token)


@dataclass(slots=True)
class SharedLayers:
    """The layers whose rows can share a prefix, with the longest input for which each can (None:
    any). `configs`: the configurations that name the model's way of attending."""

    longest: dict[int, int | None] = field(default_factory=dict)
    configs: list[PretrainedConfig] = field(default_factory=list)

    @classmethod
    def of(cls, network: LanguageModel) -> "SharedLayers":
        """Finds the layers in one forward pass; none where the model does not take it."""
        probe = _Probe(network)
        configs = {
            id(config): config
            for module in network.model.modules()
            if (config := _config_of(module)) is not None
        }
        try:
            with detached(), attended(list(configs.values()), probe):
                network.plain(network.example())
        except Exception as error:  # noqa: BLE001  any code of the model; rows then get copies
            log.info("%s: rows get copies of a prefix: %s", network.name, error)
            return cls()
        return probe.found

    def at(self, length: int) -> frozenset[int]:
        """Returns the layers that can share a prefix in inputs of `length` tokens."""
        return frozenset(
            layer for layer, most in self.longest.items() if most is None or length <= most
        )


def _config_of(module: nn.Module) -> PretrainedConfig | None:
    config = getattr(module, "config", None)
    return config if isinstance(config, PretrainedConfig) else None


class _Probe:
    """Attends causally, and notes the layers that do nothing else."""

    def __init__(self, network: LanguageModel) -> None:
        self.found = SharedLayers()
        self._layer_of = {
            id(module): layer
            for layer, block in enumerate(network.layers)
            for module in block.modules()
        }

    def attend(
        self, module: nn.Module, query: Heads, key: Groups, value: Groups, scale: float, more: Any
    ) -> Heads:
        unknown = [
            name
            for name, given in more.items()
            if not (given is None or given is False or name in HARMLESS)
        ]
        layer, config = self._layer_of.get(id(module)), _config_of(module)
        if not (unknown or layer is None or config is None) and more.get("is_causal", True):
            self.found.longest[layer] = more.get("sliding_window")
            if all(config is not known for known in self.found.configs):
                self.found.configs.append(config)
        first = key[:, :, :1], value[:, :, :1]
        rest = [part[:, :, 1:] for part in (query, key, value)]
        rows = RowsByBase.of(torch.arange(len(query)), len(query)).to(query.device)
        after = attend(rest[0], rest[1], rest[2], first, rows, scale)
        repeated = value[:, :, :1].repeat_interleave(query.shape[1] // value.shape[1], 1)
        return torch.cat((repeated, after), 2)


class Prefix(Cache):
    """A cache that supplies the bases' keys and values of the tokens before the suffix and stores
    nothing.

    `base_of`: the base of each row. `rows`: number of rows that have entered. `shared`: layers in
    which rows share one copy. `keeps`: whether the rows' own keys and values are kept (`own`).
    """

    def __init__(
        self,
        bases: Sequence[CachedRun],
        base_of: Int[Tensor, "row"],
        start: int,
        first_layer: int,
        shared: frozenset[int],
        keeps: bool = False,
    ) -> None:
        self._keeps = keeps
        self._start, self._first_layer, self._shared = start, first_layer, shared
        if start:
            self._keys = prefixes(bases, lambda batch: batch.keys, start, first_layer)
            self._values = prefixes(bases, lambda batch: batch.values, start, first_layer)
        self._count = len(bases)
        self._base = base_of
        self._by_base: dict[tuple[int, torch.device], RowsByBase] = {}
        self._layer = first_layer
        self.rows = 0
        self.own: dict[int, tuple[Tensor, Tensor]] = {}  # keys and values of rows that have entered

    def update(
        self,
        key_states: Heads,
        value_states: Float[Tensor, "row head token _d_value"],
        layer_idx: int,
        *_: Any,
        **__: Any,
    ) -> tuple[
        Float[Tensor, "row head all_tokens d_head"], Float[Tensor, "row head all_tokens _d_value"]
    ]:
        self._layer = layer_idx
        if self._keeps:
            self.own[layer_idx] = key_states, value_states
        if layer_idx in self._shared or not self._start:
            return key_states, value_states
        keys, values = self._of_layer(layer_idx)
        base = self._base[: self.rows].to(key_states.device)
        return torch.cat((keys[base], key_states), -2), torch.cat((values[base], value_states), -2)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self._start

    def attend(
        self, module: nn.Module, query: Heads, key: Groups, value: Groups, scale: float, more: Any
    ) -> Heads:
        """Returns the attention of the rows that have entered, in the layer that was updated
        last."""
        return attend(
            query, key, value, self._of_layer(self._layer), self._rows(query.device), scale
        )

    @contextmanager
    def attending(self, layer: int, configs: Sequence[PretrainedConfig]) -> Iterator[None]:
        """Makes the model's attention in `layer` read this prefix, if rows share it there."""
        if layer not in self._shared:
            yield
            return
        with attended(configs, self):
            yield

    def _of_layer(self, layer: int) -> tuple[Tensor, Tensor]:
        at = layer - self._first_layer
        return self._keys[at], self._values[at]

    def _rows(self, device: torch.device) -> RowsByBase:
        found = self._by_base.get((self.rows, device))
        if found is None:
            found = RowsByBase.of(self._base[: self.rows], self._count).to(device)
            self._by_base[self.rows, device] = found
        return found


def is_causal(mask: Any, start: int, length: int) -> bool:
    """Returns whether a recorded attention mask of tokens `start`..`length` - 1 hides exactly the
    later tokens. None: the attention function is told by its other arguments."""
    if mask is None:
        return True
    if not isinstance(mask, Tensor):
        return False
    seen = mask if mask.dtype == torch.bool else mask > torch.finfo(torch.float16).min
    if mask.ndim == 2:  # of flash attention: the tokens that are not padding
        return bool(mask.bool().all())
    causal = torch.ones(length - start, length, dtype=torch.bool, device=mask.device).tril(start)
    if (
        mask.ndim != 4
        or mask.shape[-2:] != causal.shape
        or not torch.equal(seen, causal.expand_as(seen))
    ):
        return False
    return mask.dtype == torch.bool or not bool(mask[seen].any())
