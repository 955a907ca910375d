"""From logits to an output: the arg max (of all, or among choices), ties to the lowest id, and
whether it was too close to call in a batch.

Invariants: an output does not depend on what else was in the batch, because near-ties are decided
again by the canonical computation (`measure`); numbers that are not finite are never an output.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor

from raysearch.core.events import Ids
from raysearch.engine.execution.answer_scores import AnswerLogits, Scoring, read_logits
from raysearch.engine.networks.network import ModelInput

NEAR_TIE = MappingProxyType({"float32": 1e-3, "bfloat16": 0.5, "float16": 0.1})
"""Two best logits closer than this (in logits) are a near-tie where no faster path was measured; in
float32, everywhere: in another batch the same computation moves a float32 logit by up to 4e-5
(measured on SmolLM2-135M)."""
STEPS = 4
"""In coarser numbers a near-tie is at least so many steps of the highest logit (of 8 bits: 0.125
between 16 and 32): each of two logits may be rounded one step away, in the path and in the
canonical computation, however well these agree on the rows that were tried."""


def least_near_tie(dtype: str, highest: Sequence[float]) -> float:
    """The least gap (in logits) that can be told from none. `highest`: the highest logit of some
    rows."""
    largest = max((abs(logit) for logit in highest if math.isfinite(logit)), default=0.0)
    if dtype == "float32" or not largest:
        return NEAR_TIE[dtype]
    return (
        STEPS * torch.finfo(getattr(torch, dtype)).eps * float(2 ** math.floor(math.log2(largest)))
    )


class NonFiniteLogitsError(ArithmeticError):
    """The model's logits are not numbers, or infinite: there is no output."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """The lowest id with the highest logit; how far that stands above the second (>= 0); whether it
    is finite.

    `heard`: what its scores are made of, where any are asked for (`with_scores`). `again`: it was
    too close to call where it was first taken, and is the canonical computation's.
    """

    id: int
    gap: float
    finite: bool
    answer_logits: AnswerLogits | None = None
    was_near_tie: bool = field(default=False, compare=False)


def predict(logits: Float[Tensor, "row vocab"], among: Sequence[Ids] = ()) -> list[Prediction]:
    """The decision for each row. `among`: of each row the ids that it is chosen from; none: all."""
    if any(among):
        logits = _among(logits, among)
    two = logits.topk(min(2, logits.shape[-1]), dim=-1).values
    gap = two[:, 0] - two[:, -1]
    finite = logits.amax(
        dim=-1
    ).isfinite()  # amax hands on any NaN; -inf (a token that a model rules out) is no harm
    first = logits.argmax(dim=-1)  # of several equal ones the first: torch documents it
    return [
        Prediction(*row) for row in zip(first.tolist(), gap.tolist(), finite.tolist(), strict=True)
    ]


def _among(logits: Float[Tensor, "row vocab"], among: Sequence[Ids]) -> Float[Tensor, "row vocab"]:
    """With all others at -inf; what is no number stays, so that it is told."""
    out = torch.ones_like(logits, dtype=torch.bool)
    for row, ids in enumerate(among):
        out[row, list(ids) or slice(None)] = False
    return logits.masked_fill(out & logits.isfinite(), -torch.inf)


def with_scores(
    predictions: list[Prediction],
    logits: Float[Tensor, "row vocab"],
    scoring: Scoring,
    bases: Sequence[ModelInput],
) -> list[Prediction]:
    """`decisions`, taken of `logits`, with what `scoring` reads of them beside. `bases`: of the
    rows, in their order."""
    if not scoring.names:
        return predictions
    answer_logits = read_logits(logits, scoring.of_bases(bases))
    return [replace(d, answer_logits=h) for d, h in zip(predictions, answer_logits, strict=True)]


def checked(prediction: Prediction, what: str) -> Prediction:
    """The decision itself. Raises: NonFiniteLogitsError, naming `what` was run, where its logits
    are not finite."""
    if not prediction.finite:
        raise NonFiniteLogitsError(
            f"{what}: the logits are not finite; the model overflows here, or its weights are "
            f"broken"
        )
    return prediction


def gap_error(one: Prediction, other: Prediction) -> float:
    """How far the gap of the best two of a row differs in two computations of it; infinite where
    only one is finite.

    Where they name different ids each has the other's behind: the sum of both gaps. So a decision
    whose gap is larger names the same id.
    """
    if one.finite != other.finite:
        return math.inf
    if not one.finite:
        return 0.0
    return abs(one.gap - other.gap) if one.id == other.id else one.gap + other.gap


def is_unsure(prediction: Prediction, tolerance: float) -> bool:
    """Whether it is left to the canonical computation: it is too close to call in a batch, or what
    the batch gives is no number."""
    return not prediction.finite or prediction.gap < tolerance


def near_ties(predictions: Sequence[Prediction], tolerance: float) -> list[int]:
    """Which of `decisions` are left to the canonical computation: their places."""
    return [at for at, d in enumerate(predictions) if is_unsure(d, tolerance)]
