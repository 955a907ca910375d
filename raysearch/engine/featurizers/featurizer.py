"""What a featurizer is: x -> (features, rest) and back without loss, and which of the features are
interchanged.

A unit of u tokens is one vector of width u·d. The interchange is

    x  <-  inverse((1 - m) * f(x) + m * f(y), rest(x)),        m in [0, 1] for each feature

Invariants: inverse(*self(x)) == x up to float32 rounding; everything is computed in float32,
whatever the model's dtype; a vector interchanged with itself changes no bit; a featurizer that is
made from `tensors()` of another computes what that one computes once it is hardened.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

Vectors = Float[Tensor, "item width"]
FeatureVectors = Float[Tensor, "item feature"]


class Featurizer(nn.Module):
    """A map on vectors of `width` numbers. Parameters that require gradients are trained."""

    name: ClassVar[str]
    """As `Subspace.featurizer` says it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    @abstractmethod
    def forward(self, vectors: Vectors) -> tuple[FeatureVectors, Vectors]:
        """(features, rest)."""

    @abstractmethod
    def inverse(self, features: FeatureVectors, rest: Vectors) -> Vectors:
        """The vectors."""

    def mask(self) -> Float[Tensor, "feature"] | None:
        """How much of each feature is interchanged, in [0, 1]; None: all of all."""
        return None

    def interchange(self, base: Vectors, source: Vectors) -> Vectors:
        """`base` with the features of `source`, as much of each as `mask` says."""
        return self.mix(base, source, self.mask())

    @abstractmethod
    def mix(self, base: Vectors, source: Vectors, mask: Float[Tensor, "feature"] | None) -> Vectors:
        """inverse((1 - mask) * f(base) + mask * f(source), rest(base)), without a round trip of
        what stays; None: all of all."""

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """What is trained, by the kind of learning rate that it wants: "rotation", "boundary",
        "mask"."""
        return {"rotation": list(self.parameters())}

    def anneal(self, progress: float) -> None:
        """Told before each step how far training is, in [0, 1): for temperatures."""

    def penalty(self) -> Tensor:
        """What is added to the loss."""
        return torch.zeros(())

    def harden(self) -> None:
        """Training is over (or pauses, to validate): from now on as in evaluation. `anneal` makes
        it soft again."""

    def found(self) -> dict[str, float]:
        """What training found, to be told: for instance the width of a learned boundary."""
        return {}

    @property
    def collapsed(self) -> bool:
        """Whether training found no place: nothing is interchanged, or where a choice was to be
        made everything."""
        return False

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """All that is needed to compute it again, on the CPU and contiguous: what is saved."""

    @classmethod
    @abstractmethod
    def from_tensors(cls, width: int, tensors: Mapping[str, Tensor]) -> Self:
        """The one, hardened, whose `tensors` these are.

        Raises: KeyError, ValueError where they are not of this form.
        """


@dataclass(frozen=True, slots=True)
class TemperatureSchedule:
    """A temperature that falls in a line over training, as in pyvene's tutorials. In evaluation it
    is `end`."""

    start: float
    end: float

    def at(self, progress: float) -> float:
        return self.start + (self.end - self.start) * progress


def held(tensor: Tensor) -> Tensor:
    """As a featurizer holds what it is given: a copy in float32, contiguous, since in another
    layout products round otherwise."""
    return tensor.detach().float().clone(memory_format=torch.contiguous_format)


def own(tensor: Tensor) -> Tensor:
    """As it is saved: a copy on the CPU, contiguous."""
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
