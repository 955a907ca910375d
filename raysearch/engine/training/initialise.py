"""Initial featurizers: functions of the subspace, the unit and the seed, or of a larger rotation of
the unit."""

import torch

from raysearch.core.featurizers import is_trained, names
from raysearch.core.fit_keys import FitKeys
from raysearch.engine.featurizers.construction import from_bytes, make_untrained
from raysearch.engine.featurizers.featurizer import Featurizer, TemperatureSchedule
from raysearch.engine.networks.components import Components
from raysearch.engine.networks.point import Point
from raysearch.engine.patching.rows import Indices
from raysearch.engine.training.captured_unit import CapturedUnit
from raysearch.engine.training.fit_request import FitRequest
from raysearch.errors import JobError


def initialise(
    request: FitRequest,
    captured: CapturedUnit,
    train: Indices,
    hook_points: Components,
    recipe: FitKeys,
) -> Featurizer:
    """Returns a featurizer before its first step; the principal components below a mask are those
    of the pairs to `train` on.

    Raises: JobError for a request that is impossible, such as more features than the unit has.
    """
    (unit,) = request.intervention.units
    subspace = unit.subspace
    if not is_trained(subspace.featurizer):
        raise JobError(
            f"{subspace.featurizer} is not trained; those that are: {', '.join(names('trained'))}"
        )
    heads = (
        captured.tokens * hook_points.at(Point(unit.site.layer, unit.site.component)).heads
        if unit.site.head is None
        else 0
    )
    at = torch.from_numpy(train).to(captured.base.device)
    if request.start is not None:
        changes = captured.source[at] - captured.base[at]
        return from_bytes(request.start).within(changes, subspace.features or 0)
    activations = torch.cat((captured.base[at], captured.source[at]))
    generator = torch.Generator().manual_seed(request.seed)
    featurizer = make_untrained(subspace, captured.width, generator, heads, activations=activations)
    if recipe.temperature is not None and featurizer.cooling is not None:
        featurizer.cooling = TemperatureSchedule(recipe.temperature, featurizer.cooling.end)
    if recipe.penalty is not None and featurizer.weight is not None:
        featurizer.weight = recipe.penalty
    return featurizer
