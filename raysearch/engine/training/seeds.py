"""The seeds of a fit task: those trained in steps run together, those with a closed form one by
one.

Invariants: a fault affects no other seed; a seed is fit to the counterfactuals of its variable or,
as a control, to a fixed relabelling of them.
"""

from collections.abc import Iterable, Mapping, Sequence

from raysearch.core.controls import labels_of
from raysearch.core.events import Encoded, Ids, Seed
from raysearch.core.featurizers import is_closed_form, kind_of
from raysearch.core.hypothesis import Intervention
from raysearch.engine.featurizers.construction import closed_form
from raysearch.engine.training.fit_request import FitFault, FitOutcome, FitRequest, Targets
from raysearch.engine.training.trainer import Trainer
from raysearch.errors import JobError


def fit_seeds(
    trainer: Trainer,
    seeds: Sequence[Seed],
    steps: tuple[int, int],
    pairs: Sequence[Encoded],
    targets: Targets,
    tensors: Mapping[str, bytes],
) -> dict[str, FitOutcome | FitFault]:
    """Returns the outcome of each seed, by its key, after the steps [first, last). `tensors`:
    states to resume from and rotations to start within, by digest."""
    closed = [s for s in seeds if is_closed_form(s.intervention.units[0].subspace.featurizer)]
    trained = [seed for seed in seeds if seed not in closed]
    requests = [
        FitRequest(s.intervention, s.seed, *(_named(d, tensors) for d in (s.state, s.start)))
        for s in trained
    ]
    fits = trainer.fit(requests, pairs, targets, *steps) if requests else []
    found = dict(zip((seed.key for seed in trained), fits, strict=True))
    return found | {
        seed.key: _computed(trainer, seed.intervention, pairs, targets) for seed in closed
    }


def targets_of(
    interventions: Iterable[Intervention], pairs: Iterable[Encoded], every: Iterable[Encoded]
) -> Targets:
    """Returns the answers that each intervention should produce on `pairs`. `every`: all pairs of
    the run, whose first ones fix arbitrary labels."""
    pairs, every = tuple(pairs), tuple(every)
    return {i.id: _wanted(i, pairs, every) for i in interventions}


def _wanted(
    intervention: Intervention, pairs: Sequence[Encoded], every: Sequence[Encoded]
) -> dict[int, Ids]:
    variable = intervention.variable
    assert variable is not None, "what is fit is fit for a variable"
    wanted = {pair.index: pair.counterfactual[variable] for pair in pairs}
    if not intervention.control_kind.arbitrary_labels:
        return wanted
    labels = labels_of(every, variable)
    return {index: labels.get(ids, ids) for index, ids in wanted.items()}


def _named(digest: str | None, tensors: Mapping[str, bytes]) -> bytes | None:
    return None if digest is None else tensors[digest]


def _computed(
    trainer: Trainer, intervention: Intervention, pairs: Sequence[Encoded], targets: Targets
) -> FitOutcome | FitFault:
    try:
        vectors, labels = trainer.activations(intervention, pairs)
        named = [at for at, label in enumerate(labels) if label is not None]
        subspace = intervention.units[0].subspace
        if kind_of(subspace.featurizer).labelled:
            _check_classes(intervention, pairs)
            vectors, labels = vectors[named], tuple(labels[at] for at in named)
        featurizer = closed_form(subspace, vectors, labels)
    except Exception as error:  # noqa: BLE001  reported for its fit, sparing the others
        return FitFault(intervention.id, 0, error)
    (fit,) = trainer.validated([(intervention, featurizer)], pairs, targets)
    return fit


def _check_classes(intervention: Intervention, pairs: Sequence[Encoded]) -> None:
    """Raises: JobError if the pairs do not determine the class of a source.

    Where the variable's values are not known, answers stand for them: if the counterfactual is the
    source's own answer it is the source's class; otherwise it depends on the base too, and class
    means would mix classes.
    """
    variable, name = intervention.variable or "", intervention.units[0].subspace.featurizer
    mixed = next(
        (
            p
            for p in pairs
            if variable not in p.values
            and p.counterfactual[variable] not in [p.answers.get(name) for name in p.sources]
        ),
        None,
    )
    if mixed is not None:
        raise JobError(
            f"{name}: the classes of {variable!r} are not told by the pairs: in pair "
            f"{mixed.index} its counterfactual is not the "
            "source's own answer, so it hangs on the base too; use it for a variable that is the "
            "answer, or use das"
        )
