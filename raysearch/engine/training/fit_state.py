"""A fit under way: its pairs, what it puts into their rows, and a step of its optimiser.

Invariants: the featurizer's map is evaluated once for all rows of a step, and its gradient taken
once; a fit that fails leaves its group and nothing else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
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
    """`train`, `held`: indices of pairs to train and to validate on. `answers`: of each the turns
    that say the counterfactual; `change`: those of which this is not the base's own answer."""

    asked: FitRequest
    unit: CapturedUnit
    train: tuple[int, ...]
    held: tuple[int, ...]
    answers: Mapping[int, tuple[AnswerToken, ...]]
    change: frozenset[int]
    progress: Checkpoint

    def live(self, indices: Sequence[int]) -> list[int]:
        """Those whose rows are run."""
        return [index for index in indices if not self.unit.lanes[index].free]

    def free(self, indices: Sequence[int]) -> list[int]:
        """Those whose outcome is the base's own run."""
        return [index for index in indices if self.unit.lanes[index].free]

    def asks(
        self, owner: int, indices: Sequence[int]
    ) -> tuple[Float[Tensor, "row width"], list[TrainingRow]]:
        """What is put in for each turn of these pairs, with gradients; and the rows that ask for
        it."""
        unit = self.unit
        turns = [turn for index in indices for turn in self.answers[index]]
        places = torch.tensor(
            [turn.lane.at for turn in turns], dtype=torch.long, device=unit.base.device
        )
        vectors = self.progress.featurizer.interchange(unit.base[places], unit.source[places])
        put = vectors.detach().unbind()
        return vectors, [
            TrainingRow(owner, turn.lane, vector, unit.tokens, turn.wanted, turn.own)
            for turn, vector in zip(turns, put, strict=True)
        ]

    def learn(
        self,
        vectors: Float[Tensor, "row width"],
        gradient: Float[Tensor, "row width"],
        factor: float,
    ) -> None:
        """One step of the optimiser, with the gradient of the loss by what was put in."""
        optimizer = self.progress.optimizer
        assert optimizer is not None, "what is not trained does not learn"
        optimizer.zero_grad()
        loss: Tensor = (vectors * gradient).sum() + self.progress.featurizer.penalty().to(
            vectors.device
        )
        loss.backward()  # type: ignore[no-untyped-call]
        set_rates(optimizer, factor)
        optimizer.step()

    @property
    def is_finite(self) -> Tensor:
        """Whether all its parameters are; a tensor, so that it need not be waited for."""
        return torch.stack(
            [p.detach().isfinite().all() for p in self.progress.featurizer.parameters()]
        ).all()

    def validation(self, seen: Mapping[int, Sequence[RowLoss]]) -> Validation:
        """Of the outcomes of `held`, turn by turn: an answer is right where all its tokens are."""
        right = {
            index: all(
                outcome.id == turn.wanted
                for turn, outcome in zip(self.answers[index], of_turns, strict=True)
            )
            for index, of_turns in seen.items()
        }
        matches = [right[index] for index in self.held if index in self.change]
        iia = sum(matches) / len(matches) if matches else None
        losses = [outcome.loss for of_turns in seen.values() for outcome in of_turns]
        return Validation(iia, len(matches), sum(losses) / len(seen) if seen else None)

    def diverged(self, what: str, step: int, rate: float) -> DivergedError:
        """The error that says so."""
        (unit,) = self.asked.intervention.units
        size = "" if unit.subspace.features is None else f" of {unit.subspace.features}"
        return DivergedError(
            f"{unit.subspace.featurizer}{size} of {unit.site.description} at {unit.site.position!r}, "
            f"seed {self.asked.seed}: "
            f"the {what} not finite in step {step}, at a learning rate of {rate:.3g}; lower it"
        )

    def has_collapsed(self, recipe: FitKeys) -> bool:
        """Whether training is over and the best of it interchanges nothing, or everything."""
        return (
            self.progress.stopped or self.progress.step >= recipe.steps
        ) and self.progress.collapsed

    def collapse(self) -> CollapsedError:
        """The error that says so."""
        (unit,) = self.asked.intervention.units
        start = getattr(self.progress.featurizer, "cooling", TemperatureSchedule(0.0, 0.0)).start
        found = ", ".join(
            f"{name} {value:g}" for name, value in (self.progress.found or {}).items()
        )
        what = f"{unit.subspace.featurizer} of {unit.site.description} at {unit.site.position!r}, seed {self.asked.seed}"
        return CollapsedError(
            f"{what}: collapsed ({found}), it interchanges nothing, or everything; try another "
            f"fit.temperature "
            f"(it began at {start:g}), fit.penalty or fit.boundary_learning_rate"
        )

    def fit(self, recipe: FitKeys) -> FitOutcome:
        """As it stands."""
        progress = self.progress
        content, found, state = progress.best, progress.found, progress.to_bytes(recipe)
        if content is None:
            progress.featurizer.harden()
            content, found = to_bytes(progress.featurizer), progress.featurizer.found()
        return FitOutcome(
            intervention=self.asked.intervention.id,
            seed=self.asked.seed,
            step=progress.step,
            points=progress.points,
            validation_iia=progress.validation.iia,
            validation_n=progress.validation.n,
            validation_loss=progress.validation.loss,
            found=found or {},
            content=content,
            state=state,
            stopped=progress.stopped,
        )


@dataclass(slots=True)
class FitGroup:
    """Fits that go the same steps, by their places in what was asked. Who fails leaves `alive` for
    `faults`."""

    alive: dict[int, FitState] = field(default_factory=dict)
    faults: dict[int, Exception] = field(default_factory=dict)

    @property
    def going(self) -> dict[int, FitState]:
        """Those alive that have not stopped."""
        return {at: fitting for at, fitting in self.alive.items() if not fitting.progress.stopped}

    def fail(self, faults: Mapping[int, Exception]) -> None:
        self.faults.update(faults)
        for at in faults:
            self.alive.pop(at, None)
