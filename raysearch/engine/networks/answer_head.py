"""The head at the answers that can be given, in place of the whole vocabulary.

Where each row chooses among a few ids, the logits of these decide. A row's logits are computed from
its own ids by a product and a sum, so that they do not depend on the other rows.

Invariants: the model has its own head again however a call ends; a model whose logits are more than
its output embedding and a function of each number keeps its whole head.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from raysearch.engine.networks.block_stubs import replaced_forward
from raysearch.engine.networks.gradient_mode import without_gradients
from raysearch.engine.networks.network import LanguageModel

log = logging.getLogger(__name__)

PROBED = 0.02
"""Largest difference of a logit, relative to the largest one, between both ways of computing it: a
few rounding steps of half precision. The self-check measures what decides."""
PART = 16
"""The whole head is computed if a row has more ids than one in this many of the vocabulary."""


class AnswerHead:
    """Computes logits of some ids. `size`: the number of ids of the vocabulary."""

    def __init__(self, network: LanguageModel) -> None:
        self._layer: Any = network.head
        self.size = 0 if network.head is None else network.head.out_features
        self._works = self.size > 0 and self._equals_whole(network)

    def serves(self, ids: int) -> bool:
        """Returns whether it can compute so many ids of each row, for less than the whole head."""
        return self._works and 0 < PART * ids <= self.size

    @contextmanager
    def at(self, ids: Int[Tensor, "row id"]) -> Iterator[None]:
        """Makes the model compute the logits of `ids` only, of the last token of each row."""
        with replaced_forward(self._layer, partial(_some_logits, self._layer, ids)):
            yield

    def _equals_whole(self, network: LanguageModel) -> bool:
        """Returns whether the model computes the same logits of some ids in both ways."""
        ids = torch.arange(0, self.size, max(1, self.size // 5), device=network.device)[None]
        with without_gradients():
            whole = network.plain(network.example())
            try:
                with self.at(ids):
                    some = network.plain(network.example())
            except Exception as error:  # noqa: BLE001  any code of the model, which keeps its head
                log.info("%s: the whole head is computed: %s", network.name, error)
                return False
        if some.shape != ids[0].shape:
            return False
        far = (some - whole[ids[0]]).abs().max()
        return bool(far <= PROBED * whole.abs().max().clamp(min=1))


def _some_logits(
    layer: Any, ids: Int[Tensor, "row id"], given: Float[Tensor, "row token d_model"]
) -> Float[Tensor, "row 1 id"]:
    """Returns what the head `layer` computes for some ids of each row, of its last token."""
    rows, width = ids.shape
    weight, bias = layer.weight[ids.flatten()].view(rows, width, -1), layer.bias
    logits = (weight.float() * given[:, -1:].float()).sum(-1)
    if bias is not None:
        logits = logits + bias[ids].float()
    rounded: Tensor = logits.to(given.dtype)
    return rounded[:, None]
