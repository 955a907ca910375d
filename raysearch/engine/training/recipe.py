"""The optimizer of a featurizer, and which pairs each step of training takes.

Invariants: what happens in a step is a function of the job's `fit` keys, the step, the seed and
the pairs, so that training can go on from any step.
"""

import random
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray

from raysearch.core.fit_keys import FitKeys
from raysearch.engine.featurizers.featurizer import Featurizer


def optimizer_of(recipe: FitKeys, featurizer: Featurizer) -> torch.optim.Optimizer:
    """Returns a new optimizer of the featurizer's parameters, each number by itself; the `rate` of
    each of its groups is what `set_rates` multiplies."""
    groups = [
        {"params": parameters, "lr": rate, "rate": rate}
        for name, parameters in featurizer.parameter_groups().items()
        for rate in [recipe.boundary_learning_rate if name == "boundary" else recipe.learning_rate]
        if parameters
    ]
    if recipe.optimizer == "adam":
        return torch.optim.Adam(groups, fused=True)  # the others read the step from the device
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, weight_decay=recipe.weight_decay, fused=True)
    return torch.optim.SGD(groups)


def split_pairs(indices: Sequence[int], share: float) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns the pairs to train on and to validate on, in ascending order: a function of the
    indices alone, equal for every fit."""
    shuffled = sorted(indices)
    random.Random(f"{shuffled}.validation").shuffle(shuffled)
    held_out = round(share * len(shuffled))
    return tuple(sorted(shuffled[held_out:])), tuple(sorted(shuffled[:held_out]))


def batch_of(indices: Sequence[int], size: int, seed: int, step: int) -> list[int]:
    """Returns the `indices` to train on in `step`; see `batches_of`."""
    return [int(one) for one in batches_of(indices, size, seed, range(step, step + 1))[0]]


def batches_of(
    indices: Sequence[int] | NDArray[np.int64], size: int, seed: int, steps: range
) -> Int[NDArray[np.int64], "step batch"]:
    """Returns the `indices` to train on in each of `steps`: epochs, each in its own order, one
    after the other, cut every `size`.

    If there are at most `size` indices, all are taken.
    """
    every = np.array(indices, dtype=np.int64)
    if len(every) <= size:
        return np.tile(every, (len(steps), 1))
    first, stop = steps.start * size, steps.stop * size
    epochs = range(first // len(every), (stop - 1) // len(every) + 1)
    drawn = np.concatenate([_order(len(every), seed, epoch) for epoch in epochs])
    start = first - epochs.start * len(every)
    batches: NDArray[np.int64] = every[drawn[start : start + stop - first]]
    return batches.reshape(len(steps), size)


@lru_cache(maxsize=256)
def _order(count: int, seed: int, epoch: int) -> Int[NDArray[np.int64], "index"]:
    order = list(range(count))
    random.Random(f"{seed}.{epoch}.batches").shuffle(order)
    return np.array(order)


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Sets the learning rates of a step."""
    for group in optimizer.param_groups:
        group["lr"] = group["rate"] * factor
