"""The subspace of distributed alignment search: k orthonormal directions that are trained.

x <- x + (y - x) R Rᵀ, R of shape (width, k), RᵀR = 1 (Geiger et al., 2023, "Finding Alignments Between Interpretable Causal Variables
and Distributed Neural Representations"). A full rotation of which k coordinates are interchanged is the same map: no matrix of
width x width is built.
"""

from collections.abc import Mapping
from typing import ClassVar, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from raysearch.engine.featurizers.featurizer import held
from raysearch.engine.featurizers.spans import Span, matrix


class Learned(Span):
    """Directions that are trained through the Q of a QR decomposition of `raw`, so that they stay orthonormal.

    While it is hardened the directions are computed once and kept; `anneal` goes on with training.
    """

    fixed: Tensor | None

    def __init__(self, directions: Float[Tensor, "width k"]) -> None:
        super().__init__(matrix(directions).shape[0])
        self.raw = nn.Parameter(held(directions))
        self.register_buffer("fixed", None, persistent=False)

    @classmethod
    def random(cls, width: int, features: int, generator: torch.Generator) -> Self:
        """Uniform over the subspaces of `features` dimensions."""
        return cls(random_directions(width, features, generator))

    @property
    def directions(self) -> Float[Tensor, "width k"]:
        return orthonormal(self.raw) if self.fixed is None else self.fixed

    def anneal(self, progress: float) -> None:
        self.fixed = None

    def harden(self) -> None:
        self.fixed = held(orthonormal(self.raw.detach()))

    @classmethod
    def from_tensors(cls, width: int, tensors: Mapping[str, Tensor]) -> Self:
        learned = cls(tensors["directions"])
        learned.fixed = held(learned.raw)  # not through QR again, so that it is the saved one to the last bit
        return learned


class Rotation(Learned):
    """`directions`: (width, k), orthonormal; all k features are interchanged."""

    name: ClassVar[str] = "das"


def orthonormal(raw: Float[Tensor, "width k"]) -> Float[Tensor, "width k"]:
    """The Q of raw = QR with positive diagonal of R: a function of `raw` alone, and `raw` itself where it is orthonormal."""
    q, r = torch.linalg.qr(raw)
    rotated: Tensor = q * torch.where(torch.diagonal(r) < 0, -1.0, 1.0)
    return rotated


def random_directions(width: int, features: int, generator: torch.Generator) -> Float[Tensor, "width k"]:
    """Uniform over the subspaces of `features` dimensions, and over the bases of each."""
    return orthonormal(torch.randn((width, features), generator=generator))
