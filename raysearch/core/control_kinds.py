"""The kinds of control, listed once: by name, what each changes of the hypothesis it stands beside.

Those of `HOLDOUT_CONTROLS` are measured on the holdout of every accepted hypothesis. Those of
`JOB_CONTROLS` are hypotheses of their own, made from accepted ones if the job asks for them
(`controls`), and judged by the same test.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

ReadControl = Literal["self_swap", "random_source"]
Control = Literal["random_subspace", "random_model", "arbitrary_labels", "placebo"]


@dataclass(frozen=True, slots=True)
class ControlKind:
    """A kind of control, by what it changes of its hypothesis; everything else stays.

    Args:
        meaning: what its IIA shows, in words.
        base_is_source: whether it takes the activation from the base itself.
        other_source: whether it takes it from another pair's source.
        random_subspace: whether a random subspace of the same size takes the subspace's place.
        random_direction: whether a random direction of the change's length takes its place.
        random_weights: whether it is measured in a model of random weights.
        arbitrary_labels: whether it is fit and scored on relabelled answers.
    """

    meaning: str = ""
    base_is_source: bool = False
    other_source: bool = False
    random_subspace: bool = False
    random_direction: bool = False
    random_weights: bool = False
    arbitrary_labels: bool = False


HOLDOUT_CONTROLS: Mapping[ReadControl, ControlKind] = {
    "self_swap": ControlKind(
        "the base's own activation put in: what comes without any change", base_is_source=True
    ),
    "random_source": ControlKind(
        "the activation of another pair's source: what comes of any such change", other_source=True
    ),
}
"""The controls measured with every holdout estimate."""

JOB_CONTROLS: Mapping[Control, ControlKind] = {
    "random_subspace": ControlKind(
        "the same site, a random subspace of the same size", random_subspace=True
    ),
    "random_model": ControlKind(
        "a model of random weights, on the pairs that the real one solves", random_weights=True
    ),
    "arbitrary_labels": ControlKind(
        "fit and scored on a fixed random relabelling of the answers: what "
        "training can make of anything (Hewitt and Liang, 2019; trained subspaces only)",
        arbitrary_labels=True,
    ),
    "placebo": ControlKind(
        "a random direction of the length of the real change", random_direction=True
    ),
}
"""The controls that a job may ask for."""

_ALL: Mapping[str, ControlKind] = dict([*HOLDOUT_CONTROLS.items(), *JOB_CONTROLS.items()])
_NO_CONTROL = ControlKind()


def control_kind(name: str | None) -> ControlKind:
    """Returns the control of this name; for None, the one that changes nothing."""
    return _NO_CONTROL if name is None else _ALL[name]


def job_control_meanings() -> dict[str, str]:
    """Returns what each control that a job may ask for shows, by name."""
    return {name: kind.meaning for name, kind in JOB_CONTROLS.items()}
