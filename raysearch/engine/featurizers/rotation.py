"""The subspace of distributed alignment search: k orthonormal directions that are trained.

x <- x + (y - x) R Rᵀ, R of shape (width, k), RᵀR = 1 (Geiger et al., 2023, "Finding Alignments
Between Interpretable Causal Variables and Distributed Neural Representations"). A full rotation of
which k coordinates are interchanged is the same map: no matrix of width x width is built.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from raysearch.engine.featurizers.featurizer import FeaturizerContext, working_copy
from raysearch.engine.featurizers.linear_subspace import LinearSubspace, matrix, unevenness

_ORTHONORMAL = 1e-5
"""The `unevenness` up to which a matrix counts as orthonormal: about what a QR in float32
leaves."""


class Learned(LinearSubspace):
    """Directions that are trained through the Q of a QR decomposition of `raw`, so that they stay
    orthonormal.

    Before each step `raw` is put back to that Q (a retraction): left to itself it grows under Adam,
    and the same learning rate turns the directions less and less. Adam's moments stay as they are:
    the entries of `raw` move by as little as in the step before.

    While it is hardened the directions are computed once and kept; `anneal` goes on with training,
    and its QR is the only one of a step.
    """

    stacks: ClassVar[bool] = True

    fixed: Tensor | None
    _retracted_at = -1  # the version of `raw` that `anneal` left

    def __init__(self, directions: Tensor) -> None:
        # (width, k); of another shape it is refused in words, for it may come from a file.
        super().__init__(matrix(directions).shape[0])
        self.raw = nn.Parameter(working_copy(directions))
        self.register_buffer("fixed", None, persistent=False)

    @classmethod
    def make(cls, context: FeaturizerContext) -> Self:
        """Returns a subspace drawn uniformly over those of so many dimensions."""
        return cls(random_directions(context.width, context.size, context.generator))

    @property
    def directions(self) -> Float[Tensor, "*fit width k"]:
        if self.fixed is not None:
            return self.fixed
        if self.raw._version == self._retracted_at:
            retracted: Tensor = _Retracted.apply(self.raw)  # type: ignore[no-untyped-call]
            return retracted
        return orthonormal(self.raw)

    def anneal(self, progress: float) -> None:
        self.fixed = None
        with (
            torch.no_grad()
        ):  # by torch.where, for no device is waited for; what is orthonormal stays, bit for bit
            uneven = unevenness(self.raw)[..., None, None] > _ORTHONORMAL
            self.raw.copy_(torch.where(uneven, orthonormal(self.raw), self.raw))
        self._retracted_at = self.raw._version

    def harden(self) -> None:
        self.fixed = working_copy(orthonormal(self.raw.detach()))

    @classmethod
    def from_tensors(cls, width: int, tensors: Mapping[str, Tensor]) -> Self:
        learned = cls(tensors["directions"])
        learned.fixed = working_copy(
            learned.raw
        )  # not through QR again, so that it is the saved one to the last bit
        return learned


class Rotation(Learned):
    """`directions`: (width, k), orthonormal; all k features are interchanged."""

    name: ClassVar[str] = "das"

    def within(self, changes: Float[Tensor, "pair width"], features: int) -> Self:
        """Returns the `features` directions in its span along which `changes` (source minus base)
        are greatest.

        Of all subspaces of that size this one keeps most of what the larger one puts in (Eckart and
        Young, 1936). The columns of the larger one tell nothing: turned within their span they are
        the same map, so that training prefers none of them.
        """
        assert 0 < features < self.count, "a rotation begins within a larger one"
        directions = self.directions.detach().cpu().double()
        inside = changes.detach().cpu().double() @ directions
        _, axes = torch.linalg.eigh(
            inside.T @ inside
        )  # in ascending order; whole even where the changes do not span it
        return type(self)(orthonormal(directions @ axes.flip(1)[:, :features]))


class _Retracted(torch.autograd.Function):
    """The Q of an orthonormal matrix, which is the matrix itself, with the gradient of its QR: the
    one that `torch.linalg.qr` has at R = 1, without a second decomposition."""

    @staticmethod
    def forward(ctx: Any, raw: Float[Tensor, "*fit width k"]) -> Float[Tensor, "*fit width k"]:
        ctx.save_for_backward(raw)
        return raw.view_as(raw)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Tensor:
        (q,), (gradient,) = ctx.saved_tensors, gradients
        upper = (q.mT @ gradient).triu()
        projected: Tensor = gradient - q @ (upper + upper.triu(1).mT)
        return projected


def orthonormal(raw: Float[Tensor, "*fit width k"]) -> Float[Tensor, "*fit width k"]:
    """Returns the Q of raw = QR with positive diagonal of R: a function of `raw` alone, and `raw`
    itself where it is orthonormal."""
    q, r = torch.linalg.qr(raw)
    signs = torch.where(torch.diagonal(r, dim1=-2, dim2=-1) < 0, -1.0, 1.0)
    rotated: Tensor = q * signs[..., None, :]
    return rotated


def random_directions(
    width: int, features: int, generator: torch.Generator
) -> Float[Tensor, "width k"]:
    """Returns orthonormal directions, drawn uniformly over the subspaces of `features` dimensions
    and the bases of each."""
    return orthonormal(torch.randn((width, features), generator=generator))
