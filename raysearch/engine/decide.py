"""From logits to an output: the arg max (of all, or among choices), ties to the lowest id, and whether it was too close to call in a batch.

Invariants: in float32 an output does not depend on what else was in the batch, because near-ties are decided again at
batch one (`replica`); numbers that are not finite are never an output.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor

from raysearch.engine.network import Given
from raysearch.engine.scores import Heard, Scoring, hear
from raysearch.search.events import Ids

NEAR_TIE = MappingProxyType({"float32": 1e-3, "bfloat16": 0.5, "float16": 0.1})
"""Two best logits closer than this (in logits) are a near-tie. In another batch the same computation moves a float32
logit by up to 4e-5 (measured on SmolLM2-135M), a bfloat16 one by some steps of its 8 bits (0.125 between 16 and 32)."""


class NonFiniteLogitsError(ArithmeticError):
    """The model's logits are not numbers, or infinite: there is no output."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The lowest id with the highest logit; how far that stands above the second (>= 0); whether it is finite.

    `heard`: what its scores are made of, where any are asked for (`with_scores`).
    """

    id: int
    gap: float
    finite: bool
    heard: Heard | None = None


def decide(logits: Float[Tensor, "row vocab"], among: Sequence[Ids] = ()) -> list[Decision]:
    """The decision for each row. `among`: of each row the ids that it is chosen from; none: all."""
    if any(among):
        logits = _among(logits, among)
    two = logits.topk(min(2, logits.shape[-1]), dim=-1).values
    gap = two[:, 0] - two[:, -1]
    finite = logits.amax(dim=-1).isfinite()  # amax hands on any NaN; -inf (a token that a model rules out) is no harm
    first = logits.argmax(dim=-1)  # of several equal ones the first: torch documents it
    return [Decision(*row) for row in zip(first.tolist(), gap.tolist(), finite.tolist(), strict=True)]


def _among(logits: Float[Tensor, "row vocab"], among: Sequence[Ids]) -> Float[Tensor, "row vocab"]:
    """With all others at -inf; what is no number stays, so that it is told."""
    out = torch.ones_like(logits, dtype=torch.bool)
    for row, ids in enumerate(among):
        out[row, list(ids) or slice(None)] = False
    return logits.masked_fill(out & logits.isfinite(), -torch.inf)


def with_scores(
    decisions: list[Decision], logits: Float[Tensor, "row vocab"], scoring: Scoring, bases: Sequence[Given]
) -> list[Decision]:
    """`decisions`, taken of `logits`, with what `scoring` reads of them beside. `bases`: of the rows, in their order."""
    if not scoring.names:
        return decisions
    heard = hear(logits, scoring.of_bases(bases))
    return [replace(d, heard=h) for d, h in zip(decisions, heard, strict=True)]


def checked(decision: Decision, what: str) -> Decision:
    """The decision itself. Raises: NonFiniteLogitsError, naming `what` was run, where its logits are not finite."""
    if not decision.finite:
        raise NonFiniteLogitsError(
            f"{what}: the logits are not finite; the model overflows here, or its weights are broken"
        )
    return decision


def near_ties(decisions: Sequence[Decision], tolerance: float) -> list[int]:
    """Which of `decisions` are too close to call in a batch: their places."""
    return [at for at, d in enumerate(decisions) if d.finite and d.gap < tolerance]
