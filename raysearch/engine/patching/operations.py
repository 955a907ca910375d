"""Operations: the formulas by which an intervention changes the activation at its unit, one small
class each.

x is what the base's run has at the unit, y what the source has there: both of shape (item, token,
feature), where an item is one unit of one row. What `forward` returns takes the place of x;
whatever of the activation lies outside the unit stays as it is.

Invariants: an operation is a frozen value, so that rows which ask for the same are one; the formula
is elementwise over items, so that no result depends on the batch.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from raysearch.engine.featurizers.featurizer import Featurizer

Items = Float[Tensor, "item token feature"]


class Operation(Protocol):
    """An intervention's formula."""

    @property
    def reads_source(self) -> bool:
        """Whether y is given: the activation of the source's run, the mean over several."""
        ...

    def forward(self, base: Items, source: Items | None) -> Items:
        """Returns the activation that replaces `base`."""
        ...


@dataclass(frozen=True, slots=True)
class Interchange:
    """x ← y, where y is what the source's run has there: the interchange intervention (Geiger et
    al., 2021). With several sources y is their mean: mean ablation."""

    reads_source: ClassVar[bool] = True

    def forward(self, base: Items, source: Items | None) -> Items:
        assert source is not None
        return source


@dataclass(frozen=True, slots=True)
class Zero:
    """x ← 0: zero ablation."""

    reads_source: ClassVar[bool] = False

    def forward(self, base: Items, source: Items | None) -> Items:
        return torch.zeros_like(base)


@dataclass(frozen=True, slots=True)
class Collect:
    """x ← x: reads, and writes nothing. `oracle.collect` returns what it
    reads in a run."""

    reads_source: ClassVar[bool] = False

    def forward(self, base: Items, source: Items | None) -> Items:
        return base


@dataclass(frozen=True, slots=True)
class Featurized:
    """x ← inverse((1 - m)·f(x) + m·f(y), rest(x)): the interchange of features. All tokens of an
    item are one vector.

    Two are equal where their `digest` is: the content of what was trained, or where it is being
    trained a name of its own.
    """

    digest: str
    featurizer: Featurizer = field(compare=False, repr=False)
    reads_source: ClassVar[bool] = True

    def forward(self, base: Items, source: Items | None) -> Items:
        assert source is not None
        x, y = base.flatten(1).float(), source.flatten(1).float()
        return self.featurizer.interchange(x, y).to(base.dtype).view_as(base)


@dataclass(frozen=True, slots=True)
class Placebo:
    """x ← x + |real(x, y) - x|·u, with a random direction u of length 1: as large a change as the
    real one, of no meaning.

    All tokens of an item are one vector. `seed`: what u is drawn from.
    """

    real: Operation
    seed: str

    @property
    def reads_source(self) -> bool:
        return self.real.reads_source

    def forward(self, base: Items, source: Items | None) -> Items:
        x = base.flatten(1).float()
        change = self.real.forward(base, source).flatten(1).float() - x
        digest = hashlib.sha256(self.seed.encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        direction = torch.randn(x.shape[1], generator=generator).to(x, non_blocking=True)
        placed: Tensor = x + change.norm(dim=1, keepdim=True) * direction / direction.norm()
        return placed.to(base.dtype).view_as(base)


FORMULAS: Mapping[str, type[Interchange | Zero]] = {
    "interchange": Interchange,
    "zero": Zero,
    "mean": Interchange,
    "resample": Interchange,
}
"""The formula of each operation of `core.option_names`, by the name that an intervention's `kind`
has. A mean and a resample ablation interchange too: what differs is whose runs are sources
(build.py)."""
