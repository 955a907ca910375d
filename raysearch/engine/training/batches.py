"""Draws the pairs that each step of training takes, and sets apart those that validate.

Invariants: what happens in a step is a function of the job's `fit` keys, the step, the seed and
the pairs, so that training can go on from any step.
"""

import random
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray


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
