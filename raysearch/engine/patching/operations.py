"""What an intervention does to the activation at its unit: small classes, each one formula.

x is what the base's run has at the unit, y what the source lends: both of shape (item, token,
feature), where an item is one unit of one row. What `forward` returns takes the place of x;
whatever of the activation lies outside the unit stays as it is.

Invariants: a kind is a frozen value, so that rows which ask for the same are one; the formula is
elementwise over items, so that no result depends on company.
"""

import hashlib
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from raysearch.engine.featurizers.featurizer import Featurizer

ReplacementVectors = Literal["nothing", "source", "input", "noise"]
"""What y is: absent; the activation of the source's run (the mean over sources, where there are
several); the input of the unit's own module in the run itself; standard normal numbers, drawn from
`seed` and from where they go."""

Items = Float[Tensor, "item token feature"]


class Operation(Protocol):
    """An intervention's formula."""

    @property
    def lent(self) -> ReplacementVectors: ...

    def forward(self, base: Items, source: Items | None) -> Items:
        """What takes the place of `base`."""
        ...


@dataclass(frozen=True, slots=True)
class Interchange:
    """x ← y, where y is what the source's run has there: the interchange intervention (Geiger et
    al., 2021)."""

    name: ClassVar[str] = "interchange"
    lent: ClassVar[ReplacementVectors] = "source"

    def forward(self, base: Items, source: Items | None) -> Items:
        assert source is not None
        return source


@dataclass(frozen=True, slots=True)
class Zero:
    """x ← 0: zero ablation."""

    lent: ClassVar[ReplacementVectors] = "nothing"

    def forward(self, base: Items, source: Items | None) -> Items:
        return torch.zeros_like(base)


@dataclass(frozen=True, slots=True)
class Mean:
    """x ← (y₁ + … + yₙ)/n over the runs of n sources: mean ablation."""

    lent: ClassVar[ReplacementVectors] = "source"

    def forward(self, base: Items, source: Items | None) -> Items:
        assert source is not None
        return source


@dataclass(frozen=True, slots=True)
class Resample:
    """x ← y, where y is the run of an input drawn at random (whoever makes the row draws it):
    resample ablation (Chan et al., 2022)."""

    lent: ClassVar[ReplacementVectors] = "source"

    def forward(self, base: Items, source: Items | None) -> Items:
        assert source is not None
        return source


@dataclass(frozen=True, slots=True)
class Add:
    """x ← x + s·y; with a `vector`, y is that vector at every token (steering), and nothing is
    lent."""

    scale: float = 1.0
    vector: tuple[float, ...] | None = None

    @property
    def lent(self) -> ReplacementVectors:
        return "source" if self.vector is None else "nothing"

    def forward(self, base: Items, source: Items | None) -> Items:
        return base + self.scale * _given(source, self.vector, base)


@dataclass(frozen=True, slots=True)
class Subtract:
    """x ← x - s·y; with a `vector`, y is that vector at every token, and nothing is lent."""

    scale: float = 1.0
    vector: tuple[float, ...] | None = None

    @property
    def lent(self) -> ReplacementVectors:
        return "source" if self.vector is None else "nothing"

    def forward(self, base: Items, source: Items | None) -> Items:
        return base - self.scale * _given(source, self.vector, base)


@dataclass(frozen=True, slots=True)
class Noise:
    """x ← x + s·ε, ε ~ N(0, 1) for each feature, drawn from `seed`, the base, the site and the
    token: the same in any company."""

    scale: float = 1.0
    seed: int = 0
    lent: ClassVar[ReplacementVectors] = "noise"

    def forward(self, base: Items, source: Items | None) -> Items:
        assert source is not None
        return base + self.scale * source


@dataclass(frozen=True, slots=True)
class Constant:
    """x ← c for a given vector c, of as many features as the unit."""

    vector: tuple[float, ...]
    lent: ClassVar[ReplacementVectors] = "nothing"

    def forward(self, base: Items, source: Items | None) -> Items:
        return _given(None, self.vector, base).expand_as(base)


@dataclass(frozen=True, slots=True)
class Skip:
    """x ← the input of the unit's module in the same run, where the unit is the module's output:
    the module is skipped."""

    lent: ClassVar[ReplacementVectors] = "input"

    def forward(self, base: Items, source: Items | None) -> Items:
        assert source is not None
        return source


@dataclass(frozen=True, slots=True)
class Collect:
    """x ← x: reads, and writes nothing. What it reads in a run comes from `interchange.collect`."""

    lent: ClassVar[ReplacementVectors] = "nothing"

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
    lent: ClassVar[ReplacementVectors] = "source"

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
    lent: ClassVar[ReplacementVectors] = "source"

    def forward(self, base: Items, source: Items | None) -> Items:
        x = base.flatten(1).float()
        change = self.real.forward(base, source).flatten(1).float() - x
        digest = hashlib.sha256(self.seed.encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        direction = torch.randn(x.shape[1], generator=generator).to(x)
        placed: Tensor = x + change.norm(dim=1, keepdim=True) * direction / direction.norm()
        return placed.to(base.dtype).view_as(base)


KINDS = {
    "interchange": Interchange,
    "zero": Zero,
    "mean": Mean,
    "resample": Resample,
    "add": Add,
    "subtract": Subtract,
    "noise": Noise,
    "constant": Constant,
    "skip": Skip,
    "collect": Collect,
}
"""By the name that an intervention's `kind` has."""


def _given(source: Tensor | None, vector: tuple[float, ...] | None, like: Tensor) -> Tensor:
    if vector is not None:
        return like.new_tensor(vector)
    assert source is not None, "a kind that lends from a source is given one"
    return source
