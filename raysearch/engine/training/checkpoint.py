"""A checkpoint of one fit: its featurizer, its optimiser and its findings; saved to bytes and
restored, so that training can resume.

Invariants: a resumed fit ends as if there had been no pause, bit for bit on one device; equal
checkpoints have equal bytes; the best featurizer has the highest validation IIA, then the lowest
validation loss, then is the first (the last, without pairs to validate on).
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from raysearch.core.fit_keys import FitKeys
from raysearch.core.hypothesis import canonical_json
from raysearch.engine.featurizers.construction import to_bytes
from raysearch.engine.featurizers.featurizer import Featurizer
from raysearch.errors import ResumeError

LossPoint = tuple[int, float, float | None]
"""Number of steps, mean training loss since the last point, validation IIA."""


@dataclass(frozen=True, slots=True)
class Validation:
    """The share of matches on `n` change pairs (None without any), and the mean loss on all pairs
    (None without any)."""

    iia: float | None
    n: int
    loss: float | None

    def is_better_than(self, other: "Validation") -> bool:
        """Compares by IIA, then loss; without pairs to validate on, the later one is better."""
        if self.loss is None:
            return True
        ours, theirs = (
            (-1.0 if v.iia is None else v.iia, -_or_infinite(v.loss)) for v in (self, other)
        )
        return ours > theirs


@dataclass(slots=True)
class Checkpoint:
    """Progress of one fit. `name`: its intervention and seed. `moments`: of the optimizer, by
    parameter and name. `losses`: of the steps since the last point. `waited`: validations since the
    best one. `collapsed`: whether the best featurizer interchanges nothing, or everything."""

    name: str
    featurizer: Featurizer
    moments: dict[int, dict[str, Tensor]] = field(default_factory=dict)
    step: int = 0
    losses: tuple[float, ...] = ()
    points: tuple[LossPoint, ...] = ()
    validation: Validation = Validation(None, 0, None)
    found: Mapping[str, float] | None = None
    best: bytes | None = None
    waited: int = 0
    stopped: bool = False
    collapsed: bool = False

    def record_validation(self, validation: Validation, patience: int) -> None:
        """Records a validation of the hardened featurizer."""
        self.points += ((self.step, sum(self.losses) / max(1, len(self.losses)), validation.iia),)
        self.losses = ()
        if self.best is None or validation.is_better_than(self.validation):
            self.validation, self.best, self.found = (
                validation,
                to_bytes(self.featurizer),
                self.featurizer.found(),
            )
            self.waited, self.collapsed = 0, self.featurizer.collapsed
        else:
            self.waited += 1
            self.stopped = 0 < patience <= self.waited

    def to_bytes(self, recipe: FitKeys) -> bytes:
        """Saves all that is needed to resume."""
        tensors = {f"featurizer.{name}": t for name, t in self.featurizer.state_dict().items()}
        for at, moments in self.moments.items():
            tensors |= {f"optimizer.{at}.{name}": t for name, t in moments.items()}
        if self.best is not None:
            tensors["best"] = torch.frombuffer(bytearray(self.best), dtype=torch.uint8)
        facts = {
            "name": self.name,
            "recipe": recipe.of_a_step,
            "step": self.step,
            "losses": self.losses,
            "points": self.points,
            "validation": asdict(self.validation),
            "found": self.found,
            "waited": self.waited,
            "stopped": self.stopped,
            "collapsed": self.collapsed,
        }
        return safetensors.torch.save(
            {name: t.detach().cpu().contiguous() for name, t in tensors.items()},
            {"fit": canonical_json(facts)},
        )

    def restore(self, state: bytes, recipe: FitKeys) -> None:
        """Restores what `to_bytes` saved. Raises: ResumeError for the state of another fit or
        recipe."""
        tensors, facts = _read(state)
        if (facts["name"], facts["recipe"]) != (
            self.name,
            json.loads(canonical_json(recipe.of_a_step)),
        ):
            what = "recipe" if facts["name"] == self.name else f"fit ({facts['name']})"
            raise ResumeError(
                f"{self.name}: the state is that of another {what}; begin anew without it"
            )
        self.featurizer.load_state_dict(_under("featurizer", tensors))
        self.moments = {}
        for name, tensor in _under("optimizer", tensors).items():
            at, which = name.split(".", 1)
            self.moments.setdefault(int(at), {})[which] = tensor
        best = tensors.get("best")
        self.best = None if best is None else best.numpy().tobytes()
        self.step, self.waited = facts["step"], facts["waited"]
        self.stopped, self.collapsed = facts["stopped"], facts["collapsed"]
        self.losses = tuple(facts["losses"])
        self.points = tuple((step, loss, iia) for step, loss, iia in facts["points"])
        self.validation, self.found = Validation(**facts["validation"]), facts["found"]


def _read(state: bytes) -> tuple[dict[str, Tensor], Any]:
    try:
        length = int.from_bytes(state[:8], "little")
        facts = json.loads(json.loads(state[8 : 8 + length])["__metadata__"]["fit"])
        return safetensors.torch.load(state), facts
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise ResumeError(
            f"what should be the state of a fit cannot be read ({error}); begin anew without it"
        ) from error


def _under(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        key.removeprefix(f"{name}."): t for key, t in tensors.items() if key.startswith(f"{name}.")
    }


def _or_infinite(loss: float | None) -> float:
    return float("inf") if loss is None else loss
