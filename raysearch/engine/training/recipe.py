"""How a featurizer is trained: steps, batches, optimiser, schedule, loss, validation.

Invariants: what happens in a step is a function of the recipe, the step, the seed and the pairs,
never of where training began or paused: a fit can be gone on with at any step.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch

from raysearch.core.choices import Loss, Optimizer, Schedule
from raysearch.engine.featurizers.featurizer import Featurizer
from raysearch.errors import JobError


@dataclass(frozen=True, slots=True)
class Recipe:
    """The defaults of all of it are those of a job's `fit`.

    `warmup`: share of the steps in which the learning rate rises from 0. `validation`: share of the
    fit pairs that is not trained on. `evaluate`: how often they are looked at over the whole
    training; `rungs`: steps at which seeds are compared, so that they are looked at there too.
    `patience`: stop after so many looks without improvement (0: never). `boundary_learning_rate`:
    of parameters that are a boundary. `weight_decay`: of adamw. `temperature`: from which a soft
    boundary or mask is cooled, `penalty`: the weight of its width in the loss (None: as the
    method's authors have it).
    """

    steps: int
    batch: int
    learning_rate: float
    optimizer: Optimizer
    schedule: Schedule
    warmup: float
    loss: Loss
    validation: float
    evaluate: int
    patience: int
    boundary_learning_rate: float
    weight_decay: float
    temperature: float | None
    penalty: float | None
    rungs: tuple[int, ...]

    def factor(self, step: int) -> float:
        """By what the learning rates are multiplied in `step` (from 0): as transformers' schedules
        do."""
        warm = round(self.warmup * self.steps)
        if step < warm:
            return step / max(1, warm)
        done = (step - warm) / max(1, self.steps - warm)
        if self.schedule == "linear":
            return 1.0 - done
        return 1.0 if self.schedule == "constant" else 0.5 * (1.0 + math.cos(math.pi * done))

    def is_validated_after(self, step: int) -> bool:
        """Whether the validation part is run once `step` steps are done."""
        regular = step * self.evaluate // self.steps > (step - 1) * self.evaluate // self.steps
        return regular or step in self.rungs

    def optimizer_of(self, featurizer: Featurizer) -> torch.optim.Optimizer:
        """A new one, on the featurizer's parameters; its groups' rates are those that `factor`
        multiplies."""
        groups = [
            {"params": parameters, "lr": rate, "rate": rate}
            for name, parameters in featurizer.parameter_groups().items()
            for rate in [self.boundary_learning_rate if name == "boundary" else self.learning_rate]
            if parameters
        ]
        if self.optimizer == "adam":
            return torch.optim.Adam(groups)
        if self.optimizer == "adamw":
            return torch.optim.AdamW(groups, weight_decay=self.weight_decay)
        if self.optimizer == "sgd":
            return torch.optim.SGD(groups)
        raise JobError(f"{self.optimizer!r} is no optimizer; it may be adam, adamw or sgd")


def split_pairs(indices: Sequence[int], share: float) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The pairs to train on and to validate on, in ascending order: a function of the indices
    alone, the same for every fit."""
    shuffled = sorted(indices)
    random.Random(f"{shuffled}.validation").shuffle(shuffled)
    held_out = round(share * len(shuffled))
    return tuple(sorted(shuffled[held_out:])), tuple(sorted(shuffled[:held_out]))


def batch_of(indices: Sequence[int], size: int, seed: int, step: int) -> list[int]:
    """Which of `indices` are trained on in `step`: epochs, each in an order of its own, one after
    the other, cut every `size`.

    All are taken where there are not so many.
    """
    if len(indices) <= size:
        return list(indices)
    first = step * size
    drawn: list[int] = []
    for epoch in range(first // len(indices), (first + size - 1) // len(indices) + 1):
        order = _order(tuple(indices), seed, epoch)
        start = first - epoch * len(indices)
        drawn += order[max(start, 0) : max(start + size, 0)]
    return drawn


@lru_cache(maxsize=256)
def _order(indices: tuple[int, ...], seed: int, epoch: int) -> tuple[int, ...]:
    order = list(indices)
    random.Random(f"{seed}.{epoch}.batches").shuffle(order)
    return tuple(order)


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Sets the learning rates for a step."""
    for group in optimizer.param_groups:
        group["lr"] = group["rate"] * factor
