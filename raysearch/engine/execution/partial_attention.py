"""Attention in two parts: to the keys of a prefix that many rows share, and to each row's own keys.

Softmax attention over two sets of keys is the mean of the attention over each, weighted by the sums
of the exponentials of their scores (Juravsky et al., 2024, "Hydragen", equation 4). So the keys and
values of a prefix exist once for all rows that share it. In the backward pass each part is the
ordinary backward pass of flash attention with the log-sum-exp and the output of the whole: for
p = exp(score - log-sum-exp), the gradient of a score is p (dp - d), where dp is that of p and d the
product of the output with its gradient (Dao et al., 2022, "FlashAttention", appendix B.2).

Invariants: outputs and gradients equal those of attention over the concatenated keys up to
rounding; in half precision on a CPU the bits of a row's output depend on no other row, unless a
gradient flows; keys and values are copied neither for rows nor for heads that share them; a prefix
gets no gradient.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from raysearch.engine.execution.attention_kernels import (
    Groups,
    Heads,
    head_by_head,
    of_groups,
    part,
    part_backward,
    takes_groups,
)
from raysearch.engine.networks.to_device import on_device
from raysearch.engine.patching.rows import Indices

__all__ = ["Groups", "Heads", "RowsByBase", "attend"]

AT_ONCE = 128
"""Own tokens up to which the heads of a group attend at once on a CPU: 16 rows of 9 heads in 3
groups, 5 tokens after 19, take 0.6 ms in place of 0.7, with gradients 1.8 in place of 2.1
(benchmarks/cpu_kernels.py, one thread); with 1,024 tokens the mask that this needs costs more than
it saves (66 ms, 46)."""
QUERIES = 16
"""Most queries of a product with a prefix in half precision on a CPU, if one row has no more."""


@dataclass(frozen=True, slots=True)
class RowsByBase:
    """The rows of each base, in pieces of equally many rows.

    `order`: the rows of each piece, row 0 in what is left of it; `place`: the place of each row in
    `order`, flattened (None: the rows are in order); `bases`: the base of each piece; None: base 0,
    1, 2, ..., of which the last ones may have no row; `rows_per_product`: the number of rows of a
    piece that attend in one product; None: all.
    """

    order: Int[Tensor, "piece row"]
    place: Int[Tensor, "all_rows"] | None
    bases: Int[Tensor, "piece"] | None
    rows_per_product: int | None = None

    @staticmethod
    def of(
        bases: Int[Indices, "all_rows"],
        count: int,
        query: "Heads | None" = None,
        groups: int = 1,
    ) -> "RowsByBase":
        """Returns the rows by their bases, which are `bases` of 0..`count` - 1. There are at most
        twice as many pieces as bases that have a row. `query`, `groups`: whose shape, dtype and
        device say how many rows attend in one product."""
        per_product = None if query is None else _rows_per_product(query, groups)
        device = torch.device("cpu") if query is None else query.device
        rows_of = np.bincount(bases, minlength=count)
        most = -(-len(bases) // np.count_nonzero(rows_of))
        most = -(-most // (per_product or 1)) * (per_product or 1)
        pieces_of = -(-rows_of // most)
        by_base = bases.argsort(kind="stable")
        within = np.arange(len(bases)) - (rows_of.cumsum() - rows_of)[bases[by_base]]
        first_piece = (pieces_of.cumsum() - pieces_of)[bases[by_base]]
        place = np.empty_like(bases)
        place[by_base] = (first_piece + within // most) * most + within % most
        pieces = np.repeat(np.arange(count), pieces_of)
        order = np.zeros(len(pieces) * most, dtype=np.int64)
        order[place] = np.arange(len(bases))
        first_bases = np.array_equal(pieces, np.arange(len(pieces)))
        in_order = np.array_equal(place, np.arange(len(order)))

        return RowsByBase(
            on_device(order.reshape(-1, most), device),
            None if in_order else on_device(place, device),
            None if first_bases else on_device(pieces, device),
            per_product,
        )

    def fold(self, rows: Heads, groups: int) -> Float[Tensor, "piece group folded d_head"]:
        """Returns the vectors of all rows, heads of a group and tokens of a piece as one
        sequence."""
        (pieces, most), (_, heads, tokens, width) = self.order.shape, rows.shape
        picked = rows if self.place is None else rows[self.order.flatten()]
        picked = picked.view(pieces, most, groups, -1, tokens, width)
        return picked.transpose(1, 2).reshape(
            pieces, groups, most * (heads // groups) * tokens, width
        )

    def unfold(
        self, folded: Float[Tensor, "piece group folded d_head"], heads: int, tokens: int
    ) -> Heads:
        """Returns the vectors by row: undoes `fold`."""
        (pieces, most), (_, groups, _, width) = self.order.shape, folded.shape
        parts = folded.view(pieces, groups, most, heads // groups, tokens, width).transpose(1, 2)
        rows = parts.reshape(pieces * most, heads, tokens, width)
        return rows if self.place is None else rows[self.place]


def attend(
    query: Heads,
    key: Float[Tensor, "batch group own d_head"],
    value: Float[Tensor, "batch group own d_head"],
    prefix: tuple[
        Float[Tensor, "base group prefix d_head"], Float[Tensor, "base group prefix d_head"]
    ],
    rows: RowsByBase,
    scale: float,
    causal: bool = True,
) -> Heads:
    """Returns the attention of each row to the prefix of its base and to its own `key` and `value`,
    up to the query's own token if `causal`; consecutive heads share one group of them. `prefix`:
    keys and values by base."""
    bases = slice(len(rows.order)) if rows.bases is None else rows.bases
    keys, values = prefix[0][bases], prefix[1][bases]
    given = query, key, value, keys, values, rows, scale, causal
    merged: Tensor = _Merged.apply(*given)  # type: ignore[no-untyped-call]
    return merged


class _Merged(torch.autograd.Function):
    """Attention to prefixes and suffixes, merged."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Heads,
        key: Groups,
        value: Groups,
        keys: Float[Tensor, "piece group prefix d_head"],
        values: Float[Tensor, "piece group prefix d_head"],
        rows: RowsByBase,
        scale: float,
        causal: bool,
    ) -> Heads:
        heads, tokens = query.shape[1:3]
        out, total = _prefix_part(rows, query, keys, values, scale)
        out, total = rows.unfold(out, heads, tokens), rows.unfold(total[..., None], heads, tokens)
        own, own_total = _own_part(query, key, value, causal, scale)
        difference = total - own_total
        if rows.rows_per_product is not None:
            difference = difference.double()  # torch rounds the last few float32 sigmoids otherwise
        share = difference.sigmoid().float()
        merged = torch.lerp(own.float(), out.float(), share).to(query.dtype)
        if any(ctx.needs_input_grad):
            total = torch.logaddexp(total, own_total)
            ctx.save_for_backward(query, key, value, keys, values, merged, total)
            ctx.rows, ctx.scale, ctx.causal = rows, scale, causal
        return merged

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Heads) -> tuple[Tensor | None, ...]:
        query, key, value, keys, values, merged, total = ctx.saved_tensors
        rows, scale, (heads, tokens), groups = ctx.rows, ctx.scale, query.shape[1:3], keys.shape[1]
        grad_folded, _, _ = part_backward(
            rows.fold(grad, groups),
            *(rows.fold(query, groups), keys, values),
            *(rows.fold(merged, groups), rows.fold(total, groups)[..., 0], False, scale),
        )
        of_own = _own_backward(grad, query, key, value, merged, total, ctx.causal, scale)
        grad_query = rows.unfold(grad_folded, heads, tokens) + of_own[0]
        return grad_query, of_own[1], of_own[2], None, None, None, None, None


def _rows_per_product(query: Heads, groups: int) -> int | None:
    """Returns how many rows of a base attend to its prefix in one product (None: all of them).

    In half precision torch's kernel for CPUs sums in another order for another number of queries
    (torch 2.13: from 64, 192 and 768 on). So all products of a wave have equally many there. Where
    gradients flow nothing hangs on single bits.
    """
    if query.device.type != "cpu" or query.dtype.itemsize != 2 or query.requires_grad:
        return None
    return max(1, QUERIES // (query.shape[1] // groups * query.shape[2]))


def _prefix_part(
    rows: RowsByBase,
    query: Heads,
    keys: Float[Tensor, "piece group prefix d_head"],
    values: Float[Tensor, "piece group prefix d_head"],
    scale: float,
) -> tuple[Float[Tensor, "piece group folded d_head"], Float[Tensor, "piece group folded"]]:
    """Returns the attention of folded rows to the prefix of their piece, and the log-sum-exp as
    `part` does: in products of `rows.rows_per_product` rows."""
    folded, products = rows.fold(query, keys.shape[1]), 1
    if rows.rows_per_product is not None:
        products = rows.order.shape[1] // rows.rows_per_product
    if products == 1:
        return part(folded, keys, values, False, scale)
    out, total = torch.empty_like(folded), folded.new_empty(folded.shape[:3], dtype=torch.float32)
    for group in range(keys.shape[1]):  # the products are the kernel's heads, which share the keys
        key, value = (of[:, group, None].expand(-1, products, -1, -1) for of in (keys, values))
        parts = folded[:, group].reshape(len(folded), products, -1, folded.shape[-1])
        some = part(parts, key, value, False, scale)
        out[:, group], total[:, group] = (of.flatten(1, 2) for of in some)
    return out, total


def _own_part(
    query: Heads, key: Groups, value: Groups, causal: bool, scale: float
) -> tuple[Heads, Float[Tensor, "batch head query 1"]]:
    """Returns the attention to the rows' own keys, and the log-sum-exp as `part` does."""
    if _at_once(query, key):
        mask = _mask(query, key, causal)
        out, total = part(_by_group(query, key), key, value, False, scale, mask)
        return out.reshape(query.shape), total.reshape(*query.shape[:3], 1)
    one_kernel = query.shape[1] == key.shape[1] or takes_groups(query.device, query.dtype)
    own, total = (part if one_kernel else head_by_head)(query, key, value, causal, scale)
    return own, total[..., None]


def _own_backward(
    grad: Heads,
    query: Heads,
    key: Groups,
    value: Groups,
    merged: Heads,
    total: Float[Tensor, "batch head query 1"],
    causal: bool,
    scale: float,
) -> tuple[Heads, Groups, Groups]:
    """Returns the gradients of query, key and value through the rows' own keys."""
    by_formula = query.device.type != "cpu" and query.shape[2] <= AT_ONCE
    if _at_once(query, key) or (by_formula and query.shape[1] > key.shape[1]):
        folded = [_by_group(of, key) for of in (grad, query, merged, total)]
        of_query, of_key, of_value = part_backward(
            *(folded[0], folded[1], key, value, folded[2], folded[3][..., 0], False, scale),
            _mask(query, key, causal),
        )
        return of_query.reshape(query.shape), of_key, of_value
    grads = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
    for at in of_groups(query.shape[1], key.shape[1]):
        grads[0][:, at], of_key, of_value = part_backward(
            *(grad[:, at], query[:, at], key, value, merged[:, at], total[:, at, :, 0]),
            *(causal, scale),
        )
        grads[1].add_(of_key)
        grads[2].add_(of_value)
    return grads


def _at_once(query: Heads, key: Groups) -> bool:
    """Whether the heads of a group attend at once, as if they were tokens of one sequence. One
    token each needs no mask for it; of several, GPUs have no kernel that takes the mask."""
    tokens = query.shape[2]
    most = AT_ONCE if query.device.type == "cpu" else 1
    return query.shape[1] > key.shape[1] and tokens <= most


def _by_group(
    of: Float[Tensor, "batch head query _width"], key: Groups
) -> Float[Tensor, "batch group folded _width"]:
    """Returns the vectors of a group's heads as one sequence."""
    return of.reshape(len(of), key.shape[1], -1, of.shape[-1])


def _mask(query: Heads, key: Groups, causal: bool) -> Float[Tensor, "1 1 folded own"] | None:
    """Returns what hides the later tokens from the heads of a group in one sequence."""
    tokens = query.shape[2]
    if not causal or tokens == 1:
        return None
    later = query.new_full((tokens, tokens), -torch.inf).triu(1)
    return later.repeat(query.shape[1] // key.shape[1], 1)[None, None]
