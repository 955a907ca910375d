"""Attention to some of a row's keys, with the log of the sum of the exponentials of its scores: by
the kernels of a device, and by formula for devices without one.

Invariants: both give the same up to rounding; the gradients are those of a row's whole attention
through these keys (`partial_attention` has the formula).
"""

from collections.abc import Iterator
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

Heads = Float[Tensor, "batch head query d_head"]
Groups = Float[Tensor, "batch group own d_head"]
"""Keys or values; consecutive heads share one group of them."""
Totals = Float[Tensor, "batch head query"]
"""Logs (float32) of the sums of the exponentials of scores."""

_CPU = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_CPU_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
_GPU_HALF = torch.ops.aten._scaled_dot_product_flash_attention
_GPU = torch.ops.aten._scaled_dot_product_efficient_attention


def part(
    query: Heads,
    key: Groups,
    value: Groups,
    causal: bool,
    scale: float,
    mask: Tensor | None = None,
) -> tuple[Heads, Totals]:
    """Returns the attention to some of the keys, and the log (float32) of the sum of the
    exponentials of their scores. `mask`: added to the scores, on a CPU alone. Raises: RuntimeError
    for a shape that the device's kernel lacks."""
    if query.device.type == "cpu":
        out, total = _CPU(query, key, value, 0.0, causal, attn_mask=mask, scale=scale)
    elif query.device.type == "cuda" and query.dtype.itemsize == 2:
        out, total, *_ = _GPU_HALF(query, key, value, 0.0, causal, scale=scale)
    elif query.device.type == "cuda":
        out, total, *_ = _GPU(query, key, value, None, True, 0.0, causal, scale=scale)
        total = total.narrow(2, 0, query.shape[2])  # it is padded
    else:
        return part_by_formula(query, key, value, causal, scale)
    return out, total


def head_by_head(
    query: Heads, key: Groups, value: Groups, causal: bool, scale: float
) -> tuple[Heads, Totals]:
    """Computes `part` of heads that share groups by a kernel for the first head of each group, one
    for the second, and so on."""
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    totals = query.new_empty(*query.shape[:3], dtype=torch.float32)
    for at in of_groups(query.shape[1], key.shape[1]):
        out[:, at], totals[:, at] = part(query[:, at], key, value, causal, scale)
    return out, totals


def of_groups(heads: int, groups: int) -> Iterator[slice]:
    """Yields heads that attend to one group of keys each: the first of each group, the second,
    ..."""
    size = heads // groups
    return (slice(first, None, size) for first in range(size))


@cache
def takes_groups(device: torch.device, dtype: torch.dtype) -> bool:
    """Returns whether the device's kernel lets consecutive heads share a group of keys and values:
    tried once, with 4 heads of 2 groups, against each head of the groups by itself."""
    make = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(2, heads, 3, 64, generator=make, device="cpu").to(device, dtype)
        for heads in (4, 2, 2)
    )
    wanted = head_by_head(query, key, value, True, 0.125)
    try:
        found = part(query, key, value, True, 0.125)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:
        return False
    off = 8 * torch.finfo(dtype).eps
    return all(
        one.shape == two.shape and torch.allclose(one.float(), two.float(), off, off)
        for one, two in zip(wanted, found, strict=True)
    )


def part_backward(
    grad: Heads,
    query: Heads,
    key: Groups,
    value: Groups,
    merged: Heads,
    total: Totals,
    causal: bool,
    scale: float,
    mask: Tensor | None = None,
) -> tuple[Heads, Groups, Groups]:
    """Returns the gradients of query, key and value through some of the keys. `merged`, `total`:
    output and log-sum-exp over all keys; `mask`: as in `part`."""
    if query.device.type == "cpu":
        of_all: tuple[Tensor, Tensor, Tensor] = _CPU_BACKWARD(
            *(grad.contiguous(), query, key, value, merged, total.contiguous(), 0.0, causal),
            attn_mask=mask,
            scale=scale,
        )
        return of_all
    return gradients_by_formula(grad, query, key, value, merged, total, causal, scale, mask)


def part_by_formula(
    query: Heads, key: Groups, value: Groups, causal: bool, scale: float
) -> tuple[Heads, Totals]:
    """Computes `part` from all scores, for devices without a kernel of it."""
    scores = _scores(query, key, causal, scale)
    return scores.softmax(-1).to(value.dtype) @ value, scores.logsumexp(-1)


def gradients_by_formula(
    grad: Heads,
    query: Heads,
    key: Groups,
    value: Groups,
    merged: Heads,
    total: Totals,
    causal: bool,
    scale: float,
    mask: Tensor | None = None,
) -> tuple[Heads, Groups, Groups]:
    """Computes `part_backward` from all scores, for devices without a kernel of it."""
    scores = _scores(query, key, causal, scale)
    p = ((scores if mask is None else scores + mask) - total[..., None]).exp()
    grad, value = grad.float(), value.float()
    of_p = grad @ value.transpose(-1, -2)
    of_score = p * (of_p - (grad * merged.float()).sum(-1, keepdim=True)) * scale
    return (
        (of_score @ key.float()).to(query.dtype),
        (of_score.transpose(-1, -2) @ query.float()).to(key.dtype),
        (p.transpose(-1, -2) @ grad).to(key.dtype),
    )


def _scores(
    query: Heads, key: Groups, causal: bool, scale: float
) -> Float[Tensor, "batch head query own"]:
    scores = query.float() @ key.float().transpose(-1, -2) * scale
    if causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(later, -torch.inf)
    return scores
