"""Controls: what a hypothesis's IIA is to be held against, as interventions of their own.

    self_swap         the base's own activation put in: what comes without any change
    random_source     the activation of another pair's source: what comes of any change of that kind
    random_subspace   the same site, a random subspace of the same size
    random_model      the same search on the model with re-initialised weights, on the pairs that the real one solves
    arbitrary_labels  fit and scored on a fixed random relabelling of the answers: what training can make of anything (Hewitt & Liang, 2019)
    placebo           a random direction of the length of the real change

The first two are read on the holdout of every accepted hypothesis; the others are hypotheses that a
job asks for (`controls`), of the accepted ones, judged by the same test. Invariants: a control
stands outside K and never in the alignment; which labels are arbitrary is a function of the pairs
alone, the same on every machine.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from raysearch.core.events import Ids
from raysearch.core.featurizers import is_fitted, is_trained
from raysearch.core.hypothesis import Hypothesis, Intervention, Subspace, Unit

READ = ("self_swap", "random_source")
"""Read beside every estimate."""

ASKED = ("random_subspace", "random_model", "arbitrary_labels", "placebo")
"""Those that a job may ask for."""


def controls_of(hypothesis: Hypothesis, names: Sequence[str], size: int | None) -> list[Hypothesis]:
    """The controls of an accepted hypothesis, as far as they make sense for it. `size`: of the
    subspace that was found, where it was."""
    found = []
    for name in names:
        intervention = _control(hypothesis, name, size)
        if intervention is not None:
            found.append(Hypothesis(hypothesis.variable, intervention))
    return found


def read_beside(intervention: Intervention, name: str) -> Intervention:
    """An intervention as it is read for the control `name`."""
    return replace(intervention, control=name)


def arbitrary_labels(counterfactuals: Iterable[Ids], seed: int = 0) -> Mapping[Ids, Ids]:
    """A fixed random relabelling of the answers in which none keeps its label (where there are two
    or more)."""
    values = sorted(set(counterfactuals))
    shuffled = list(values)
    random.Random(f"{seed}.arbitrary_labels").shuffle(shuffled)
    following = dict(
        zip(shuffled, [*shuffled[1:], *shuffled[:1]], strict=True)
    )  # one cycle: nobody stands still
    return {value: following[value] for value in values}


def _control(hypothesis: Hypothesis, name: str, size: int | None) -> Intervention | None:
    """None where it makes no sense: a random subspace of the whole vector is the whole, and labels
    are for what is trained."""
    intervention = replace(hypothesis.intervention, fit=None)
    if intervention.is_ablation and name == "random_subspace":
        return None
    if name == "random_subspace":
        units = tuple(_random_subspace(unit, size) for unit in intervention.units)
        sized = [unit for unit in units if unit is not None]
        if len(sized) < len(units):
            return None
        return Intervention(tuple(sized), intervention.kind, name)
    if name == "arbitrary_labels":
        trained = any(is_trained(unit.subspace.featurizer) for unit in intervention.units)
        return replace(intervention, control=name) if trained else None
    assert name in ASKED, name
    return replace(intervention, control=name)


def _random_subspace(unit: Unit, size: int | None) -> Unit | None:
    subspace = unit.subspace
    chosen = subspace.coordinates
    if is_fitted(subspace.featurizer):
        count = size if size is not None else subspace.features
    else:
        count = len(chosen) if chosen is not None else subspace.features
    return None if count is None else replace(unit, subspace=Subspace("random", count))
