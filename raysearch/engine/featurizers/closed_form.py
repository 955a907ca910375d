"""Subspaces that no step trains: from activations, in closed form, or at random.

pca              principal components C of the standardised activations u = (x - μ)/s; the swap is
                 in u Cᵀ, and the part of x outside of the span stays, which pyvene drops (Pearson,
                 1901; a baseline of Mueller et al., 2025, "MIB")
svd              right singular vectors of the activations as they are, without centring (Eckart
                 and Young, 1936)
mean_difference  the span of the class means' differences from the grand mean, of two classes the
                 one direction between them (Marks and Tegmark, 2023, "The Geometry of Truth")
random           uniform over the subspaces of k dimensions: a control

Invariants: equal activations, equal directions, signs too (the entry of greatest size is positive);
computed in float64 on the CPU, kept in float32; directions that the activations do not determine
are refused, not made up.
"""

from collections.abc import Mapping
from typing import ClassVar, Self

import torch
from jaxtyping import Float
from torch import Tensor

from raysearch.core.hypothesis import Subspace
from raysearch.engine.featurizers.featurizer import (
    FeatureVectors,
    FeaturizerContext,
    Vectors,
    saved_copy,
    working_copy,
)
from raysearch.engine.featurizers.linear_subspace import FixedSubspace
from raysearch.engine.featurizers.rotation import random_directions
from raysearch.errors import JobError, ModelError


class Random(FixedSubspace):
    """k random directions: what any subspace of that size is compared with."""

    name: ClassVar[str] = "random"

    @classmethod
    def make(cls, context: FeaturizerContext) -> Self:
        return cls(random_directions(context.width, context.size, context.generator))


class Svd(FixedSubspace):
    """The k directions along which the activations are largest, about zero."""

    name: ClassVar[str] = "svd"

    @classmethod
    def make(cls, context: FeaturizerContext) -> Self:
        """Raises: JobError where the activations do not span so many; ModelError where they are not
        finite."""
        return cls(_leading(_exact(context), context.subspace, "the activations"))


class MeanDifference(FixedSubspace):
    """The span of the differences between class means; with k features, the k directions along
    which they differ most."""

    name: ClassVar[str] = "mean_difference"

    @classmethod
    def make(cls, context: FeaturizerContext) -> Self:
        """Raises: as `Svd.make`, and JobError where there are no two classes."""
        vectors, labels = _exact(context), context.labels
        classes = list(dict.fromkeys(labels))
        assert len(labels) == len(vectors), "each activation has a label"
        if len(classes) < 2:
            raise JobError(
                f"mean_difference: all {len(labels)} activations are of one class; need two values "
                f"of the variable"
            )
        members = [torch.tensor([label == one for label in labels]) for one in classes]
        means = torch.stack([vectors[chosen].mean(0) for chosen in members])
        return cls(
            _leading(
                means - vectors.mean(0), context.subspace, f"the means of {len(classes)} classes"
            )
        )


class Pca(FixedSubspace):
    """`centre` μ and `scale` s (1 where a coordinate is constant), `directions` C: in standardised
    coordinates."""

    name: ClassVar[str] = "pca"
    centre: Tensor
    scale: Tensor

    def __init__(
        self,
        directions: Float[Tensor, "width k"],
        centre: Float[Tensor, "width"],
        scale: Float[Tensor, "width"],
    ) -> None:
        super().__init__(directions)
        self.register_buffer("centre", working_copy(centre))
        self.register_buffer("scale", working_copy(scale))

    @classmethod
    def make(cls, context: FeaturizerContext) -> Self:
        """Raises: as `Svd.make`."""
        vectors = _exact(context)
        centre, scale = vectors.mean(0), vectors.std(0, correction=0)
        # What is constant but for the rounding of its mean has no scale of its own.
        scale = torch.where(scale > 1e-12 * vectors.abs().amax(0), scale, 1.0)
        return cls(
            _leading((vectors - centre) / scale, context.subspace, "the centred activations"),
            centre,
            scale,
        )

    def orthonormal_directions(self) -> Float[Tensor, "width k"]:
        raise ValueError(
            "components of standardised activations span no orthonormal directions of the vector "
            "itself"
        )

    def forward(self, vectors: Vectors) -> tuple[FeatureVectors, Vectors]:
        features = ((vectors - self.centre) / self.scale) @ self.directions
        return features, vectors - self._back(features)

    def inverse(self, features: FeatureVectors, rest: Vectors) -> Vectors:
        return self._back(features) + rest

    def mix(
        self, base: Vectors, source: Vectors, mask: Float[Tensor, "*broadcast k"] | None
    ) -> Vectors:
        change = ((source - base) / self.scale) @ self.directions
        return base + self._back(change if mask is None else change * mask)

    def _back(self, features: FeatureVectors) -> Vectors:
        return (features @ self.directions.mT) * self.scale

    def tensors(self) -> dict[str, Tensor]:
        return {
            **super().tensors(),
            "centre": saved_copy(self.centre),
            "scale": saved_copy(self.scale),
        }

    @classmethod
    def from_tensors(cls, width: int, tensors: Mapping[str, Tensor]) -> Self:
        return cls(tensors["directions"], tensors["centre"], tensors["scale"])


def _exact(context: FeaturizerContext) -> Float[Tensor, "item width"]:
    name, activations = context.subspace.featurizer, context.activations
    if activations is None or not len(activations):
        raise JobError(
            f"{name}: no activations to compute it from; need fit pairs that the model solves"
        )
    vectors = activations.detach().cpu().double()
    if not torch.isfinite(vectors).all():
        raise ModelError(
            f"{name}: an activation is not finite; load the model with another dtype (float32, "
            f"bfloat16)"
        )
    return vectors


def _leading(
    rows: Float[Tensor, "item width"], subspace: Subspace, what: str
) -> Float[Tensor, "width k"]:
    """Returns the first right singular vectors; where no number is asked, all that `rows`
    determine."""
    name, features = subspace.featurizer, subspace.features
    _, sizes, directions = torch.linalg.svd(rows, full_matrices=False)
    rank = int((sizes > sizes[0] * torch.finfo(torch.float32).eps).sum())
    if not rank or (features is not None and features > rank):
        asked = "any" if features is None else str(features)
        raise JobError(
            f"{name}: {asked} features asked, {what} span {rank}; ask for fewer or give more fit "
            f"pairs"
        )
    chosen = directions[:features] if features is not None else directions[:rank]
    largest = chosen.gather(1, chosen.abs().argmax(1, keepdim=True))
    signed: Tensor = (chosen * largest.sign()).T
    return signed.float()
