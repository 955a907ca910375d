"""Interchange by plain torch hooks, written by hand for each family: an oracle of the tests' own.

Invariants: shares nothing with the engine: modules, sides and columns are spelled out here, for the
tiny models of `worlds`.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from types import EllipsisType

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

ALL = ...
HEADS = 4
GROUPS = {"gpt2": 4, "gpt_neox": 4}
"""Key and value heads of a layer; two in the other families."""
HEAD_WIDTH = {"qwen3": 16}
"""Of one head; eight in the other families."""


@dataclass(frozen=True)
class Place:
    """A slice of what enters or leaves a module."""

    module: nn.Module
    enters: bool
    columns: slice | EllipsisType = ALL


@dataclass(frozen=True)
class Swap:
    """Tokens `ours` of `into` in the base's run take what tokens `theirs` of `out_of` have in the
    source's."""

    into: Place
    ours: tuple[int, ...]
    out_of: Place
    theirs: tuple[int, ...]


def heads_of(family: str, component: str) -> int:
    """How many heads the component has, 0 if none."""
    if component in ("key", "value"):
        return GROUPS.get(family, 2)
    return HEADS if component in ("head", "query") else 0


def place(
    model: PreTrainedModel, family: str, component: str, layer: int, head: int | None = None
) -> Place:
    """Where a component (one head of it) of the first tier's families is."""
    if family == "gpt2":
        return _gpt2(model, component, layer, head)
    if family == "gpt_neox":
        return _gpt_neox(model, component, layer, head)
    return _llama_like(model, family, component, layer, head)


def interchange(
    model: PreTrainedModel, base: Sequence[int], source: Sequence[int], swaps: Sequence[Swap]
) -> Tensor:
    """The logits at the last token of `base`: the source's run, then the base's, two plain forward
    passes."""
    lent: dict[int, Tensor] = {}
    with torch.no_grad():
        handles = [_keep(swap.out_of, at, lent) for at, swap in enumerate(swaps)]
        model(input_ids=torch.tensor([list(source)]))
        for handle in handles:
            handle.remove()
        handles = [_put(swap, lent[at]) for at, swap in enumerate(swaps)]
        keep = (
            {"logits_to_keep": 1}
            if "logits_to_keep" in inspect.signature(model.forward).parameters
            else {}
        )
        logits = model(input_ids=torch.tensor([list(base)]), **keep).logits[0, -1]
        for handle in handles:
            handle.remove()
    return logits.float()


def _llama_like(
    model: PreTrainedModel, family: str, component: str, layer: int, head: int | None
) -> Place:
    block, width = model.model.layers[layer], HEAD_WIDTH.get(family, 8)
    one = ALL if head is None else slice(head * width, (head + 1) * width)
    if (
        component in ("query", "key", "value") and family == "phi3"
    ):  # 32 of queries, 16 of keys, 16 of values
        start, end = {"query": (0, 32), "key": (32, 48), "value": (48, 64)}[component]
        columns = (
            slice(start, end) if head is None else slice(start + 8 * head, start + 8 * head + 8)
        )
        return Place(block.self_attn.qkv_proj, False, columns)
    match component:
        case "residual":
            return Place(block, False)
        case "block_input":
            return Place(block, True)
        case "embedding":
            return Place(model.model.embed_tokens, False)
        case "attention_output":
            return Place(block.self_attn, False)
        case "head":
            return Place(block.self_attn.o_proj, True, one)
        case "mlp_output":
            return Place(block.mlp, False)
        case "mlp_activation":
            return Place(block.mlp.down_proj, True)
        case "query":
            return Place(block.self_attn.q_proj, False, one)
        case "key":
            return Place(block.self_attn.k_proj, False, one)
        case "value":
            return Place(block.self_attn.v_proj, False, one)
    raise AssertionError(component)


def _gpt2(model: PreTrainedModel, component: str, layer: int, head: int | None) -> Place:
    block = model.transformer.h[layer]
    match component:
        case "residual":
            return Place(block, False)
        case "block_input":
            return Place(block, True)
        case "embedding":
            return Place(model.transformer.wte, False)
        case "attention_output":
            return Place(block.attn, False)
        case "head":
            return Place(
                block.attn.c_proj, True, ALL if head is None else slice(8 * head, 8 * head + 8)
            )
        case "mlp_output":
            return Place(block.mlp, False)
        case "mlp_activation":
            return Place(block.mlp.c_proj, True)
    third = {"query": 0, "key": 32, "value": 64}[component]
    columns = (
        slice(third, third + 32) if head is None else slice(third + 8 * head, third + 8 * head + 8)
    )
    return Place(block.attn.c_attn, False, columns)


def _gpt_neox(model: PreTrainedModel, component: str, layer: int, head: int | None) -> Place:
    block = model.gpt_neox.layers[layer]
    match component:
        case "residual":
            return Place(block, False)
        case "block_input":
            return Place(block, True)
        case "embedding":
            return Place(model.gpt_neox.embed_in, False)
        case "attention_output":
            return Place(block.attention, False)
        case "head":
            return Place(
                block.attention.dense, True, ALL if head is None else slice(8 * head, 8 * head + 8)
            )
        case "mlp_output":
            return Place(block.mlp, False)
        case "mlp_activation":
            return Place(block.mlp.dense_4h_to_h, True)
    # Head by head: eight of its query, eight of its key, eight of its value.
    assert head is not None, "the queries of all heads do not lie side by side"
    start = 24 * head + {"query": 0, "key": 8, "value": 16}[component]
    return Place(block.attention.query_key_value, False, slice(start, start + 8))


def _keep(at: Place, number: int, lent: dict[int, Tensor]):
    if at.enters:
        return at.module.register_forward_pre_hook(
            lambda module, args, kwargs: lent.__setitem__(
                number, _given(args, kwargs)[0, :, at.columns].clone()
            ),
            with_kwargs=True,
        )
    return at.module.register_forward_hook(
        lambda module, args, out: lent.__setitem__(number, _first(out)[0, :, at.columns].clone())
    )


def _put(swap: Swap, lent: Tensor):
    def patched(activation: Tensor) -> Tensor:
        new = activation.clone()
        for ours, theirs in zip(swap.ours, swap.theirs, strict=True):
            new[0, ours, swap.into.columns] = lent[theirs]
        return new

    def before(module: nn.Module, args: tuple, kwargs: dict):
        new = patched(_given(args, kwargs))
        return ((new, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": new})

    def after(module: nn.Module, args: tuple, out):
        return (patched(out[0]), *out[1:]) if isinstance(out, tuple) else patched(out)

    if swap.into.enters:
        return swap.into.module.register_forward_pre_hook(before, with_kwargs=True)
    return swap.into.module.register_forward_hook(after)


def _given(args: tuple, kwargs: dict) -> Tensor:
    return args[0] if args else kwargs["hidden_states"]


def _first(out) -> Tensor:
    return out[0] if isinstance(out, tuple) else out
