"""Linear layers in half precision on a CPU: without three costs of torch that exceed the product
itself, and with the same bits for a vector in every batch.

- The head receives the last token of each row: torch makes one product for each row and copies the
  head's weights for each (SmolLM2-135M in bfloat16, 12 rows of 12 tokens: 2.6 s, of which 2.2 s are
  these copies; one row: 183 ms in three dimensions, 4.5 in two). So inputs are flattened to one
  list of vectors first.
- Processors with AVX-512's bfloat16 but no AMX multiply bfloat16 at half their float32 rate from
  some 32 rows on: 1.47 ms against 0.92 for 64 rows and weights of 1,536 x 576 on one core of an
  Emerald Rapids whose AMX is masked (torch 2.13). Processors without units for a dtype take nine
  times as long. A float32 product gives the same result: products of half-precision numbers are
  exact in float32, and both ways sum in float32.
- Converting the weights for each product costs a third of it at 64 rows, and three times it for a
  head of 49,152 x 576. So a float32 copy of the weights is held (`keep_copies`) if memory allows:
  three times the memory of the weights alone.
- Processors with AMX multiply bfloat16 six times as fast as float32, but oneDNN sums in another
  order for another number of vectors. So vectors go in blocks of one size (`BLOCK`), the last one
  filled up with zeros: 512 vectors with weights of 1,536 x 576 take 2.8 ms in blocks, 1.0 at once
  and 6.0 in float32 (benchmarks/cpu_kernels.py, one core, torch 2.13).

Invariants: the way of multiplying depends on the processor and the dtype alone, never on the number
of rows or on free memory, so that a row's result does not depend on its batch (MKL's strict mode,
which `raysearch.engine` asks for, gives float32 products that property); the weights do not change,
and a copy of weights that have changed since is not used.
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

from raysearch.engine.networks.gradient_mode import without_gradients

LEAST_ROWS = 4
"""Fewest rows of a product in half precision. Fewer take another way, and would get other bits than
among others: one row through oneDNN in float16, up to three through MKL on an AMD EPYC, where it
has no strict mode (torch 2.13)."""
BLOCK = 64
"""Number of vectors of a product on AMX. The 512 of above take 4.1 ms in blocks of 32 and 2.0 in
blocks of 128, but 12 by themselves 0.35 and 0.52 (0.44 in blocks of 64)."""
KINDS = nn.Linear, Conv1D
"""Layers that are one product. Conv1D of transformers (GPT-2) is a linear layer with transposed
weights."""
PLAN = "_raysearch_way"


@dataclass(frozen=True, slots=True)
class Copy:
    """A float32 copy of weights, with the identity, version counter and address of the original
    tensor."""

    numbers: Float[Tensor, "..."]
    of: Float[Tensor, "..."]
    version: int
    address: int

    def is_of(self, weight: Float[Tensor, "..."]) -> bool:
        """Returns whether `weight` still is the tensor that was copied, as far as torch counts
        changes."""
        return (
            self.of is weight
            and self.version == weight._version
            and self.address == weight.data_ptr()
        )


@dataclass(slots=True)
class _ProductPlan:
    """The plan of a layer's products: in float32 or not, with a `copy` of its weights if one is
    held; in blocks or not."""

    in_float32: bool
    in_blocks: bool
    copy: Copy | None = None


def multiplies_in_float32(dtype: torch.dtype) -> bool:
    """Returns whether this processor multiplies numbers of `dtype` faster in float32."""
    if dtype == torch.bfloat16:  # units without tiles are slower than float32 from 32 rows on
        return not multiplies_in_tiles(dtype)
    if dtype == torch.float16:  # with units as fast as float32 (torch 2.13, avx512_fp16)
        return not _torch_supports(torch.ops.mkldnn, "_is_mkldnn_fp16_supported")
    return False


def multiplies_in_tiles(dtype: torch.dtype) -> bool:
    """Returns whether this processor has AMX for `dtype`: units that multiply small matrices."""
    if dtype == torch.bfloat16:
        return _torch_supports(torch.cpu, "_is_amx_tile_supported")
    return dtype == torch.float16 and _torch_supports(torch.cpu, "_is_amx_fp16_supported")


def speed_up(model: nn.Module) -> list[nn.Module]:
    """Makes the plain linear layers of a half-precision model on a CPU faster; returns those
    changed, for `slow_down`."""
    changed = []
    for module in _half_precision_layers(model):
        if "forward" not in vars(module):  # neither its own nor already replaced
            dtype = module.weight.dtype
            vars(module)[PLAN] = _ProductPlan(
                multiplies_in_float32(dtype), in_blocks=multiplies_in_tiles(dtype)
            )
            module.forward = types.MethodType(_product, module)
            changed.append(module)
    return changed


def slow_down(modules: Iterable[nn.Module]) -> None:
    """Undoes `speed_up` on these layers."""
    for module in modules:
        vars(module).pop("forward", None)
        vars(module).pop(PLAN, None)


def keep_copies(model: nn.Module, room: int) -> tuple[int, int]:
    """Makes float32 copies of weights that are multiplied in float32, in the model's order, of at
    most `room` bytes in all.

    Returns the bytes copied, and the bytes that all copies would take. No output depends on it.
    """
    drop_copies(model)
    copied = wanted = 0
    for layer, plan in _planned_layers(model):
        weight = layer.weight
        if (
            not plan.in_float32 or weight.is_inference() or weight.requires_grad
        ):  # changes are not counted, or the weights are trained
            continue
        size = 4 * weight.numel()
        wanted += size
        if copied + size <= room:
            with without_gradients():
                plan.copy = Copy(
                    weight.detach().float(), weight, weight._version, weight.data_ptr()
                )
            copied += size
    return copied, wanted


def drop_copies(model: nn.Module) -> None:
    """Drops all float32 copies."""
    for _, plan in _planned_layers(model):
        plan.copy = None


def copied_bytes(model: nn.Module, dtype: torch.dtype) -> int:
    """Returns the bytes that `keep_copies` would use for a model of `dtype` on this processor;
    works on a model without weights."""
    if not multiplies_in_float32(dtype):
        return 0
    return sum(4 * module.weight.numel() for module in model.modules() if isinstance(module, KINDS))


def _half_precision_layers(model: nn.Module) -> Iterator[Any]:
    for module in model.modules():
        if (
            type(module) in KINDS
            and module.weight.itemsize == 2
            and module.weight.device.type == "cpu"
        ):
            yield module


def _planned_layers(model: nn.Module) -> Iterator[tuple[Any, _ProductPlan]]:
    """Yields the layers that were sped up, each with its plan."""
    for module in _half_precision_layers(model):
        if PLAN in vars(module):
            yield module, vars(module)[PLAN]


def _product(
    layer: nn.Linear | Conv1D, given: Float[Tensor, "*rows width"]
) -> Float[Tensor, "*rows out"]:
    """Computes the layer's output; in float32, rounded once, where that is faster; in blocks on
    AMX."""
    weight, bias, plan = layer.weight, layer.bias, vars(layer)[PLAN]
    if plan.in_blocks and given.dtype == weight.dtype and not weight.requires_grad:
        return _by_blocks(layer, given)
    if not plan.in_float32 or given.dtype != weight.dtype:
        return _multiplied(layer, given, weight, bias)
    copy = (
        plan.copy
        if plan.copy is not None and not weight.requires_grad and plan.copy.is_of(weight)
        else None
    )
    numbers = weight.float() if copy is None else copy.numbers
    return _multiplied(layer, given.float(), numbers, None if bias is None else bias.float()).to(
        given.dtype
    )


def _multiplied(
    layer: nn.Linear | Conv1D,
    given: Float[Tensor, "*rows width"],
    weight: Float[Tensor, "_ _"],
    bias: Float[Tensor, "out"] | None,
) -> Float[Tensor, "*rows out"]:
    """Computes the product on a list of vectors: given three dimensions, torch makes a batch of
    products and copies the weights."""
    vectors = given.reshape(-1, given.shape[-1])
    rows = len(vectors)
    if 0 < rows < LEAST_ROWS:
        vectors = vectors.repeat(-(-LEAST_ROWS // rows), 1)
    if isinstance(layer, nn.Linear):
        out = functional.linear(vectors, weight, bias)
    else:
        assert bias is not None, "a Conv1D has a bias"
        out = torch.addmm(bias, vectors, weight)
    return out[:rows].view(*given.shape[:-1], out.shape[-1])


def _by_blocks(
    layer: nn.Linear | Conv1D, given: Float[Tensor, "*rows width"]
) -> Float[Tensor, "*rows out"]:
    """Computes the product on blocks of vectors. Its bits are the same where a gradient flows."""
    vectors = given.reshape(-1, given.shape[-1])
    matrix = layer.weight.t() if isinstance(layer, nn.Linear) else layer.weight
    multiply = _multiply_blocks
    if torch.is_grad_enabled() and vectors.requires_grad:
        multiply = _BlockProduct.apply
    out = multiply(vectors, matrix, layer.bias)
    return out.view(*given.shape[:-1], out.shape[-1])


class _BlockProduct(torch.autograd.Function):
    """The product on blocks; its gradient by the vectors is one product, the weights have none."""

    @staticmethod
    def forward(
        ctx: Any,
        vectors: Float[Tensor, "rows width"],
        matrix: Float[Tensor, "width out"],
        bias: Float[Tensor, "out"] | None,
    ) -> Float[Tensor, "rows out"]:
        ctx.matrix = matrix
        return _multiply_blocks(vectors, matrix, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Float[Tensor, "rows out"]) -> tuple[Tensor, None, None]:
        return gradient @ ctx.matrix.t(), None, None


def _multiply_blocks(
    vectors: Float[Tensor, "rows width"],
    matrix: Float[Tensor, "width out"],
    bias: Float[Tensor, "out"] | None,
) -> Float[Tensor, "rows out"]:
    """Multiplies `BLOCK` vectors at a time; the last ones are filled up with zeros."""
    rows, last = len(vectors), len(vectors) % BLOCK
    out = vectors.new_empty(rows, matrix.shape[1])
    for at in range(0, rows - last, BLOCK):
        _multiply(vectors[at : at + BLOCK], matrix, bias, out[at : at + BLOCK])
    if last:
        filled = vectors.new_zeros(BLOCK, matrix.shape[0])
        filled[:last] = vectors[rows - last :]
        product = vectors.new_empty(BLOCK, matrix.shape[1])
        _multiply(filled, matrix, bias, product)
        out[rows - last :] = product[:last]
    return out


def _multiply(block: Tensor, matrix: Tensor, bias: Tensor | None, into: Tensor) -> None:
    """Writes the product of one block."""
    if bias is None:
        torch.mm(block, matrix, out=into)
    else:
        torch.addmm(bias, block, matrix, out=into)


def _torch_supports(where: object, name: str) -> bool:
    """Asks a private function of torch, which not every supported version has."""
    supported = getattr(where, name, None)
    return supported is not None and bool(supported())
