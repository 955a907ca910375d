"""A fit in training: its pairs, what was found in its steps and validations, and its outcome.

Invariants: a failing fit leaves its group and affects nothing else.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Int
from numpy.typing import NDArray

from raysearch.core.fit_keys import FitKeys
from raysearch.engine.featurizers.construction import to_bytes
from raysearch.engine.featurizers.featurizer import TemperatureSchedule
from raysearch.engine.patching.rows import Indices
from raysearch.engine.training.answer_table import NONE, AnswerTable
from raysearch.engine.training.captured_unit import CapturedUnit
from raysearch.engine.training.checkpoint import Checkpoint, Validation
from raysearch.engine.training.fit_request import (
    CollapsedError,
    DivergedError,
    FitOutcome,
    FitRequest,
)
from raysearch.engine.training.step_rows import FitRows
from raysearch.engine.training.training_rows import Outcomes


@dataclass(frozen=True, slots=True, eq=False)
class FitState:
    """The state of one fit. Pairs are counted from the first of its unit. `train`, `held_out`:
    pairs to train and to validate on. `answers`: of each pair the tokens of the counterfactual;
    `change`: pairs whose counterfactual differs from the base's own answer. `unrun`: losses and ids
    with the highest logit of answers whose outcome is the base's own run."""

    request: FitRequest
    unit: CapturedUnit
    train: Indices
    held_out: Indices
    answers: AnswerTable
    change: Bool[NDArray[np.bool_], "pair"]
    unrun: Outcomes
    checkpoint: Checkpoint

    def batch(self, size: int) -> int:
        """Returns the number of pairs in a step, of which the job asks for `size`."""
        return min(size, len(self.train))

    def rows_of(self, chosen: Int[NDArray[np.int64], "step batch"], first: int) -> FitRows:
        """Returns the rows of these pairs. `first`: as in `FitRows`."""
        return FitRows(self.answers, self.unrun.losses, chosen, self.unit.width, first)

    def record(
        self, losses: Sequence[float], sizes: Sequence[float], rates: Sequence[float]
    ) -> None:
        """Records steps taken: mean losses, sizes of parameters, and learning rates. Raises:
        DivergedError for the first step in which one is not finite."""
        for loss, size, rate in zip(losses, sizes, rates, strict=True):
            if not (math.isfinite(loss) and math.isfinite(size)):
                what = "parameters are" if math.isfinite(loss) else "loss is"
                raise self.diverged(what, self.checkpoint.step, rate)
            self.checkpoint.step += 1
            self.checkpoint.losses += (loss,)

    def validation(self, seen: Outcomes) -> Validation:
        """Returns the validation result, by the outcome of each token of each held out pair: an
        answer is right if all its tokens are."""
        held = self.held_out
        if not len(held):
            return Validation(None, 0, None)
        rows, wanted = self.answers.rows[held], self.answers.wanted[held]
        ids = np.where(rows == NONE, self.unrun.ids[held], seen.ids.reshape(rows.shape))
        right = ((ids == wanted) | (wanted == NONE)).all(1)[self.change[held]]
        losses = seen.losses.sum() / len(held)
        iia = float(right.mean()) if len(right) else None
        return Validation(iia, len(right), float(losses))

    def diverged(self, what: str, step: int, rate: float) -> DivergedError:
        """Returns the error for numbers that are not finite."""
        (unit,) = self.request.intervention.units
        size = "" if unit.subspace.features is None else f" of {unit.subspace.features}"
        return DivergedError(
            f"{unit.subspace.featurizer}{size} of {unit.site.description} at {unit.site.position!r}"
            f", seed {self.request.seed}: "
            f"the {what} not finite in step {step}, at a learning rate of {rate:.3g}; lower it"
        )

    def has_collapsed(self, recipe: FitKeys) -> bool:
        """Returns whether training is over and the best featurizer interchanges nothing, or
        everything."""
        return (
            self.checkpoint.stopped or self.checkpoint.step >= recipe.steps
        ) and self.checkpoint.collapsed

    def collapse(self) -> CollapsedError:
        """Returns the error for a collapsed featurizer."""
        (unit,) = self.request.intervention.units
        start = getattr(self.checkpoint.featurizer, "cooling", TemperatureSchedule(0.0, 0.0)).start
        found = ", ".join(
            f"{name} {value:g}" for name, value in (self.checkpoint.found or {}).items()
        )
        what = f"{unit.subspace.featurizer} of {unit.site.description} at {unit.site.position!r}"
        what += f", seed {self.request.seed}"
        return CollapsedError(
            f"{what}: collapsed ({found}), it interchanges nothing, or everything; try another "
            f"fit.temperature "
            f"(it began at {start:g}), fit.penalty or fit.boundary_learning_rate"
        )

    def fit(self, recipe: FitKeys) -> FitOutcome:
        """Returns the outcome so far."""
        checkpoint = self.checkpoint
        content, found, state = checkpoint.best, checkpoint.found, checkpoint.to_bytes(recipe)
        if content is None:
            checkpoint.featurizer.harden()
            content, found = to_bytes(checkpoint.featurizer), checkpoint.featurizer.found()
        return FitOutcome(
            intervention=self.request.intervention.id,
            seed=self.request.seed,
            step=checkpoint.step,
            points=checkpoint.points,
            validation_iia=checkpoint.validation.iia,
            validation_n=checkpoint.validation.n,
            validation_loss=checkpoint.validation.loss,
            found=found or {},
            content=content,
            state=state,
            stopped=checkpoint.stopped,
        )


@dataclass(slots=True)
class FitGroup:
    """Fits that take the same steps, by their index among the requests. A failing fit moves from
    `alive` to `faults`. `apart`: those that cannot be stacked, since a stack with them failed."""

    alive: dict[int, FitState] = field(default_factory=dict)
    faults: dict[int, Exception] = field(default_factory=dict)
    apart: set[int] = field(default_factory=set)

    @property
    def going(self) -> dict[int, FitState]:
        """The fits alive that have not stopped."""
        return {
            at: fit_state
            for at, fit_state in self.alive.items()
            if not fit_state.checkpoint.stopped
        }

    def fail(self, faults: Mapping[int, Exception]) -> None:
        self.faults.update(faults)
        for at in faults:
            self.alive.pop(at, None)
