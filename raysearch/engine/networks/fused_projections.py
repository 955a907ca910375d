"""Fused projections: modules that put out several of queries, keys and values in one vector, and
which columns are whose.

The order is that of the code that reads the vector, so it belongs to the type of the model and to
flags of its configuration: modules of one name are read in several orders. A type that is not in
`FUSED` has no known order, and none is guessed.

Invariants: heads count in the order in which they are read; a layout covers the whole vector, or it
is refused.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from raysearch.errors import ModelError

Slots = Sequence[tuple[str, int]]
"""The parts of a vector, one after the other: the component that it belongs to ("" for none), and
its width."""


@dataclass(frozen=True, slots=True)
class FusedProjection:
    """A fused projection to be laid out: its attention module, the configuration, heads of queries,
    heads of keys, its width."""

    attention: nn.Module
    config: Any
    heads: int
    groups: int
    width: int

    def shared(self, parts: int) -> int:
        """The width of each of `parts` parts that are alike."""
        return self.width // parts


Layout = Callable[[FusedProjection], Slots]


def one_after_the_other(asked: FusedProjection) -> Slots:
    """All queries, then all keys, then all values."""
    width = asked.shared(asked.heads + 2 * asked.groups)
    parts = (("query", asked.heads), ("key", asked.groups), ("value", asked.groups))
    return [(part, width) for part, count in parts for _ in range(count)]


def head_by_head(asked: FusedProjection) -> Slots:
    """Each head's query, key and value."""
    width = asked.shared(3 * asked.heads)
    return [("query", width), ("key", width), ("value", width)] * asked.heads


def group_by_group(asked: FusedProjection) -> Slots:
    """Each group's queries, its key and its value."""
    width = asked.shared(asked.heads + 2 * asked.groups)
    queries = [("query", width)] * (asked.heads // asked.groups)
    return [*queries, ("key", width), ("value", width)] * asked.groups


def _falcon(asked: FusedProjection) -> Slots:
    """Groups in the new architecture; in the old one a key for all heads, or one for each, whatever
    `num_kv_heads` says."""
    if asked.config.new_decoder_architecture:
        return group_by_group(asked)
    return one_after_the_other(asked) if asked.config.multi_query else head_by_head(asked)


def _bigcode(asked: FusedProjection) -> Slots:
    return one_after_the_other(asked) if asked.config.multi_query else head_by_head(asked)


_CODEGEN_BLOCKS = 4
"""`mp_num` in its forward pass: so many blocks of heads lie side by side, one for each chip that it
was trained on."""


def _codegen(asked: FusedProjection) -> Slots:
    """Block by block its queries, its values, its keys."""
    width, in_block = asked.shared(3 * asked.heads), asked.heads // _CODEGEN_BLOCKS
    return [
        (part, width) for part in ("query", "value", "key") for _ in range(in_block)
    ] * _CODEGEN_BLOCKS


def _latent(asked: FusedProjection) -> Slots:
    """Each head's part of its key that is not rotated, and its value (arXiv:2405.04434). The rest
    of the key is shared by all heads."""
    own, value = (
        int(getattr(asked.attention, name)) for name in ("qk_nope_head_dim", "v_head_dim")
    )
    return [("", own), ("value", value)] * asked.heads


def _gated(asked: FusedProjection) -> Slots:
    """Each head's query, and a gate on what the head puts out; without the gate, where the
    configuration has none."""
    width = int(getattr(asked.attention, "head_dim"))  # noqa: B009  no attribute of nn.Module
    slots = (
        [("query", width)]
        if asked.width == asked.heads * width
        else [("query", width), ("", width)]
    )
    return slots * asked.heads


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
    "axk1", "axk2", "bailing_hybrid", "deepseek_v2", "deepseek_v3", "deepseek_v32", "dots3_note_text", "glm4_moe_lite",
    "glm5_next_text", "glm_moe_dsa", "hy_v4", "kimi_linear", "minicpm3", "mistral4", "youtu",
)  # fmt: skip

FUSED: Mapping[str, Mapping[str, Layout]] = MappingProxyType(
    {**_OF_THREE, "q_proj": _each(_gated, *_GATED), "kv_b_proj": _each(_latent, *_LATENT)}
)
"""By the name of a module of the attention and the `model_type` of its configuration, how its
vector is laid out."""

ALWAYS = ("c_attn", "Wqkv", "qkv_proj", "query_key_value", "kv_b_proj", "qkv", "wqkv", "W_pack", "att_proj", "in_proj_qkv",
          "in_proj_qkvz", "kv_proj", "to_kv", "to_qkv")  # fmt: skip
"""Names of modules that put out several of the three in every model that has them; others may, in
the types of `FUSED`."""


def layout_of(name: str, config: Any) -> Layout | None:
    """How the module that goes by `name` in its block is laid out in models of that configuration;
    None: not fused, or not known."""
    return FUSED.get(name.rpartition(".")[2], {}).get(str(getattr(config, "model_type", "")))


def is_fused(name: str) -> bool:
    """Whether the module that goes by `name` in its block puts out more than one of the three in
    whatever model it is."""
    return name.rpartition(".")[2] in ALWAYS


def columns_of(
    component: str, layout: Layout, asked: FusedProjection
) -> tuple[Int[Tensor, "width"], int]:
    """The columns of a component in a fused projection, head by head, and how many heads it has
    there (none: 0).

    Raises: ModelError where the layout does not cover the vector.
    """
    slots = layout(asked)
    covered = sum(width for _, width in slots)
    if covered != asked.width:
        raise ModelError(
            f"a projection of {asked.width} columns is not the {covered} of {asked.heads} heads of "
            f"queries and "
            f"{asked.groups} of keys and values"
        )
    chosen, start = [], 0
    for part, width in slots:
        if part == component:
            chosen.append(torch.arange(start, start + width))
        start += width
    return (torch.cat(chosen) if chosen else torch.empty(0, dtype=torch.long)), len(chosen)
