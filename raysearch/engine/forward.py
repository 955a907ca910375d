"""Running the model: one input plainly, or rows of one padded width at once; logits at the last token only.

Invariants: a row's width depends on its own length, never on its company; padding stands left, is masked, and does not
move the position ids.
"""

import inspect
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import Cache, PreTrainedModel

from raysearch.search.events import Ids

WIDTH_STEP = 4
"""Rows are padded to a multiple of this many tokens: few shapes, at most three tokens of padding."""

Item = TypeVar("Item")


def plain_logits(model: PreTrainedModel, ids: Ids) -> Float[Tensor, "vocab"]:
    """The logits (float32) after the last token of `ids`: one plain forward pass, nothing padded, nothing masked."""
    options = {"use_cache": False} if takes(model, "use_cache") else {}
    logits: Tensor = model(input_ids=torch.tensor([ids], device=model.device), **options).logits
    return logits[0, -1].float()


def batch_logits(model: PreTrainedModel, rows: Sequence[Ids], cache: Cache | None = None) -> Float[Tensor, "row vocab"]:
    """The logits (float32) after the last token of each row, in one forward pass. All rows have one `width_of`.

    Keys and values are left in `cache`, if there is one.
    """
    width = width_of(len(rows[0]))
    assert all(width_of(len(row)) == width for row in rows), "rows of one batch have one padded width"
    pads = [width - len(row) for row in rows]
    ids = [[0] * pad + list(row) for pad, row in zip(pads, rows, strict=True)]
    mask = [[0] * pad + [1] * len(row) for pad, row in zip(pads, rows, strict=True)]
    at = [[0] * pad + list(range(len(row))) for pad, row in zip(pads, rows, strict=True)]
    options: dict[str, object] = {"attention_mask": torch.tensor(mask, device=model.device)}
    if takes(model, "position_ids"):
        options["position_ids"] = torch.tensor(at, device=model.device)
    if cache is not None:
        options |= {"past_key_values": cache, "use_cache": True}
    elif takes(model, "use_cache"):
        options["use_cache"] = False
    if takes(model, "logits_to_keep"):
        options["logits_to_keep"] = 1
    logits: Tensor = model(input_ids=torch.tensor(ids, device=model.device), **options).logits
    return logits[:, -1].float()


def width_of(length: int) -> int:
    """The padded width of a row of `length` tokens."""
    return -(-length // WIDTH_STEP) * WIDTH_STEP


def batches(items: Sequence[Item], length: Callable[[Item], int], rows: int) -> Iterator[list[Item]]:
    """`items` in batches of one padded width and at most `rows`, in their order within each width."""
    by_width: dict[Hashable, list[Item]] = {}
    for item in items:
        by_width.setdefault(width_of(length(item)), []).append(item)
    for group in by_width.values():
        for start in range(0, len(group), rows):
            yield group[start : start + rows]


def takes(model: PreTrainedModel, argument: str) -> bool:
    """Whether the model's forward has this argument: by its signature; a TypeError may come from anywhere below."""
    return argument in inspect.signature(model.forward).parameters
