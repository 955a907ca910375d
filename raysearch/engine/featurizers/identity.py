"""The vector as it is, or some of its coordinates: x <- swap(x, y, K) (Geiger et al., 2021, "Causal
Abstractions of Neural Networks")."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

import torch
from jaxtyping import Float
from torch import Tensor

from raysearch.engine.featurizers.featurizer import (
    FeatureVectors,
    Featurizer,
    FeaturizerContext,
    Vectors,
    saved_copy,
    some_of,
)


class Identity(Featurizer):
    """The features are the `coordinates` K, from 0, each once (None: all)."""

    name: ClassVar[str] = "identity"
    coordinates: Tensor

    def __init__(self, width: int, coordinates: Sequence[int] | None = None) -> None:
        super().__init__(width)
        chosen = range(width) if coordinates is None else coordinates
        if not chosen or len(set(chosen)) < len(chosen) or not all(0 <= c < width for c in chosen):
            raise ValueError(
                f"coordinates {list(chosen)[:9]} of {width}; need each of 0..{width - 1} at most "
                f"once"
            )
        self.register_buffer("coordinates", torch.tensor(list(chosen)))

    @classmethod
    def make(cls, context: FeaturizerContext) -> Self:
        chosen = context.subspace.coordinates
        if chosen is None:
            return cls(context.width)
        return cls(context.width, some_of(chosen, context.width, cls.name))

    def orthonormal_directions(self) -> Float[Tensor, "width k"]:
        return torch.eye(self.width)[:, self.coordinates]

    def forward(self, vectors: Vectors) -> tuple[FeatureVectors, Vectors]:
        return vectors[..., self.coordinates], vectors.index_fill(-1, self.coordinates, 0.0)

    def inverse(self, features: FeatureVectors, rest: Vectors) -> Vectors:
        return rest.index_copy(-1, self.coordinates, features)

    def mix(
        self, base: Vectors, source: Vectors, mask: Float[Tensor, "*broadcast feature"] | None
    ) -> Vectors:
        ours, theirs = base[..., self.coordinates], source[..., self.coordinates]
        mixed = theirs if mask is None else torch.lerp(ours, theirs, mask.expand_as(ours))
        return base.index_copy(-1, self.coordinates, mixed)

    def tensors(self) -> dict[str, Tensor]:
        return {"coordinates": saved_copy(self.coordinates)}

    @classmethod
    def from_tensors(cls, width: int, tensors: Mapping[str, Tensor]) -> Self:
        return cls(width, tensors["coordinates"].tolist())
