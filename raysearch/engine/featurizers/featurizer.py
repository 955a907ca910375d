"""What a featurizer is: x -> (features, rest) and back without loss, and which of the features are interchanged.

A unit of u tokens is one vector of width u·d. The interchange is

    x  <-  inverse((1 - m) * f(x) + m * f(y), rest(x)),        m in [0, 1] for each feature

Invariants: inverse(*self(x)) == x up to float32 rounding; everything is computed in float32, whatever the model's dtype; a featurizer
that is made from `tensors()` of another computes what that one computes once it is `hardened`.
"""

from abc import abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

Vectors = Float[Tensor, "item width"]
Features = Float[Tensor, "item feature"]


class Featurizer(nn.Module):
    """A map on vectors of `width` numbers. Parameters that require gradients are trained."""

    name: ClassVar[str]
    """As `Subspace.featurizer` says it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    @abstractmethod
    def forward(self, vectors: Vectors) -> tuple[Features, Vectors]:
        """(features, rest)."""

    @abstractmethod
    def inverse(self, features: Features, rest: Vectors) -> Vectors:
        """The vectors."""

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """What is trained, by what it is: "rotation", "boundary", "mask"; each may have a learning rate of its own."""
        return {"rotation": [p for p in self.parameters() if p.requires_grad]}

    def mask(self) -> Float[Tensor, "feature"] | None:
        """How much of each feature is interchanged, in [0, 1]; None: all of all."""
        return None

    def interchange(self, base: Vectors, source: Vectors) -> Vectors:
        """`base` with the features of `source`."""
        ours, rest = self(base)
        theirs, _ = self(source)
        mask = self.mask()
        return self.inverse(theirs if mask is None else torch.lerp(ours, theirs, mask), rest)

    def anneal(self, progress: float) -> None:
        """Told before each step how far training is, in [0, 1): for temperatures."""

    def penalty(self) -> Tensor:
        """What is added to the loss."""
        return torch.zeros(())

    def harden(self) -> None:
        """Training is over (or pauses, to validate): from now on as in evaluation. `anneal` makes it soft again."""

    def found(self) -> dict[str, float]:
        """What training found, to be told: for instance the width of a learned boundary."""
        return {}

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """All that is needed to compute it again, on the CPU and contiguous: what is saved."""
