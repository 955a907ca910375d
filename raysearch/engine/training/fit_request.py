"""Requests to a trainer and their outcomes: values that cross processes.

Invariants: equal fits (same content, same state) are equal values.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from raysearch.core.events import Ids
from raysearch.core.hypothesis import Intervention
from raysearch.engine.training.checkpoint import LossPoint

Targets = Mapping[str, Mapping[int, Ids]]
"""The counterfactual answer, by intervention id, then pair index. A pair without an entry is not
used."""


class DivergedError(ArithmeticError):
    """Training reached numbers that are not finite."""


class CollapsedError(ArithmeticError):
    """Training reached a subspace of nothing, or of everything."""


@dataclass(frozen=True, slots=True)
class FitRequest:
    """A fit of the intervention's unit for its variable, started from `seed` or resumed from
    `state`.

    `start`: content of a larger rotation of the same unit, within which training starts.
    """

    intervention: Intervention
    seed: int
    state: bytes | None = field(default=None, repr=False)
    start: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class FitOutcome:
    """A fit at `step`. `points`: (steps, mean training loss since the last point, validation IIA).

    `content`: the featurizer best in validation (the current one before the first validation), with
    its findings, its IIA over `validation_n` change pairs and its loss over all; `state`: all that
    is needed to resume. `stopped`: further steps are of no use.
    """

    intervention: str
    seed: int
    step: int
    points: tuple[LossPoint, ...]
    validation_iia: float | None
    validation_n: int
    validation_loss: float | None
    found: Mapping[str, float]
    content: bytes = field(repr=False)
    state: bytes = field(repr=False)
    stopped: bool = False


@dataclass(frozen=True, slots=True)
class FitFault:
    """The reason that a fit failed."""

    intervention: str
    seed: int
    error: Exception
