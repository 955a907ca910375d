"""Module names under which components are looked for, on any architecture: a default table, and one
of exceptions.

Invariants: a name says where to look and proves nothing: `fused_projections` assigns columns, and
`component_check` tests what is found as a head, query, key or value.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from torch import nn

from raysearch.engine.networks.blocks import module_at
from raysearch.engine.networks.hooks import HookSide

_ATTENTION = (
    "self_attn",
    "attn",
    "attention",
    "self_attention",
    "multi_head_attention",
    "norm_attn_norm.attn",
)
_HOLDERS = (*_ATTENTION, "attn.attention", "temporal_block", "mixer")
"""Modules that hold the projections of an attention: the attention, or a module within; in hybrid
models an attention or something else."""
_OUTPUTS = ("o_proj", "out_proj", "c_proj", "dense", "wo", "Wo")
_MLP = ("mlp", "ffn", "feed_forward", "block_sparse_moe")
_DOWN = ("down_proj", "c_proj", "fc_out", "dense_4h_to_h", "fc2", "w2", "Wo")
_OF_THREE = ("c_attn", "Wqkv", "qkv_proj", "query_key_value")

PROJECTIONS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "query": ("q_proj", "q_b_proj", "query", "wq", "Wq", *_OF_THREE),
        "key": ("k_proj", "key", "wk", "Wk", *_OF_THREE, "kv_b_proj"),
        "value": ("v_proj", "value", "wv", "Wv", *_OF_THREE, "kv_b_proj"),
    }
)
"""Names of an attention's modules that output queries, keys and values; the first that it has is
taken. Outputs are as projected: before a norm and before rotary positions."""

PER_HEAD = ("head", *PROJECTIONS)

Table = Mapping[str, tuple[HookSide, tuple[str, ...]]]

TABLE: Table = MappingProxyType(
    {
        "attention_output": ("output", _ATTENTION),
        "head": ("input", tuple(f"{a}.{p}" for a in _HOLDERS for p in _OUTPUTS)),
        "mlp_output": ("output", (*_MLP, "fc2")),
        "mlp_activation": ("input", (*(f"{m}.{d}" for m in _MLP for d in _DOWN), "fc2")),
        **{
            part: ("output", tuple(f"{a}.{p}" for a in _HOLDERS for p in names))
            for part, names in PROJECTIONS.items()
        },
    }
)
"""The side of a module, for each component, and names of the module in a block; the first that the
block has is taken.

`head` is the mix of values that enters the attention's output projection; `mlp_activation` is the
input of the MLP's last projection.
"""

EXCEPTIONS: Mapping[str, Table] = MappingProxyType(
    {
        # A norm over all heads lies between the mix of values and the output projection.
        "bitnet": {"head": ("input", ("self_attn.attn_sub_norm",))},
        # Their attention and MLP modules add the residual themselves.
        "bloom": {
            "attention_output": ("output", ("self_attention.dense",)),
            "mlp_output": ("output", ("mlp.dense_4h_to_h",)),
        },
        "mpt": {"mlp_output": ("output", ("ffn.down_proj",))},
        "rwkv": {"mlp_activation": ("input", ("feed_forward.value",))},
    }
)
"""Entries that replace those of `TABLE`, by `config.model_type`."""


def names_of(component: str, kind: str) -> tuple[HookSide, tuple[str, ...]]:
    """Returns the side and the module names of a component of `TABLE` in a model of type `kind`."""
    return EXCEPTIONS.get(kind, {}).get(component, TABLE[component])


def in_block(component: str, kind: str, block: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yields the modules of the block that may be the component, with their names. Components with
    heads are looked for only in modules that have queries."""
    _, names = names_of(component, kind)
    for name in names:
        module = module_at(block, name)
        if module is not None and (component not in PER_HEAD or _has_queries(block, name)):
            yield name, module


def attention_of(block: nn.Module, name: str) -> nn.Module:
    """Returns the module that holds the projection named `name` in its block."""
    found = module_at(block, name.rpartition(".")[0])
    assert found is not None, "a projection lies in an attention"
    return found


def _has_queries(block: nn.Module, name: str) -> bool:
    attention = attention_of(block, name)
    return any(module_at(attention, query) is not None for query in PROJECTIONS["query"])
