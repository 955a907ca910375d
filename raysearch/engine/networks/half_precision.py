"""Products in half precision on a CPU, without three things that cost torch more time than the
product.

- The head is given the last token of each row: torch makes a product for each row of that, and
  copies the head's weights for each (SmolLM2-135M in bfloat16, 12 rows of 12 tokens: 2.6 s, of
  which 2.2 s are these copies; one row: 183 ms in three dimensions, 4.5 in two). So what a layer is
  given is laid out as one list of vectors first.
- Processors with AVX-512's bfloat16 but no AMX multiply bfloat16 numbers at half their float32 rate
  from some 32 rows on: 1.47 ms against 0.92 for 64 rows and weights of 1,536 x 576 on one core of
  an Emerald Rapids whose AMX is masked (torch 2.13). Processors without units for a dtype take nine
  times as long. A product in float32 computes the same: products of halves are exact in float32,
  and both ways add up in it.
- Converting the weights at each product costs a third of it at 64 rows, and three times it for a
  head of 49,152 x 576. So a copy of the weights in float32 is kept (`keep_copies`) where memory has
  room: three times the memory of the weights alone.

Invariants: which way is taken depends on the processor, the dtype and the number of rows alone,
never on what memory has room for, so that equal rows at equal shapes are equal; weights stay as
they are, and a copy of weights that were changed is not used.
"""

import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from raysearch.engine.networks.hooks import constant

MANY = 32
"""Rows from which on a product in float32 is as fast as one of halves that the processor has units
for, weights converted each time."""
SOME = 4
"""The same where it has none."""
KINDS = nn.Linear, Conv1D
"""Layers that are one product. transformers' Conv1D (GPT-2) has the weights of a linear layer,
transposed."""
WAY = "_raysearch_way"


@dataclass(frozen=True, slots=True)
class Copy:
    """Weights in float32, and which they are of: a tensor, how often it had been changed, where its
    numbers lie."""

    numbers: Float[Tensor, "..."]
    of: Tensor
    version: int
    place: int

    def is_of(self, weight: Tensor) -> bool:
        """Whether `weight` is still what was copied, as far as torch counts changes."""
        return (
            self.of is weight
            and self.version == weight._version
            and self.place == weight.data_ptr()
        )


@dataclass(slots=True)
class _Way:
    """How a layer multiplies: from `least` rows on in float32 (None: never), with a `copy` of its
    weights where one is kept."""

    least: int | None
    copy: Copy | None = None


def rows_in_float32(dtype: torch.dtype) -> int | None:
    """From how many rows on this processor multiplies numbers of `dtype` in float32. None: never."""
    if dtype == torch.bfloat16:
        amx, units = _says(torch.cpu, "_is_amx_tile_supported"), "_is_mkldnn_bf16_supported"
        if amx:
            return None
        return MANY if _says(torch.ops.mkldnn, units) else SOME
    if dtype == torch.float16:  # with units as fast as float32 (torch 2.13, avx512_fp16)
        return None if _says(torch.ops.mkldnn, "_is_mkldnn_fp16_supported") else SOME
    return None


def speed_up(model: nn.Module) -> list[nn.Module]:
    """Lets the plain linear layers of a model in half precision on a CPU work so; says which, so
    that it can be undone (`slow_down`)."""
    changed = []
    for module in _halves(model):
        if "forward" not in vars(module):  # its own, or ours already
            vars(module)[WAY] = _Way(rows_in_float32(module.weight.dtype))
            module.forward = types.MethodType(_product, module)
            changed.append(module)
    return changed


def slow_down(modules: Iterable[nn.Module]) -> None:
    """Takes back what `speed_up` did to these."""
    for module in modules:
        vars(module).pop("forward", None)
        vars(module).pop(WAY, None)


def keep_copies(model: nn.Module, room: int) -> tuple[int, int]:
    """Keeps, anew, float32 copies of weights that are multiplied in it, in the model's order, at
    most `room` bytes.

    Says how many bytes are kept, and how many all would take. No output depends on it.
    """
    drop_copies(model)
    kept = every = 0
    for layer, way in _ways(model):
        weight = layer.weight
        if (
            way.least is None or weight.is_inference() or weight.requires_grad
        ):  # torch does not count changes, or it is being trained
            continue
        size = 4 * weight.numel()
        every += size
        if kept + size <= room:
            with constant():
                way.copy = Copy(weight.detach().float(), weight, weight._version, weight.data_ptr())
            kept += size
    return kept, every


def drop_copies(model: nn.Module) -> None:
    """Keeps none any more."""
    for _, way in _ways(model):
        way.copy = None


def copied_bytes(model: nn.Module, dtype: torch.dtype) -> int:
    """What `keep_copies` would keep on this processor's CPU of a model in `dtype`, in bytes; a
    model without weights will do."""
    if rows_in_float32(dtype) is None:
        return 0
    return sum(4 * module.weight.numel() for module in model.modules() if isinstance(module, KINDS))


def _halves(model: nn.Module) -> Iterator[Any]:
    for module in model.modules():
        if (
            type(module) in KINDS
            and module.weight.itemsize == 2
            and module.weight.device.type == "cpu"
        ):
            yield module


def _ways(model: nn.Module) -> Iterator[tuple[Any, _Way]]:
    """The layers that were sped up, each with its way."""
    for module in _halves(model):
        if WAY in vars(module):
            yield module, vars(module)[WAY]


def _product(
    layer: nn.Linear | Conv1D, given: Float[Tensor, "*rows width"]
) -> Float[Tensor, "*rows out"]:
    """What the layer computes: in float32 and rounded once, where that is the faster way for so
    many rows."""
    weight, bias, way = layer.weight, layer.bias, vars(layer)[WAY]
    if (
        way.least is None
        or given.numel() < way.least * given.shape[-1]
        or given.dtype != weight.dtype
    ):
        return _multiplied(layer, given, weight, bias)
    copy = (
        way.copy
        if way.copy is not None and not weight.requires_grad and way.copy.is_of(weight)
        else None
    )
    numbers = weight.float() if copy is None else copy.numbers
    return _multiplied(layer, given.float(), numbers, None if bias is None else bias.float()).to(
        given.dtype
    )


def _multiplied(
    layer: nn.Linear | Conv1D, given: Tensor, weight: Tensor, bias: Tensor | None
) -> Tensor:
    """The product, of vectors in one list: of one vector in three dimensions torch makes a batch of
    products, and copies the weights."""
    vectors = given.reshape(-1, given.shape[-1])
    if isinstance(layer, nn.Linear):
        out = functional.linear(vectors, weight, bias)
    else:
        assert bias is not None, "a Conv1D has a bias"
        out = torch.addmm(bias, vectors, weight)
    return out.view(*given.shape[:-1], out.shape[-1])


def _says(where: object, name: str) -> bool:
    """Whether torch says so; private, and not in every torch that pyproject.toml allows."""
    ask = getattr(where, name, None)
    return ask is not None and bool(ask())
