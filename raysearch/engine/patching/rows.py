"""Rows: one run of the network, with the patches that make it an intervened one.

Invariants: a row is a frozen value, so that equal rows are run once; a source is a run like any
other, and may itself be intervened upon (serial interventions); tokens count from the first of the
input, padding not counted.
"""

from dataclasses import dataclass, field

from raysearch.core.events import Ids
from raysearch.engine.networks.network import ModelInput
from raysearch.engine.networks.point import Point
from raysearch.engine.patching.operations import Interchange, Operation

INTERCHANGE = Interchange()

FeatureIndices = range | tuple[int, ...] | None
"""Which coordinates of a component's vector, from 0. None: all."""


@dataclass(frozen=True, slots=True)
class Source:
    """What is lent: at `point` in `run`, these tokens, these features."""

    run: "Row"
    point: Point
    tokens: Ids
    features: FeatureIndices = None


@dataclass(frozen=True, slots=True)
class Patch:
    """At `point`, `kind` is done to these features of these tokens. Sources have as many tokens and
    features as the patch."""

    point: Point
    tokens: Ids
    sources: tuple[Source, ...] = ()
    kind: Operation = INTERCHANGE
    features: FeatureIndices = None


@dataclass(frozen=True, slots=True)
class Row:
    """A run on `base` with `patches`, done in their order where they meet. No patches: the run
    without intervention.

    `among`: the ids that its answer is chosen from; none: all.
    """

    base: ModelInput
    patches: tuple[Patch, ...] = ()
    among: Ids = ()
    _hash: int = field(default=0, init=False, repr=False, compare=False)

    def __hash__(self) -> int:
        """Computed once: a row is looked up many times, and a source is a row within a row."""
        if not self._hash:
            object.__setattr__(self, "_hash", hash((self.base, self.patches, self.among)) or 1)
        return self._hash

    @property
    def unpatched(self) -> "Row":
        """The base's run without intervention, to be decided alike."""
        return Row(self.base, (), self.among)

    def after(self, token: int) -> "Row":
        """The run that says the next token of an answer: `token` follows, and what is patched stays
        patched."""
        assert isinstance(self.base, tuple), "only a text goes on"
        return Row((*self.base, token), self.patches, self.among)


def swap(
    base: ModelInput,
    source: ModelInput,
    layer: int | None,
    tokens: Ids,
    component: str = "residual",
) -> Row:
    """A plain interchange: the same tokens, the same whole activation."""
    point = Point(layer, component)
    return Row(base, (Patch(point, tokens, (Source(Row(source), point, tokens),)),))
