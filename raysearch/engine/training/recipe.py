"""Training recipe: steps, batches, optimiser, schedule, loss, validation.

Invariants: a step is a function of the recipe, the step number, the seed and the pairs, and not of
where training started or paused: a fit can resume at any step.
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
    """Settings of training; a job's `fit` has their defaults.

    `warmup`: share of steps in which the learning rate rises from 0. `validation`: share of fit
    pairs held out for validation. `evaluate`: number of validations over the whole training;
    `rungs`: steps at which seeds are compared, and so validated too. `patience`: stop after this
    many validations without improvement (0: never). `boundary_learning_rate`: for parameters that
    are a boundary. `weight_decay`: of adamw. `temperature`: initial temperature of a soft boundary
    or mask, `penalty`: weight of its width in the loss (None: as published with the method).
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
        """Returns the factor of the learning rates in `step` (from 0), by the schedules of
        transformers."""
        warm = round(self.warmup * self.steps)
        if step < warm:
            return step / max(1, warm)
        done = (step - warm) / max(1, self.steps - warm)
        if self.schedule == "linear":
            return 1.0 - done
        return 1.0 if self.schedule == "constant" else 0.5 * (1.0 + math.cos(math.pi * done))

    def is_validated_after(self, step: int) -> bool:
        """Returns whether a validation takes place after `step` steps."""
        regular = step * self.evaluate // self.steps > (step - 1) * self.evaluate // self.steps
        return regular or step in self.rungs

    def optimizer_of(self, featurizer: Featurizer) -> torch.optim.Optimizer:
        """Returns a new optimiser of the featurizer's parameters; `factor` multiplies the rates of
        its groups."""
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
    """Returns the pairs to train on and to validate on, in ascending order: a function of the
    indices alone, equal for every fit."""
    shuffled = sorted(indices)
    random.Random(f"{shuffled}.validation").shuffle(shuffled)
    held_out = round(share * len(shuffled))
    return tuple(sorted(shuffled[held_out:])), tuple(sorted(shuffled[:held_out]))


def batch_of(indices: Sequence[int], size: int, seed: int, step: int) -> list[int]:
    """Returns the `indices` to train on in `step`: epochs, each in its own order, one after the
    other, cut every `size`.

    If there are at most `size` indices, all are taken.
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
    """Sets the learning rates of a step."""
    for group in optimizer.param_groups:
        group["lr"] = group["rate"] * factor
