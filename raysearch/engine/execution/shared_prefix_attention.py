"""Finds the layers of a model in which rows can share the keys and values of a prefix.

A model whose attention goes through transformers' `AttentionInterface` can attend to one copy of
each base's prefix, whatever the number of rows (`wave_cache`). In any other model, and where more
than causality is masked (a sliding window that is full, a bias by distance), each row gets a copy.

Invariants: the model has its own attention again however a call ends; no module is changed.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AttentionInterface, PretrainedConfig

from raysearch.engine.execution.partial_attention import Groups, Heads, RowsByBase, attend
from raysearch.engine.networks.gradient_mode import without_gradients
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
def attend_by(configs: Sequence[PretrainedConfig], by: _Attends) -> Iterator[None]:
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
            with without_gradients(), attend_by(list(configs.values()), probe):
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
        rows = RowsByBase.of(np.arange(len(query)), len(query), query, key.shape[1])
        after = attend(rest[0], rest[1], rest[2], first, rows, scale)
        repeated = value[:, :, :1].repeat_interleave(query.shape[1] // value.shape[1], 1)
        return torch.cat((repeated, after), 2)


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
