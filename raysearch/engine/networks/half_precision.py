"""Products in half precision on a CPU, without two things that cost torch more time than the
product.

- The head is given the last token of each row, a slice: torch makes a product for each row of that,
  and copies the head's weights for each (SmolLM2-135M in bfloat16, 12 rows of 12 tokens: 2.6 s, of
  which 2.2 s are these copies; in float32 0.4 s, without copies). So what a layer is given is laid
  out in one piece first.
- Processors with AVX-512's bfloat16 but no AMX multiply bfloat16 numbers at half their float32
  rate: 85-90 GFLOP/s against 155-165 on one core of an Emerald Rapids whose AMX is masked (torch
  2.13, 448 rows with the weights of SmolLM2-135M); a product in float32, both conversions included,
  runs at 155. What is computed is the same: products of bfloat16 numbers are exact in float32, and
  both ways add up in it.

Invariants: which way is taken depends on the processor and on the number of rows alone, so that
equal rows at equal shapes are equal; weights stay as they are.
"""

import types

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

MANY = 128
"""Rows from which on converting the weights costs less than it saves."""


def speed_up(model: nn.Module) -> None:
    """Lets the plain linear layers of a model in half precision on a CPU work so."""
    has_amx = getattr(
        torch.cpu, "_is_amx_tile_supported", None
    )  # private, and not in every torch that pyproject.toml allows
    amx = has_amx is not None and has_amx()
    for module in model.modules():
        if (
            type(module) is nn.Linear
            and module.weight.itemsize == 2
            and module.weight.device.type == "cpu"
        ):
            slow = module.weight.dtype == torch.bfloat16 and not amx
            module.forward = types.MethodType(_in_float32 if slow else _in_one_piece, module)  # type: ignore[method-assign]


def _in_one_piece(
    layer: nn.Linear, given: Float[Tensor, "*rows width"]
) -> Float[Tensor, "*rows out"]:
    return functional.linear(given.contiguous(), layer.weight, layer.bias)


def _in_float32(
    layer: nn.Linear, given: Float[Tensor, "*rows width"]
) -> Float[Tensor, "*rows out"]:
    if given.numel() < MANY * given.shape[-1] or given.dtype != layer.weight.dtype:
        return _in_one_piece(layer, given)
    bias = None if layer.bias is None else layer.bias.float()
    return functional.linear(given.float(), layer.weight.float(), bias).to(given.dtype)
