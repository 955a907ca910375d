"""The mathematics: reflections 1 - 2 v vᵀ (Householder), a ranking by variance, a fixed choice."""

from collections.abc import Mapping
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from raysearch.engine.featurizers.featurizer import Setting, own
from raysearch.engine.featurizers.identity import Identity
from raysearch.engine.featurizers.spans import LinearSubspace


class Mirror(LinearSubspace):
    """The first k columns of a product of k reflections, each along a trained vector."""

    name: ClassVar[str] = "mirror"

    def __init__(self, normals: Tensor, strength: float) -> None:
        super().__init__(len(normals))
        self.normals = nn.Parameter(normals.detach().float().clone())
        self.strength = strength

    @classmethod
    def make(cls, setting: Setting) -> Self:
        shape = (setting.width, setting.size)
        return cls(torch.randn(shape, generator=setting.generator), setting.options.strength)

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
        return {"normals": own(self.normals), "strength": torch.tensor(self.strength)}

    @classmethod
    def from_tensors(cls, width: int, tensors: Mapping[str, Tensor]) -> Self:
        return cls(tensors["normals"], float(tensors["strength"]))


class Busiest(Identity):
    """The k coordinates whose activations vary most."""

    name: ClassVar[str] = "busiest"

    @classmethod
    def make(cls, setting: Setting) -> Self:
        assert setting.activations is not None
        ranked = setting.activations.float().var(0).cpu().argsort(descending=True, stable=True)
        return cls(setting.width, ranked[: setting.size].tolist())


class FirstHalf(Identity):
    """The coordinates of the lower half."""

    name: ClassVar[str] = "first_half"

    @classmethod
    def make(cls, setting: Setting) -> Self:
        return cls(setting.width, range(setting.width // 2))
