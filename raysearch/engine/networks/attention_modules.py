"""Attention modules: their number of query heads and of key and value heads, and the layers that
have none.

Invariants: attributes of the module take precedence, then the shapes of its projections; of the
configuration only keys that its class declares are read, for a config.json may hold any others.
"""

import inspect
from dataclasses import dataclass
from typing import Any

from torch import nn

from raysearch.engine.networks.module_names import PROJECTIONS

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
        groups = own // shared if shared else _by_shape(attention, own)
    return HeadCounts(own, groups or declared_value(config, "num_key_value_heads") or own)


def has_none(config: Any, layer: int) -> bool:
    """Returns whether the layer has no attention over tokens, according to the configuration."""
    kinds = declared_value(config, "layer_types") or ()
    return layer < len(kinds) and kinds[layer] in WITHOUT


def declared_value(config: Any, key: str) -> Any:
    """Returns the value of a key that the configuration's class declares; None for any other key,
    which its model does not read."""
    known = key in inspect.signature(type(config).__init__).parameters or hasattr(type(config), key)
    return getattr(config, key, None) if known else None


def _by_shape(attention: nn.Module, own: int) -> int | None:
    """Returns the number of key heads according to the widths of the projections, or None."""
    query, key = (_projection(attention, part) for part in ("query", "key"))
    width = getattr(attention, "head_dim", None) or (_width(query) // own if own else 0)
    if query is None or key is None or not isinstance(width, int) or not width:
        return None
    if query is not key:
        return _width(key) // width
    has_width = isinstance(getattr(attention, "head_dim", None), int)
    return (_width(key) // width - own) // 2 if has_width else None


def _projection(attention: nn.Module, part: str) -> nn.Module | None:
    """Returns the projection whose output has that part of each head; None if it has another order
    or no such heads."""
    names = (name for name in PROJECTIONS[part] if name not in ("q_b_proj", "kv_b_proj"))
    return next((found for name in names if (found := getattr(attention, name, None))), None)


def _width(projection: nn.Module | None) -> int:
    """Returns the output width of a linear layer, or of the Conv1D of transformers (nf)."""
    widths = (getattr(projection, name, None) for name in ("out_features", "nf"))
    return next((width for width in widths if isinstance(width, int)), 0)


def _first(holder: Any, names: tuple[str, ...]) -> int | None:
    counts = (getattr(holder, name, None) for name in names)
    return next((count for count in counts if isinstance(count, int)), None)
