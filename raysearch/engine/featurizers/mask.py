"""Differential binary masking: which features of a basis are interchanged is learned (De Cao et
al., 2020, "How do Decisions Emerge across Layers in Neural Models? Interpretation with
Differentiable Masking"; Davies et al., 2023, "Discovering Variable Binding Circuitry with
Desiderata").

x <- (1 - m) x + m y in the basis, m = σ(θ/T) in training, at first θ = 0, T from 1 to 0.01; in
evaluation m = 1 where θ > 0, else 0. weight * mean(m) is added to the loss: the mean (newer), not
the sum (older), so that one weight does for every width.

| basis       | features                                                              |
|-------------|-----------------------------------------------------------------------|
| coordinates | those of the vector                                                   |
| heads       | groups of coordinates of equal width, each with one θ                 |
| pca         | principal components; the part outside of their span stays            |
| sae         | features of a sparse autoencoder; the reconstruction error stays      |

Invariants: of an autoencoder only the features that are kept are saved.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from raysearch.core.hypothesis import Subspace
from raysearch.engine.featurizers.closed_form import Pca
from raysearch.engine.featurizers.featurizer import (
    FeatureVectors,
    Featurizer,
    FeaturizerContext,
    TemperatureSchedule,
    Vectors,
    saved_copy,
)
from raysearch.engine.featurizers.identity import Identity
from raysearch.engine.featurizers.sae import Sae
from raysearch.errors import JobError

_BASES: dict[str, type[Featurizer]] = {one.name: one for one in (Identity, Pca, Sae)}


class Mask(Featurizer):
    """A mask over the features of `basis`. `groups`: into how many of equal width they are tied
    (None: each for itself)."""

    name: ClassVar[str] = "mask"
    stacks: ClassVar[bool] = True
    cooling = TemperatureSchedule(1.0, 0.01)
    weight: float

    def __init__(
        self, basis: Identity | Pca | Sae, groups: int | None = None, weight: float = 1e-2
    ) -> None:
        super().__init__(basis.width)
        count = _count(basis)
        if groups is not None and (groups < 1 or count % groups):
            raise ValueError(f"{count} features in {groups} groups; need groups of equal width")
        self.basis = basis
        self.tied = 1 if groups is None else count // groups
        self.total = count // self.tied
        self.theta = nn.Parameter(torch.zeros(self.total))
        self.weight = weight
        self.temperature = self.cooling.start
        self.hard = False

    @classmethod
    def make(cls, context: FeaturizerContext) -> Self:
        name, width, heads = context.subspace.basis or "coordinates", context.width, context.heads
        if name == "coordinates":
            return cls(Identity(width))
        if name == "heads":
            if heads < 1 or width % heads:
                raise JobError(
                    f"mask: {heads} heads in a vector of {width}; name a component whose heads are "
                    f"of equal width"
                )
            return cls(Identity(width), groups=heads)
        if name == "sae":
            return cls(Sae.make(context))
        if name == "pca":
            if context.activations is None:
                raise JobError(
                    "mask: its principal components need activations, and there are none; give fit "
                    "pairs"
                )
            pca = Subspace("pca", context.subspace.features)
            return cls(Pca.make(replace(context, subspace=pca)))
        raise JobError(f"mask: {name!r} is no basis; use coordinates, pca, sae, heads")

    def orthonormal_directions(self) -> Float[Tensor, "width k"]:
        directions = self.basis.orthonormal_directions()  # a basis that has none says why
        return directions[:, self.mask() > 0]

    def forward(self, vectors: Vectors) -> tuple[FeatureVectors, Vectors]:
        features, rest = self.basis(vectors)
        return features, rest

    def inverse(self, features: FeatureVectors, rest: Vectors) -> Vectors:
        return self.basis.inverse(features, rest)

    def mix(
        self, base: Vectors, source: Vectors, mask: Float[Tensor, "*broadcast feature"] | None
    ) -> Vectors:
        return self.basis.mix(base, source, mask)

    def mask(self) -> Float[Tensor, "*fit feature"]:
        groups = self._groups()
        return groups if self.tied == 1 else groups.repeat_interleave(self.tied, -1)

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        return {"mask": [self.theta]}

    def anneal(self, progress: float) -> None:
        self.hard = False
        self.temperature = self.cooling.at(progress)

    def harden(self) -> None:
        self.hard = True

    def penalty(self) -> Float[Tensor, "*fit"]:
        """Returns weight times the mean of the mask."""
        return self.weight * self._groups().mean(-1)

    def found(self) -> dict[str, float]:
        """Returns the width: how many features are kept; and where they are tied, how many
        groups."""
        kept = float(self._kept().sum())
        return {"width": kept * self.tied, "groups": kept} if self.tied > 1 else {"width": kept}

    @property
    def collapsed(self) -> bool:
        """Says whether it keeps nothing or everything."""
        return int(self._kept().sum()) in (0, self.total)

    def tensors(self) -> dict[str, Tensor]:
        basis, theta = self.basis, self.theta.detach()
        if isinstance(basis, Sae):
            basis, theta = basis.only(self._kept()), theta[self._kept()]
        held = {f"{basis.name}.{name}": tensor for name, tensor in basis.tensors().items()}
        return {"theta": saved_copy(theta), "total": torch.tensor(self.total), **held}

    @classmethod
    def from_tensors(cls, width: int, tensors: Mapping[str, Tensor]) -> Self:
        (name,) = {name.partition(".")[0] for name in tensors if "." in name}
        held = {
            key.removeprefix(f"{name}."): tensor for key, tensor in tensors.items() if "." in key
        }
        basis = _BASES[name].from_tensors(width, held)
        assert isinstance(basis, Identity | Pca | Sae)
        theta = tensors["theta"].detach().float()
        mask = cls(basis, groups=None if len(theta) == _count(basis) else len(theta))
        mask.theta = nn.Parameter(theta.clone())
        mask.total = int(tensors["total"])
        mask.hard = True
        return mask

    def _kept(self) -> Bool[Tensor, "*fit group"]:
        return self.theta.detach() > 0

    def _groups(self) -> Float[Tensor, "*fit group"]:
        return (
            self._kept().to(self.theta.dtype)
            if self.hard
            else torch.sigmoid(self.theta / self.temperature)
        )


def _count(basis: Identity | Pca | Sae) -> int:
    if isinstance(basis, Identity):
        return len(basis.coordinates)
    return basis.features if isinstance(basis, Sae) else basis.directions.shape[1]
