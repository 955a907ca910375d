"""A fit in training: its pairs, the vectors that it writes into their rows, and a step of its
optimiser.

Invariants: the featurizer is evaluated once, and its gradient taken once, for all rows of a step; a
failing fit leaves its group and affects nothing else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from raysearch.core.fit_keys import FitKeys
from raysearch.engine.featurizers.featurizer import TemperatureSchedule
from raysearch.engine.featurizers.make import to_bytes
from raysearch.engine.training.checkpoint import Checkpoint, Validation
from raysearch.engine.training.fit import CollapsedError, DivergedError, FitOutcome, FitRequest
from raysearch.engine.training.recipe import set_rates
from raysearch.engine.training.training_rows import RowLoss, TrainingRow
from raysearch.engine.training.unit import AnswerToken, CapturedUnit


@dataclass(frozen=True, slots=True, eq=False)
class FitState:
    """The state of one fit. `train`, `held_out`: indices of pairs to train and to validate on.
    `answers`: for each pair the tokens of the counterfactual; `change`: pairs whose
    counterfactual differs from the base's own answer."""

    request: FitRequest
    unit: CapturedUnit
    train: tuple[int, ...]
    held_out: tuple[int, ...]
    answers: Mapping[int, tuple[AnswerToken, ...]]
    change: frozenset[int]
    checkpoint: Checkpoint

    def live(self, indices: Sequence[int]) -> list[int]:
        """Returns the pairs whose rows are run."""
        return [index for index in indices if not self.unit.pair_rows[index].free]

    def free(self, indices: Sequence[int]) -> list[int]:
        """Returns the pairs whose outcome is the base's own run."""
        return [index for index in indices if self.unit.pair_rows[index].free]

    def training_rows(
        self, owner: int, indices: Sequence[int]
    ) -> tuple[Float[Tensor, "row width"], list[TrainingRow]]:
        """Returns the vectors to write for each answer token of these pairs, with gradients, and
        the rows that use them."""
        unit = self.unit
        tokens = [token for index in indices for token in self.answers[index]]
        places = torch.tensor(
            [token.pair_row.at for token in tokens], dtype=torch.long, device=unit.base.device
        )
        vectors = self.checkpoint.featurizer.interchange(unit.base[places], unit.source[places])
        put = vectors.detach().unbind()
        return vectors, [
            TrainingRow(owner, token.pair_row, vector, unit.tokens, token.wanted, token.own)
            for token, vector in zip(tokens, put, strict=True)
        ]

    def take_step(
        self,
        vectors: Float[Tensor, "row width"],
        gradient: Float[Tensor, "row width"],
        factor: float,
    ) -> None:
        """Takes one optimiser step, given the gradient of the loss by the written vectors."""
        optimizer = self.checkpoint.optimizer
        assert optimizer is not None, "what is not trained does not learn"
        optimizer.zero_grad()
        loss: Tensor = (vectors * gradient).sum() + self.checkpoint.featurizer.penalty().to(
            vectors.device
        )
        loss.backward()  # type: ignore[no-untyped-call]
        set_rates(optimizer, factor)
        optimizer.step()

    @property
    def is_finite(self) -> Bool[Tensor, ""]:
        """Whether all parameters are finite; a tensor, so that nothing waits for the device."""
        return torch.stack(
            [p.detach().isfinite().all() for p in self.checkpoint.featurizer.parameters()]
        ).all()

    def validation(self, seen: Mapping[int, Sequence[RowLoss]]) -> Validation:
        """Returns the validation result: an answer is right if all its tokens are."""
        right = {
            index: all(
                outcome.id == token.wanted
                for token, outcome in zip(self.answers[index], of_tokens, strict=True)
            )
            for index, of_tokens in seen.items()
        }
        matches = [right[index] for index in self.held_out if index in self.change]
        iia = sum(matches) / len(matches) if matches else None
        losses = [outcome.loss for of_tokens in seen.values() for outcome in of_tokens]
        return Validation(iia, len(matches), sum(losses) / len(seen) if seen else None)

    def diverged(self, what: str, step: int, rate: float) -> DivergedError:
        """Returns the error for numbers that are not finite."""
        (unit,) = self.request.intervention.units
        size = "" if unit.subspace.features is None else f" of {unit.subspace.features}"
        return DivergedError(
            f"{unit.subspace.featurizer}{size} of {unit.site.description} at {unit.site.position!r}, "
            f"seed {self.request.seed}: "
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
    `alive` to `faults`."""

    alive: dict[int, FitState] = field(default_factory=dict)
    faults: dict[int, Exception] = field(default_factory=dict)

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
