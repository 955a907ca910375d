"""What a trainer is asked for and what comes of it: values that cross processes.

Invariants: equal fits (same content, same state) are equal values.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from raysearch.core.events import Ids
from raysearch.core.hypothesis import Intervention
from raysearch.engine.training.checkpoint import LossPoint

Targets = Mapping[str, Mapping[int, Ids]]
"""By the intervention's id, then the pair's index: the counterfactual answer. A pair that is not
named is not used."""


class DivergedError(ArithmeticError):
    """Training that came to numbers which are not finite."""


class CollapsedError(ArithmeticError):
    """Training that came to a subspace of nothing, or of everything."""


@dataclass(frozen=True, slots=True)
class FitRequest:
    """A fit: of the intervention's unit, for its variable, begun by `seed`, or gone on with from
    `state`.

    `start`: the content of a larger rotation of the same unit, within which it is begun.
    """

    intervention: Intervention
    seed: int
    state: bytes | None = field(default=None, repr=False)
    start: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class FitOutcome:
    """A fit that has come to `step`. `points`: (steps, mean training loss since the last point,
    validation IIA).

    `content`: the featurizer that was best in validation (the present one, where there was no look
    yet), with what it found, its IIA over `validation_n` change pairs and its loss over all;
    `state`: all that is needed to go on. `stopped`: there is no use in that.
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
    """Why a fit came to nothing."""

    intervention: str
    seed: int
    error: Exception
