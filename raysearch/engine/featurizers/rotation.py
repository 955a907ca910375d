"""The subspace of distributed alignment search: k orthonormal directions.

x <- x + (y - x) R Rᵀ, R of shape (width, k), RᵀR = 1 (Geiger et al., 2023, "Finding Alignments Between Interpretable Causal Variables
and Distributed Neural Representations"). A full rotation of which k coordinates are interchanged is the same map: no matrix of
width x width is built.
"""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from raysearch.engine.featurizers.featurizer import Features, Featurizer, Vectors


class Rotation(Featurizer):
    """`directions`: (width, k), orthonormal; trained through the Q of a QR decomposition, so that it stays so."""

    name: ClassVar[str] = "das"

    def __init__(self, directions: Float[Tensor, "width k"]) -> None:
        super().__init__(directions.shape[0])
        self.raw = nn.Parameter(directions.detach().float().clone())

    @classmethod
    def random(cls, width: int, features: int, generator: torch.Generator) -> "Rotation":
        """Uniform over the subspaces of `features` dimensions."""
        return cls(orthonormal(torch.randn((width, features), generator=generator)))

    @property
    def directions(self) -> Float[Tensor, "width k"]:
        return orthonormal(self.raw)

    def forward(self, vectors: Vectors) -> tuple[Features, Vectors]:
        directions = self.directions
        features = vectors @ directions
        return features, vectors - features @ directions.T

    def inverse(self, features: Features, rest: Vectors) -> Vectors:
        return features @ self.directions.T + rest

    def interchange(self, base: Vectors, source: Vectors) -> Vectors:
        directions = self.directions
        return base + ((source - base) @ directions) @ directions.T

    def tensors(self) -> dict[str, Tensor]:
        return {"directions": self.directions.detach().cpu().contiguous()}


def orthonormal(raw: Float[Tensor, "width k"]) -> Float[Tensor, "width k"]:
    """The Q of raw = QR with positive diagonal of R: a function of `raw` alone, and `raw` itself where it is orthonormal."""
    q, r = torch.linalg.qr(raw)
    rotated: Tensor = q * torch.where(torch.diagonal(r) < 0, -1.0, 1.0)
    return rotated
