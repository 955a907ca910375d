"""Controls: interventions whose IIA shows what a hypothesis's IIA is worth.

Invariants: a control is not counted in K and is never in the alignment; the arbitrary labels are a
function of the pairs alone, the same on every machine.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from raysearch.core.control_kinds import control_kind
from raysearch.core.events import Ids
from raysearch.core.featurizers import is_fitted, is_trained
from raysearch.core.hypothesis import Hypothesis, Intervention, Subspace, Unit


def controls_of(hypothesis: Hypothesis, names: Sequence[str], size: int | None) -> list[Hypothesis]:
    """Returns the controls of an accepted hypothesis that make sense for it.

    Args:
        size: number of features that training found, if it did.
    """
    found = []
    for name in names:
        intervention = _control(hypothesis, name, size)
        if intervention is not None:
            found.append(Hypothesis(hypothesis.variable, intervention))
    return found


def with_control(intervention: Intervention, name: str) -> Intervention:
    """Returns the intervention as it is read for the control `name`."""
    return replace(intervention, control=name)


def arbitrary_labels(counterfactuals: Iterable[Ids], seed: int = 0) -> Mapping[Ids, Ids]:
    """Returns a fixed random relabelling of the answers in which no answer keeps its label, if
    there are two or more.
    """
    values = sorted(set(counterfactuals))
    shuffled = list(values)
    random.Random(f"{seed}.arbitrary_labels").shuffle(shuffled)
    following = dict(
        zip(shuffled, [*shuffled[1:], *shuffled[:1]], strict=True)
    )  # one cycle, so that no answer keeps its label
    return {value: following[value] for value in values}


class _Labelled(Protocol):
    """A pair with its counterfactuals, and the continuation that added it (0: none)."""

    @property
    def counterfactual(self) -> Mapping[str, Ids]: ...

    @property
    def added(self) -> int: ...


def labels_of(pairs: Iterable[_Labelled], variable: str) -> Mapping[Ids, Ids]:
    """Returns the arbitrary labels of a run, which its first pairs fix: an answer that only further
    pairs have keeps its own.
    """
    first = (pair for pair in pairs if not pair.added and variable in pair.counterfactual)
    return arbitrary_labels(pair.counterfactual[variable] for pair in first)


def swaps_nothing(intervention: Intervention) -> bool:
    """Says whether its self-swap writes the bits that are there already: whole vectors or
    coordinates, taken from where they are put. Then the output is that without intervention,
    exactly; any other featurizer rounds."""
    return all(
        unit.subspace.featurizer == "identity" and unit.source_site in (None, unit.site)
        for unit in intervention.units
    )


def _control(hypothesis: Hypothesis, name: str, size: int | None) -> Intervention | None:
    """Returns a control, or None if it makes no sense.

    A random subspace of the whole vector is the whole, and labels only matter for training.
    """
    intervention, kind = replace(hypothesis.intervention, fit=None), control_kind(name)
    if intervention.is_ablation and kind.random_subspace:
        return None
    if kind.random_subspace:
        units = tuple(_random_subspace(unit, size) for unit in intervention.units)
        sized = [unit for unit in units if unit is not None]
        if len(sized) < len(units):
            return None
        return Intervention(tuple(sized), intervention.kind, name)
    if kind.arbitrary_labels and not any(
        is_trained(unit.subspace.featurizer) for unit in intervention.units
    ):
        return None
    return with_control(intervention, name)


def _random_subspace(unit: Unit, size: int | None) -> Unit | None:
    subspace = unit.subspace
    chosen = subspace.coordinates
    if is_fitted(subspace.featurizer):
        count = size if size is not None else subspace.features
    else:
        count = len(chosen) if chosen is not None else subspace.features
    return None if count is None else replace(unit, subspace=Subspace("random", count))
