"""Featurizers whose features are the coordinates along k orthonormal directions R, shape (width,
k).

f(x) = x R, rest(x) = x - x R Rᵀ, and the interchange is x <- x + ((y - x) R * m) Rᵀ: no matrix of
width x width is built for k features, and what lies outside of the span stays.

Invariants: RᵀR = 1 to 1e-5; R is computed once for each forward, inverse or interchange.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from raysearch.engine.featurizers.featurizer import (
    FeatureVectors,
    Featurizer,
    Vectors,
    saved_copy,
    working_copy,
)

_TOLERANCE = 1e-4
"""The `unevenness` that saved directions may have."""


class LinearSubspace(Featurizer):
    """Coordinates along `directions`."""

    @property
    @abstractmethod
    def directions(self) -> Float[Tensor, "*fit width k"]:
        """Orthonormal."""

    def forward(self, vectors: Vectors) -> tuple[FeatureVectors, Vectors]:
        directions = self.directions
        features = vectors @ directions
        return features, vectors - features @ directions.mT

    def inverse(self, features: FeatureVectors, rest: Vectors) -> Vectors:
        return features @ self.directions.mT + rest

    def mix(
        self, base: Vectors, source: Vectors, mask: Float[Tensor, "*broadcast k"] | None
    ) -> Vectors:
        directions = self.directions
        change = (source - base) @ directions
        return base + (change if mask is None else change * mask) @ directions.mT

    @property
    def count(self) -> int:
        return self.directions.shape[1]

    def orthonormal_directions(self) -> Float[Tensor, "width k"]:
        mask = self.mask()
        if mask is None:
            return self.directions
        if not ((mask == 0) | (mask == 1)).all():
            raise ValueError(
                f"{self.name} lets parts of features through, and a subspace lets whole ones"
            )
        return self.directions[:, mask > 0]

    def check(self) -> None:
        super().check()
        if not unevenness(self.directions) <= _TOLERANCE:
            raise ValueError("its directions are not orthonormal")

    def tensors(self) -> dict[str, Tensor]:
        return {"directions": saved_copy(self.directions)}


class FixedSubspace(LinearSubspace):
    """Directions that nothing trains."""

    given: Tensor

    def __init__(self, directions: Float[Tensor, "width k"]) -> None:
        super().__init__(matrix(directions).shape[0])
        self.register_buffer("given", working_copy(directions))

    @property
    def directions(self) -> Float[Tensor, "width k"]:
        return self.given

    @classmethod
    def from_tensors(cls, width: int, tensors: Mapping[str, Tensor]) -> Self:
        return cls(tensors["directions"])


def matrix(directions: Tensor) -> Tensor:
    """Returns `directions`, checked. Raises: ValueError where they are no (width, k) with k in
    1..width."""
    if directions.ndim != 2 or not 1 <= directions.shape[1] <= directions.shape[0]:
        raise ValueError(
            f"directions of shape {tuple(directions.shape)}; need (width, k), k in 1..width"
        )
    return directions


def unevenness(directions: Float[Tensor, "*fit width k"]) -> Float[Tensor, "*fit"]:
    """Returns the largest entry of |RᵀR - 1|."""
    found = directions.mT @ directions - torch.eye(directions.shape[-1], device=directions.device)
    return found.abs().amax((-2, -1))
