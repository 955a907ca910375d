"""Losses: one number for each row, from the logits at its answer.

Invariants: the loss of a row depends on its own logits alone.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from raysearch.core.option_names import Loss


def losses_of(
    loss: Loss,
    logits: Float[Tensor, "row answer"],
    wanted: Int[Tensor, "row"],
    own: Int[Tensor, "row"],
) -> Float[Tensor, "row"]:
    """Computes the loss of each row. `wanted`: counterfactual answers; `own`: answers of the bases
    without intervention.

    cross_entropy: -log p(wanted). logit_difference: the logit of `own` minus that of `wanted` (0 if
    they are equal).
    """
    if loss == "cross_entropy":
        return functional.cross_entropy(logits, wanted, reduction="none")
    assert loss == "logit_difference", f"no loss {loss!r}"
    both = logits.gather(1, torch.stack((own, wanted), dim=1))
    return both[:, 0] - both[:, 1]
