"""Attention modules: how many heads they have, of queries and of keys and values, and which layers
have none.

Invariants: what a module says of itself counts before what its configuration says, for layers may
differ.
"""

from dataclasses import dataclass
from typing import Any

from torch import nn

_HEADS = ("num_heads", "num_attention_heads", "n_heads", "n_head")
_GROUPS = ("num_kv_heads", "kv_heads", "num_key_value_heads", "n_kv_heads")

WITHOUT = ("linear_attention", "mamba", "mamba2", "conv", "recurrent", "moe", "mlp")
"""Entries of a configuration's `layer_types` whose layers have no attention over tokens, whatever
their modules are called."""


@dataclass(frozen=True, slots=True)
class HeadCounts:
    """`heads`: of queries; `groups`: of keys and values. 0 where there is no attention."""

    heads: int
    groups: int


def counts_of(attention: nn.Module, config: Any, heads: int) -> HeadCounts:
    """How many heads `attention` has. `heads`: of a layer of the network, where the module does not
    say."""
    own = _first(attention, _HEADS) or heads
    groups = _first(attention, _GROUPS)
    if groups is None:
        shared = _first(attention, ("num_key_value_groups",))
        groups = own // shared if shared else _first(config, ("num_key_value_heads",)) or own
    return HeadCounts(own, groups)


def has_none(config: Any, layer: int) -> bool:
    """Whether the configuration says that the layer has no attention over tokens."""
    kinds = getattr(config, "layer_types", None) or ()
    return layer < len(kinds) and kinds[layer] in WITHOUT


def _first(holder: Any, names: tuple[str, ...]) -> int | None:
    counts = (getattr(holder, name, None) for name in names)
    return next((count for count in counts if isinstance(count, int)), None)
