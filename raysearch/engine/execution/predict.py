"""Turns logits into an output: the arg max (of all ids, or among choices), ties to the
lowest id, and whether it is too close to call in a batch.

Invariants: an output does not depend on the rest of the batch, since near-ties are decided by the
canonical computation (`evaluate`); logits that are not finite are never an output.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from raysearch.core.events import Ids
from raysearch.engine.execution.answer_scores import AnswerLogits, Scoring, read_logits
from raysearch.engine.execution.cached_runs import on_device
from raysearch.engine.networks.network import ModelInput
from raysearch.engine.patching.rows import Indices

NEAR_TIE = MappingProxyType({"float32": 1e-3, "bfloat16": 0.5, "float16": 0.1})
"""The gap (logits) between the best two below which a row is a near-tie, for models without a
measured executor; in float32 always: in another batch a float32 logit changes by up to 4e-5
(measured on SmolLM2-135M)."""
STEPS = 4
"""Smallest near-tie in half precision, in rounding steps of the highest logit (with 8 bits: 0.125
between 16 and 32): each of two logits may be off by one step, in the executor and in the
canonical computation, however well these agree on tested rows."""


def least_near_tie(dtype: str, highest: Sequence[float]) -> float:
    """Returns the smallest gap (logits) that can be told from a tie. `highest`: highest logits of
    some rows."""
    largest = max((abs(logit) for logit in highest if math.isfinite(logit)), default=0.0)
    if dtype == "float32" or not largest:
        return NEAR_TIE[dtype]
    return (
        STEPS * torch.finfo(getattr(torch, dtype)).eps * float(2 ** math.floor(math.log2(largest)))
    )


class NonFiniteLogitsError(ArithmeticError):
    """The model's logits are NaN or infinite, so there is no output."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """The lowest id with the highest logit; its gap to the second (>= 0); whether it is finite.

    `answer_logits`: the logits that scores read, if any (`with_scores`). `was_near_tie`: the batch
    was too close to call, and the canonical computation decided.
    """

    id: int
    gap: float
    finite: bool
    answer_logits: AnswerLogits | None = None
    was_near_tie: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Predictions:
    """Predictions of many rows as arrays; fields as those of `Prediction`."""

    ids: Int[Tensor, "row"]
    gaps: Float[Tensor, "row"]
    finite: Bool[Tensor, "row"]

    def on_host(self, tolerance: float) -> tuple[Int[Indices, "row"], Int[Indices, "unsure"]]:
        """Returns the ids, and the indices of rows that the canonical computation must decide, for
        a near-tie or for logits that are not finite. Waits for the device once."""
        unsure = (self.gaps < tolerance) | ~self.finite
        found = torch.stack((self.ids, unsure.long())).cpu().numpy()
        return found[0], found[1].nonzero()[0]


def predict(logits: Float[Tensor, "row vocab"], among: Sequence[Ids] = ()) -> list[Prediction]:
    """Returns the prediction of each row. `among`: ids to choose from, by row; empty: all."""
    found = predictions_among(logits, among)
    return [
        Prediction(*row)
        for row in zip(found.ids.tolist(), found.gaps.tolist(), found.finite.tolist(), strict=True)
    ]


def predictions_among(logits: Float[Tensor, "row vocab"], among: Sequence[Ids]) -> Predictions:
    """Returns the predictions of rows, without waiting for the device. `among`: as in `predict`."""
    ids = choices_of(among, logits.device)
    return predictions_of(logits if ids is not None else mask_other_choices(logits, among), ids)


def predictions_of(
    logits: Float[Tensor, "row vocab"], ids: Int[Tensor, "row choice"] | None = None
) -> Predictions:
    """Returns the predictions of rows, among the `ids` of each, in ascending order (None: all)."""
    if ids is not None:
        logits = logits.gather(1, ids)
    two = logits.topk(min(2, logits.shape[-1]), dim=-1).values
    gap = two[:, 0] - two[:, -1]
    finite = logits.amax(
        dim=-1
    ).isfinite()  # amax propagates NaN; -inf (a token ruled out) is harmless
    first = logits.argmax(dim=-1)  # the first of equal ones, as torch documents
    if ids is not None:
        first = ids.gather(1, first[:, None])[:, 0]
    return Predictions(first, gap, finite)


def choices_of(among: Sequence[Ids], device: torch.device) -> Int[Tensor, "row choice"] | None:
    """Returns the ids that each row may answer with, in ascending order; None unless all rows have
    equally many, and some."""
    if not among or len({len(set(ids)) for ids in among}) > 1 or not among[0]:
        return None
    return on_device(np.array([sorted(set(ids)) for ids in among]), device)


def mask_other_choices(
    logits: Float[Tensor, "row vocab"], among: Sequence[Ids], which: Indices | None = None
) -> Float[Tensor, "row vocab"]:
    """Returns logits with -inf at the ids that a row does not choose from; NaN stays, so that it is
    reported. `which`: the index in `among` of each row's ids (None: one of each for each row)."""
    if not any(among):
        return logits
    device = logits.device
    own = [(row, id_) for row, ids in enumerate(among) for id_ in ids]
    rows, ids = (on_device(numbers, device) for numbers in zip(*own, strict=True))
    out = on_device(torch.tensor([[bool(ids)] for ids in among]), device)
    out = out.repeat(1, logits.shape[1])
    out[rows, ids] = False
    if which is not None:
        out = out[on_device(which, device)]
    return logits.masked_fill(out & logits.isfinite(), -torch.inf)


def with_scores(
    predictions: list[Prediction],
    logits: Float[Tensor, "row vocab"],
    scoring: Scoring,
    bases: Sequence[ModelInput],
) -> list[Prediction]:
    """Returns `predictions`, which come from `logits`, with the logits that `scoring` reads.
    `bases`: the base of each row."""
    if not scoring.names:
        return predictions
    read = read_logits(logits, scoring.ids(bases)).tolist()
    each = zip(predictions, read, bases, strict=True)
    return [
        replace(prediction, answer_logits=tuple(of_row)) if scoring.of_base(base) else prediction
        for prediction, of_row, base in each
    ]


def checked_prediction(prediction: Prediction, what: str) -> Prediction:
    """Returns the prediction. Raises: NonFiniteLogitsError, with `what` was run, if its logits are
    not finite."""
    if not prediction.finite:
        raise NonFiniteLogitsError(
            f"{what}: the logits are not finite; the model overflows here, or its weights are "
            f"broken"
        )
    return prediction


def gap_error(one: Prediction, other: Prediction) -> float:
    """Returns the difference of a row's gap in two computations; infinite if only one is finite.

    If they name different ids it is the sum of both gaps. So a prediction with a larger gap has the
    same id in both.
    """
    if one.finite != other.finite:
        return math.inf
    if not one.finite:
        return 0.0
    return abs(one.gap - other.gap) if one.id == other.id else one.gap + other.gap


def is_unsure(prediction: Prediction, tolerance: float) -> bool:
    """Returns whether the canonical computation must decide: the gap is below `tolerance`, or the
    batch gives no finite number."""
    return not prediction.finite or prediction.gap < tolerance


def near_ties(predictions: Sequence[Prediction], tolerance: float) -> list[int]:
    """Returns the indices of `predictions` that the canonical computation must decide."""
    return [at for at, d in enumerate(predictions) if is_unsure(d, tolerance)]
