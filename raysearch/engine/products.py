"""Products of bfloat16 numbers on a CPU: computed in float32, and rounded once, where the processor is faster so.

Processors with AVX-512's bfloat16 but no AMX multiply bfloat16 numbers at half their float32 rate: 85-90 GFLOP/s against 155-165 on
one core of an Emerald Rapids whose AMX is masked (torch 2.13, 448 rows with the weights of SmolLM2-135M); a product in float32, both
conversions included, runs at 155. What is computed is the same: products of bfloat16 numbers are exact in float32, and both ways
add up in it.

Invariants: which way is taken depends on the processor and on the number of rows alone, so that equal rows at equal shapes are equal.
"""

import types

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

MANY = 128
"""Rows from which on converting the weights costs less than it saves."""


def speed_up(model: nn.Module) -> None:
    """Lets plain linear layers of a model in bfloat16 on such a CPU work in float32. Their weights stay as they are."""
    if torch.cpu._is_amx_tile_supported():
        return
    for module in model.modules():
        if type(module) is nn.Linear and module.weight.dtype == torch.bfloat16 and module.weight.device.type == "cpu":
            module.forward = types.MethodType(_product, module)  # type: ignore[method-assign]


def _product(layer: nn.Linear, given: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows out"]:
    if given.numel() < MANY * given.shape[-1] or given.dtype != torch.bfloat16:
        return functional.linear(given, layer.weight, layer.bias)
    bias = None if layer.bias is None else layer.bias.float()
    return functional.linear(given.float(), layer.weight.float(), bias).to(given.dtype)
