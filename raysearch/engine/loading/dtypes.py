"""Dtypes of each weight and buffer of a language model: those that transformers chooses, not always
the requested one.

A model in half precision keeps some numbers in float32: frequencies of rotary positions, the bias
of a router. In bfloat16 these frequencies change the position of a token (SmolLM2-135M on 400
tokens: logits move by up to 41 instead of 8).
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn


def dtypes_of(model: nn.Module) -> dict[str, torch.dtype]:
    """Returns the dtype of each weight and buffer, by name."""
    return {name: tensor.dtype for name, tensor in _named(model)}


def cast(model: nn.Module, dtypes: Mapping[str, torch.dtype], otherwise: torch.dtype) -> None:
    """Casts each floating weight and buffer of `model` to its dtype in `dtypes`, or to `otherwise`
    if it is not listed."""
    for name, tensor in _named(model):
        if tensor.is_floating_point():
            tensor.data = tensor.data.to(dtypes.get(name, otherwise))


def _named(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()
