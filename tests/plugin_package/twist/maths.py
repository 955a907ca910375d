"""The mathematics: reflections 1 - 2 v vᵀ (Householder), a ranking by variance, a fixed choice."""

from collections.abc import Mapping
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from raysearch.engine.featurizers.featurizer import FeaturizerContext, saved_copy
from raysearch.engine.featurizers.identity import Identity
from raysearch.engine.featurizers.linear_subspace import LinearSubspace


class Mirror(LinearSubspace):
    """The first k columns of a product of k reflections, each along a trained vector."""

    name: ClassVar[str] = "mirror"

    def __init__(self, normals: Tensor, strength: float) -> None:
        super().__init__(len(normals))
        self.normals = nn.Parameter(normals.detach().float().clone())
        self.strength = strength

    @classmethod
    def make(cls, context: FeaturizerContext) -> Self:
        shape = (context.width, context.size)
        return cls(torch.randn(shape, generator=context.generator), context.options.strength)

    @property
    def directions(self) -> Tensor:
        width, k = self.normals.shape
        found = torch.eye(width, k, device=self.normals.device)
        for normal in self.normals.T:
            unit = normal / normal.norm()
            found = found - 2 * torch.outer(unit, unit @ found)
        return found

    def mask(self) -> Tensor:
        return torch.full((self.normals.shape[1],), self.strength, device=self.normals.device)

    def tensors(self) -> dict[str, Tensor]:
        return {"normals": saved_copy(self.normals), "strength": torch.tensor(self.strength)}

    @classmethod
    def from_tensors(cls, width: int, tensors: Mapping[str, Tensor]) -> Self:
        return cls(tensors["normals"], float(tensors["strength"]))


class Busiest(Identity):
    """The k coordinates whose activations vary most."""

    name: ClassVar[str] = "busiest"

    @classmethod
    def make(cls, context: FeaturizerContext) -> Self:
        assert context.activations is not None
        ranked = context.activations.float().var(0).cpu().argsort(descending=True, stable=True)
        return cls(context.width, ranked[: context.size].tolist())


class FirstHalf(Identity):
    """The coordinates of the lower half."""

    name: ClassVar[str] = "first_half"

    @classmethod
    def make(cls, context: FeaturizerContext) -> Self:
        return cls(context.width, range(context.width // 2))
