"""Several featurizers of one shape as one, whose trained parameters have a first dimension of fits.

Invariants: the parameters of each are views of the stack's, so that what is written to one is read
in the other; tensors that are not trained are equal in all, and kept once.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from raysearch.engine.featurizers.featurizer import Featurizer


def are_alike(one: Featurizer, other: Featurizer) -> bool:
    """Returns whether two featurizers may be stacked: they differ in trained parameters alone."""
    ours, theirs = _saved(one), _saved(other)
    trained = {name for name, _ in one.named_parameters()}
    return (
        (type(one), one.width, one.cooling, one.weight)
        == (type(other), other.width, other.cooling, other.weight)
        and {name: (t.shape, t.device) for name, t in ours.items()}
        == {name: (t.shape, t.device) for name, t in theirs.items()}
        and all(torch.equal(t, theirs[n]) for n, t in ours.items() if n not in trained)
    )


def stack_featurizers(featurizers: Sequence[Featurizer]) -> Featurizer:
    """Returns the stack of featurizers that are alike."""
    first = featurizers[0]
    stack = copy.deepcopy(first, {id(buffer): buffer for buffer in first.buffers()})
    for name, _ in first.named_parameters():
        whole = torch.stack([one.get_parameter(name).detach() for one in featurizers])
        setattr(stack, name, nn.Parameter(whole))
        for featurizer, part in zip(featurizers, whole.unbind(), strict=True):
            featurizer.get_parameter(name).data = part
    return stack


def _saved(featurizer: Featurizer) -> dict[str, Tensor]:
    saved: dict[str, Tensor] = featurizer.state_dict()  # without directions that `harden` keeps
    return saved
