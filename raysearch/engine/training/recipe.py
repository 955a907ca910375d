"""The optimizer of a featurizer, and which pairs each step of training takes.

Invariants: what happens in a step is a function of the job's `fit` keys, the step, the seed and
the pairs, so that training can go on from any step.
"""

import random
from collections.abc import Sequence
from functools import lru_cache

import torch

from raysearch.core.fit_keys import FitKeys
from raysearch.engine.featurizers.featurizer import Featurizer


def optimizer_of(recipe: FitKeys, featurizer: Featurizer) -> torch.optim.Optimizer:
    """Returns a new optimizer of the featurizer's parameters; the `rate` of each of its groups is
    what `set_rates` multiplies."""
    groups = [
        {"params": parameters, "lr": rate, "rate": rate}
        for name, parameters in featurizer.parameter_groups().items()
        for rate in [recipe.boundary_learning_rate if name == "boundary" else recipe.learning_rate]
        if parameters
    ]
    if recipe.optimizer == "adam":
        return torch.optim.Adam(groups)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, weight_decay=recipe.weight_decay)
    return torch.optim.SGD(groups)


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
