"""Featurizers: maps x -> (features, rest) and back without loss, and a choice of the features that
are interchanged.

A unit of u tokens is one vector of width u·d. The interchange is

    x  <-  inverse((1 - m) * f(x) + m * f(y), rest(x)),        m in [0, 1] for each feature

Invariants: inverse(*self(x)) == x up to float32 rounding; everything is computed in float32,
whatever the model's dtype; a vector interchanged with itself changes no bit; a featurizer that is
made from `tensors()` of another computes what that one computes once it is hardened; of several
that are stacked (`stack.py`) each maps its own items, as it does by itself.
"""

from abc import abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from raysearch.core.featurizers import kind_of
from raysearch.core.hypothesis import Subspace
from raysearch.engine.featurizers.sae_file import SaeFile
from raysearch.errors import JobError

Vectors = Float[Tensor, "*fit item width"]
FeatureVectors = Float[Tensor, "*fit item feature"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FeaturizerContext:
    """The data that a featurizer is made from.

    `generator`: what is drawn comes from it. `heads`: how many of equal width lie in a vector (0:
    none). `file`: the sparse autoencoder that the job names. `activations`: those of the fit pairs,
    where there are any; `labels`: the class of each.
    """

    subspace: Subspace
    width: int
    generator: torch.Generator = field(default_factory=torch.Generator)
    heads: int = 0
    file: SaeFile | None = None
    activations: Vectors | None = None
    labels: Sequence[Hashable] = ()

    @property
    def size(self) -> int:
        """The number of features that the job asks for."""
        assert self.subspace.features is not None, "construction.py has checked it"
        return self.subspace.features

    @property
    def options(self) -> Any:
        """The options that the job gives, as the featurizer's own model has them."""
        return kind_of(self.subspace.featurizer).read_options(self.subspace.options)


class Featurizer(nn.Module):
    """A map on vectors of `width` numbers. Parameters that require gradients are trained.

    `cooling`: of the temperature, where there is one; `weight`: of the penalty, where there is one;
    a job may set both before training.
    """

    name: ClassVar[str]
    """The name in `Subspace.featurizer`."""
    stacks: ClassVar[bool] = False
    """True if its formulas also take vectors and trained parameters with a first dimension of fits,
    so that many fits are trained as one; else each is trained by itself."""
    cooling: "TemperatureSchedule | None" = None
    weight: float | None = None

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    @classmethod
    @abstractmethod
    def make(cls, context: FeaturizerContext) -> Self:
        """Returns the featurizer before training; or as it is, where nothing trains it.

        Raises: JobError for what cannot be had, ModelError for activations that are not finite.
        """

    @abstractmethod
    def forward(self, vectors: Vectors) -> tuple[FeatureVectors, Vectors]:
        """Returns the features of vectors, and the rest: what the features do not hold."""

    @abstractmethod
    def inverse(self, features: FeatureVectors, rest: Vectors) -> Vectors:
        """Returns the vectors of these features and this rest."""

    def mask(self) -> Float[Tensor, "*fit feature"] | None:
        """Returns the share of each feature that is interchanged, in [0, 1]; None: every feature in
        full."""
        return None

    def interchange(self, base: Vectors, source: Vectors) -> Vectors:
        """Returns `base` with the features of `source`, as much of each as `mask` says."""
        mask = self.mask()
        return self.mix(base, source, mask if mask is None else mask[..., None, :])

    @abstractmethod
    def mix(
        self, base: Vectors, source: Vectors, mask: Float[Tensor, "*broadcast feature"] | None
    ) -> Vectors:
        """Returns inverse((1 - mask) * f(base) + mask * f(source), rest(base)), computed so that
        what is not interchanged stays exact; a mask of None interchanges every feature in full."""

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """Returns the trained parameters by the kind of learning rate that they need: "rotation",
        "boundary", "mask"."""
        return {"rotation": list(self.parameters())}

    def anneal(self, progress: float) -> None:
        """Sets temperatures before a step; `progress` is the share of training that is done, in [0,
        1)."""

    def penalty(self) -> Float[Tensor, "*fit"]:
        """Returns the term that is added to the loss."""
        return torch.zeros(())

    def harden(self) -> None:
        """Makes the featurizer evaluate as it does after training, for a validation too; `anneal`
        makes it soft again."""

    def found(self) -> dict[str, float]:
        """Returns the results of training to report, for instance the width of a learned
        boundary."""
        return {}

    @property
    def collapsed(self) -> bool:
        """Says whether training found no place: nothing is interchanged, or everything where a
        choice was to be made."""
        return False

    def within(self, changes: Float[Tensor, "pair width"], features: int) -> Self:
        """Returns a smaller one that training may begin with, by the `changes` (source minus base)
        of pairs. A kind that is `nested` has it."""
        raise NotImplementedError(self.name)

    @property
    def count(self) -> int | None:
        """The number of features; None if it is not a number that a subspace has."""
        return None

    def orthonormal_directions(self) -> Float[Tensor, "width k"]:
        """Returns R where evaluation is x + (y - x) R Rᵀ exactly, with RᵀR = 1, as other tools keep
        subspaces. Raises: ValueError with the reason where there is no such R."""
        raise ValueError(f"{self.name} is no interchange along orthonormal directions")

    def check(self) -> None:
        """Raises: ValueError, RuntimeError where it cannot be used, such as tensors that do not fit
        each other."""
        self.interchange(torch.zeros(1, self.width), torch.ones(1, self.width))

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Returns the tensors that are saved: all that is needed to compute the featurizer again,
        on the CPU and contiguous."""

    @classmethod
    @abstractmethod
    def from_tensors(cls, width: int, tensors: Mapping[str, Tensor]) -> Self:
        """Returns the one, hardened, whose `tensors` these are.

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


def some_of(chosen: Sequence[int], count: int, name: str) -> list[int]:
    """Returns the chosen features. Raises: JobError where they are not some of `count`, each
    once."""
    wrong = next((c for c in chosen if not 0 <= c < count), None)
    if wrong is not None or not chosen or len(set(chosen)) < len(chosen):
        got = (
            "no feature"
            if not chosen
            else f"feature {wrong}"
            if wrong is not None
            else "a feature twice"
        )
        raise JobError(f"{name}: {got}; it has 0..{count - 1}, each to be named once")
    return list(chosen)


def working_copy(tensor: Tensor) -> Tensor:
    """Returns the copy of a tensor that a featurizer computes with: float32 and contiguous, since
    products round otherwise in another layout."""
    return tensor.detach().float().clone(memory_format=torch.contiguous_format)


def saved_copy(tensor: Tensor) -> Tensor:
    """Returns the copy of a tensor that is saved: on the CPU, contiguous."""
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
