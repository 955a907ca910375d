"""Several featurizers of one shape as one, whose trained parameters have a first dimension of fits.

Invariants: the parameters of each are views of the stack's, so that what is written to one is read
in the other; tensors that are not trained are equal in all, and kept once.
"""

import copy
from collections.abc import Sequence

import torch
from torch import nn

from raysearch.engine.featurizers.featurizer import Featurizer


def are_alike(one: Featurizer, other: Featurizer) -> bool:
    """Returns whether two featurizers may be stacked: they differ in trained parameters alone."""
    shapes, fixed = (
        [
            [(n, t.shape, t.device) for n, t in named]
            for named in (one.named_parameters(), other.named_parameters())
        ],
        [dict(f.named_buffers()) for f in (one, other)],
    )
    return (
        (type(one), one.width, one.cooling, one.weight)
        == (type(other), other.width, other.cooling, other.weight)
        and shapes[0] == shapes[1]
        and fixed[0].keys() == fixed[1].keys()
        and all(_are_equal(t, fixed[1][name]) for name, t in fixed[0].items())
    )


def stacked(featurizers: Sequence[Featurizer]) -> Featurizer:
    """Returns the stack of featurizers that are alike."""
    first = featurizers[0]
    stack = copy.deepcopy(first, {id(buffer): buffer for buffer in first.buffers()})
    for name, _ in first.named_parameters():
        whole = nn.Parameter(
            torch.stack([featurizer.get_parameter(name).detach() for featurizer in featurizers])
        )
        setattr(stack, name, whole)
        for featurizer, part in zip(featurizers, whole.detach(), strict=True):
            featurizer.get_parameter(name).data = part
    return stack


def _are_equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one is other or torch.equal(one, other)
