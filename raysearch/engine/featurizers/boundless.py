"""Subspaces that find their own width: a learned boundary over the ordered features of a trained
rotation. Two methods, two names.

`Boundless` (Wu et al., 2023, "Interpretability at Scale: Identifying Causal Mechanisms in Alpaca",
and pyvene): W of width x width,

    x <- x + ((y - x) W * m) Wᵀ,    m_i = σ(i/T) σ((β d - i)/T),    i = 0 .. d-1,

β one number, clamped to [1e-3, 1], at first 0.5; T from 50 to 0.1; weight * β is added to the loss.
m_0 never exceeds 0.5, and the mask stays soft in evaluation (at T = 0.1). T = 50 is for widths of
thousands (4096 in the paper): in a vector of 16, β falls below its clamp within the first steps,
whatever the weight, and no gradient brings it back; in one of 64 it goes to the whole width (both
measured, the latter in pyvene too). From T = 2 it finds a width: `cooling` may be set before
training (fit.temperature in a job).

`BoundlessRank` (causalab, 2026): the same over R of shape (width, k),

    m_i = σ((θ k - i)/T),    i = 0 .. k-1,

θ one number, put back into [0, 1] after each step, at first 0.5; β = θ k; T from 1 to 0.1; weight *
mean(m) is added to the loss. In evaluation the first ⌈β⌉ features are interchanged, and the others
are not.
"""

import math
from collections.abc import Mapping
from typing import ClassVar, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from raysearch.engine.featurizers.featurizer import (
    FeaturizerContext,
    TemperatureSchedule,
    saved_copy,
)
from raysearch.engine.featurizers.rotation import Learned, random_directions


class _Bounded(Learned):
    """`boundary`: as a share of all features. `weight`: of the penalty. `cooling`: of the
    temperature."""

    cooling: TemperatureSchedule
    weight: float

    def __init__(
        self, directions: Float[Tensor, "width k"], boundary: float = 0.5, weight: float = 1.0
    ) -> None:
        super().__init__(directions)
        self.boundary = nn.Parameter(torch.tensor(float(boundary)))
        self.weight = weight
        self.temperature = self.cooling.start

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        return {"rotation": [self.raw], "boundary": [self.boundary]}

    def anneal(self, progress: float) -> None:
        super().anneal(progress)
        self.temperature = self.cooling.at(progress)

    def harden(self) -> None:
        super().harden()
        self.temperature = self.cooling.end

    def _order(self) -> Float[Tensor, "k"]:
        return torch.arange(self.raw.shape[-1], device=self.raw.device, dtype=self.raw.dtype)

    def tensors(self) -> dict[str, Tensor]:
        return {
            **super().tensors(),
            "boundary": saved_copy(self.boundary),
            "temperature": torch.tensor(self.cooling.end),
        }

    @classmethod
    def from_tensors(cls, width: int, tensors: Mapping[str, Tensor]) -> Self:
        bounded = super().from_tensors(width, tensors)
        bounded.boundary = nn.Parameter(tensors["boundary"].detach().float().reshape(()).clone())
        bounded.cooling = TemperatureSchedule(bounded.cooling.start, tensors["temperature"].item())
        bounded.temperature = bounded.cooling.end
        return bounded


class Boundless(_Bounded):
    """A soft boundary over a full rotation, as in the paper and pyvene. `directions` is square."""

    name: ClassVar[str] = "boundless"
    cooling = TemperatureSchedule(50.0, 0.1)

    def __init__(
        self, directions: Float[Tensor, "width k"], boundary: float = 0.5, weight: float = 1.0
    ) -> None:
        super().__init__(directions, boundary, weight)
        if self.raw.shape[0] != self.raw.shape[1]:
            raise ValueError(
                f"boundless over directions of shape {tuple(self.raw.shape)}; need a full rotation"
            )

    @classmethod
    def make(cls, context: FeaturizerContext) -> Self:
        return cls(random_directions(context.width, context.width, context.generator))

    def mask(self) -> Float[Tensor, "*fit width"]:
        order, width = self._order(), self.raw.shape[-1]
        edge = self.boundary.clamp(1e-3, 1.0)[..., None] * width
        return torch.sigmoid(order / self.temperature) * torch.sigmoid(
            (edge - order) / self.temperature
        )

    def penalty(self) -> Float[Tensor, "*fit"]:
        """Returns weight * β, of β as it is trained, not clamped: so that it can come back from
        beyond 1."""
        return self.weight * self.boundary

    def found(self) -> dict[str, float]:
        """Returns the width β d, which need not be whole."""
        return {"width": float(self.boundary.detach().clamp(1e-3, 1.0)) * self.raw.shape[1]}

    @property
    def collapsed(self) -> bool:
        """Says whether β lies at its lower clamp, from where no gradient brings it back, or within
        one of the whole width."""
        width = self.raw.shape[1]
        return (
            not 1e-3
            < float(self.boundary.detach())
            < (1.0 - 1.0 / width if width > 1 else math.inf)
        )


class BoundlessRank(_Bounded):
    """A boundary over k directions, soft in training and a prefix in evaluation, as in causalab."""

    name: ClassVar[str] = "boundless_rank"
    cooling = TemperatureSchedule(1.0, 0.1)

    def anneal(self, progress: float) -> None:
        super().anneal(progress)
        with torch.no_grad():
            self.boundary.clamp_(0.0, 1.0)

    def mask(self) -> Float[Tensor, "*fit k"]:
        order = self._order()
        if self.fixed is not None:
            return (order < self._prefix()).to(order.dtype)
        return torch.sigmoid((self.boundary[..., None] * len(order) - order) / self.temperature)

    def penalty(self) -> Float[Tensor, "*fit"]:
        """Returns weight times the mean of the mask."""
        return self.weight * self.mask().mean(-1)

    def found(self) -> dict[str, float]:
        """Returns the width ⌈β⌉: 0 where nothing is interchanged."""
        return {"width": float(self._prefix())}

    @property
    def collapsed(self) -> bool:
        """Says whether nothing is interchanged."""
        return self._prefix() == 0

    def _prefix(self) -> int:
        return math.ceil(float(self.boundary.detach().clamp(0.0, 1.0) * self.raw.shape[1]))
