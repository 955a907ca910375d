"""Names of modules under which components are found, on any architecture: one default table, and
one of exceptions.

Invariants: a name says where to look, never what is there: which columns are whose is for
`projections`, and what is found as a head, query, key or value is tried by `component_check`.
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
"""What holds the projections of an attention: itself, or a module inside; in hybrid models an
attention or something else."""
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
"""Names of the modules of an attention that put out queries, keys and values: the first that it
has. All is as projected: before a norm and before it is rotated."""

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
"""Of each component the side of a module, and the module's name in a block: the first of these that
the block has.

`head` is the mix of values that enters the attention's output projection; `mlp_activation` is what
enters the MLP's last one."""

EXCEPTIONS: Mapping[str, Table] = MappingProxyType(
    {
        # A norm over all heads stands between the mix of values and the output projection.
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
"""What holds instead, by `config.model_type`."""


def names_of(component: str, kind: str) -> tuple[HookSide, tuple[str, ...]]:
    """Where a component of `TABLE` is looked for in a model of type `kind`."""
    return EXCEPTIONS.get(kind, {}).get(component, TABLE[component])


def in_block(component: str, kind: str, block: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Each of the modules that the block has of those, under its name. What has heads is looked for
    in what has queries only."""
    _, names = names_of(component, kind)
    for name in names:
        module = module_at(block, name)
        if module is not None and (component not in PER_HEAD or _has_queries(block, name)):
            yield name, module


def attention_of(block: nn.Module, name: str) -> nn.Module:
    """The module that holds a projection, which goes by `name` in its block."""
    found = module_at(block, name.rpartition(".")[0])
    assert found is not None, "a projection lies in an attention"
    return found


def _has_queries(block: nn.Module, name: str) -> bool:
    attention = attention_of(block, name)
    return any(module_at(attention, query) is not None for query in PROJECTIONS["query"])
