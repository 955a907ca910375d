"""Attention modules: their number of query heads and of key and value heads, and the layers that
have none.

Invariants: an attribute of the module takes precedence over the configuration, since layers may
differ.
"""

from dataclasses import dataclass
from typing import Any

from torch import nn

_HEADS = ("num_heads", "num_attention_heads", "n_heads", "n_head")
_GROUPS = ("num_kv_heads", "kv_heads", "num_key_value_heads", "n_kv_heads")

WITHOUT = ("linear_attention", "mamba", "mamba2", "conv", "recurrent", "moe", "mlp")
"""Entries of `layer_types` in a configuration whose layers have no attention over tokens, whatever
their modules are called."""


@dataclass(frozen=True, slots=True)
class HeadCounts:
    """`heads`: number of query heads; `groups`: of key and value heads. 0 without attention."""

    heads: int
    groups: int


def counts_of(attention: nn.Module, config: Any, heads: int) -> HeadCounts:
    """Returns the head counts of `attention`. `heads`: the network's count, for a module that does
    not tell its own."""
    own = _first(attention, _HEADS) or heads
    groups = _first(attention, _GROUPS)
    if groups is None:
        shared = _first(attention, ("num_key_value_groups",))
        groups = own // shared if shared else _first(config, ("num_key_value_heads",)) or own
    return HeadCounts(own, groups)


def has_none(config: Any, layer: int) -> bool:
    """Returns whether the layer has no attention over tokens, according to the configuration."""
    kinds = getattr(config, "layer_types", None) or ()
    return layer < len(kinds) and kinds[layer] in WITHOUT


def _first(holder: Any, names: tuple[str, ...]) -> int | None:
    counts = (getattr(holder, name, None) for name in names)
    return next((count for count in counts if isinstance(count, int)), None)
