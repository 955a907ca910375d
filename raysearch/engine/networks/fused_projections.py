"""Fused projections: modules that output several of queries, keys and values in one vector, and the
columns of each.

The order is fixed by the code that splits the vector, so it depends on the model type and on flags
of its configuration: modules of one name are split in several orders. A type that is not in `FUSED`
has no known order, and none is guessed.

Invariants: heads count in the order in which they are split; a layout covers the whole vector, or
it is refused.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from raysearch.errors import ModelError

ProjectionSlots = Sequence[tuple[str, int]]
"""The parts of a vector in order: the component that each belongs to ("" for none), and its width.
"""


@dataclass(frozen=True, slots=True)
class FusedProjection:
    """A fused projection: its attention module, the configuration, the number of query heads and of
    key heads, its width."""

    attention: nn.Module
    config: Any
    heads: int
    groups: int
    width: int

    def shared(self, parts: int) -> int:
        """Returns the width of each of `parts` equal parts."""
        return self.width // parts


Layout = Callable[[FusedProjection], ProjectionSlots]


def one_after_the_other(projection: FusedProjection) -> ProjectionSlots:
    """Returns all queries, then all keys, then all values."""
    width = projection.shared(projection.heads + 2 * projection.groups)
    parts = (("query", projection.heads), ("key", projection.groups), ("value", projection.groups))
    return [(part, width) for part, count in parts for _ in range(count)]


def head_by_head(projection: FusedProjection) -> ProjectionSlots:
    """Returns query, key and value of the first head, then of the second, and so on."""
    width = projection.shared(3 * projection.heads)
    return [("query", width), ("key", width), ("value", width)] * projection.heads


def group_by_group(projection: FusedProjection) -> ProjectionSlots:
    """Returns the queries, the key and the value of the first group, then of the second, and so
    on."""
    width = projection.shared(projection.heads + 2 * projection.groups)
    queries = [("query", width)] * (projection.heads // projection.groups)
    return [*queries, ("key", width), ("value", width)] * projection.groups


def _falcon(projection: FusedProjection) -> ProjectionSlots:
    """Groups in the new architecture; in the old one a single key or one for each head, whatever
    `num_kv_heads` says."""
    if projection.config.new_decoder_architecture:
        return group_by_group(projection)
    return (
        one_after_the_other(projection)
        if projection.config.multi_query
        else head_by_head(projection)
    )


def _bigcode(projection: FusedProjection) -> ProjectionSlots:
    return (
        one_after_the_other(projection)
        if projection.config.multi_query
        else head_by_head(projection)
    )


_CODEGEN_BLOCKS = 4
"""`mp_num` in its forward pass: the number of blocks of heads, one for each chip that it was
trained on."""


def _codegen(projection: FusedProjection) -> ProjectionSlots:
    """Returns the queries, the values and the keys of the first block of heads, then of the second,
    and so on."""
    width, in_block = projection.shared(3 * projection.heads), projection.heads // _CODEGEN_BLOCKS
    return [
        (part, width) for part in ("query", "value", "key") for _ in range(in_block)
    ] * _CODEGEN_BLOCKS


def _latent(projection: FusedProjection) -> ProjectionSlots:
    """Returns each head's slots in the fused projection: the part of the key that is not rotated,
    and the value (arXiv:2405.04434). All heads share the rest of the key."""
    own, value = (
        int(getattr(projection.attention, name)) for name in ("qk_nope_head_dim", "v_head_dim")
    )
    return [("", own), ("value", value)] * projection.heads


def _gated(projection: FusedProjection) -> ProjectionSlots:
    """Returns the query of each head and a gate on the head's output; without the gate, if the
    configuration has none."""
    width = int(getattr(projection.attention, "head_dim"))  # noqa: B009  no attribute of nn.Module
    slots = (
        [("query", width)]
        if projection.width == projection.heads * width
        else [("query", width), ("", width)]
    )
    return slots * projection.heads


def _each(layout: Layout, *names: str) -> dict[str, Layout]:
    return dict.fromkeys(names, layout)


_OF_THREE: Mapping[str, Mapping[str, Layout]] = {
    "c_attn": {**_each(one_after_the_other, "gpt2", "openai-gpt"), "gpt_bigcode": _bigcode},
    "Wqkv": _each(one_after_the_other, "mpt", "dbrx"),
    "qkv_proj": {**_each(one_after_the_other, "phi3", "phi4_multimodal"), "codegen": _codegen},
    "query_key_value": {
        **_each(head_by_head, "gpt_neox", "gpt_neox_japanese", "bloom", "persimmon"),
        "falcon": _falcon,
    },
}
_GATED = tuple(f"qwen{name}" for name in ("3_next", "3_5_text", "3_5_moe_text", "4_exp_text"))
_LATENT = (
    "axk1", "axk2", "bailing_hybrid", "deepseek_v2", "deepseek_v3", "deepseek_v32",
    "dots3_note_text", "glm4_moe_lite", "glm5_next_text", "glm_moe_dsa",
    "hy_v4", "kimi_linear", "minicpm3", "mistral4", "youtu",
)  # fmt: skip

FUSED: Mapping[str, Mapping[str, Layout]] = MappingProxyType(
    {**_OF_THREE, "q_proj": _each(_gated, *_GATED), "kv_b_proj": _each(_latent, *_LATENT)}
)
"""Layouts by the name of a module of the attention and the `model_type` of its configuration."""

ALWAYS = ("c_attn", "Wqkv", "qkv_proj", "query_key_value", "kv_b_proj", "qkv", "wqkv", "W_pack",
          "att_proj", "in_proj_qkv", "in_proj_qkvz", "kv_proj", "to_kv", "to_qkv")  # fmt: skip
"""Names of modules that are fused in every model that has them; other names are fused in the types
of `FUSED` only."""


def layout_of(name: str, config: Any) -> Layout | None:
    """Returns the layout of the module named `name` in its block, for that configuration; None if
    it is not fused or not known."""
    return FUSED.get(name.rpartition(".")[2], {}).get(str(getattr(config, "model_type", "")))


def is_fused(name: str) -> bool:
    """Returns whether modules of that name are fused in every model."""
    return name.rpartition(".")[2] in ALWAYS


def columns_of(
    component: str, layout: Layout, projection: FusedProjection
) -> tuple[Int[Tensor, "width"], int]:
    """Returns the columns of a component in a fused projection, head by head, and the number of its
    heads there (0: none).

    Raises: ModelError if the layout does not cover the vector.
    """
    slots = layout(projection)
    covered = sum(width for _, width in slots)
    if covered != projection.width:
        raise ModelError(
            f"a projection of {projection.width} columns is not the {covered} of "
            f"{projection.heads} heads of queries and {projection.groups} of keys and values"
        )
    chosen, start = [], 0
    for part, width in slots:
        if part == component:
            chosen.append(torch.arange(start, start + width))
        start += width
    return (torch.cat(chosen) if chosen else torch.empty(0, dtype=torch.long)), len(chosen)
