"""Initial featurizers: functions of the subspace, the unit and the seed, or of a larger rotation of
the unit."""

from collections.abc import Sequence

import torch

from raysearch.core.hypothesis import TRAINED
from raysearch.engine.featurizers.boundless import Boundless, BoundlessRank
from raysearch.engine.featurizers.featurizer import Featurizer, TemperatureSchedule
from raysearch.engine.featurizers.make import from_bytes, untrained
from raysearch.engine.featurizers.mask import Mask
from raysearch.engine.featurizers.rotation import Rotation
from raysearch.engine.networks.components import Components
from raysearch.engine.networks.point import Point
from raysearch.engine.training.fit import FitRequest
from raysearch.engine.training.recipe import Recipe
from raysearch.engine.training.unit import CapturedUnit
from raysearch.errors import JobError


def initialise(
    request: FitRequest,
    captured: CapturedUnit,
    train: Sequence[int],
    hook_points: Components,
    recipe: Recipe,
) -> Featurizer:
    """Returns a featurizer before its first step; the principal components below a mask are those
    of the pairs to `train` on.

    Raises: JobError for a request that is impossible, such as more features than the unit has.
    """
    (unit,) = request.intervention.units
    subspace = unit.subspace
    if subspace.featurizer not in TRAINED:
        raise JobError(
            f"{subspace.featurizer} is not trained; those that are: {', '.join(TRAINED)}"
        )
    heads = (
        captured.tokens * hook_points.at(Point(unit.site.layer, unit.site.component)).heads
        if unit.site.head is None
        else 0
    )
    at = torch.tensor(
        [captured.pair_rows[index].at for index in train], device=captured.base.device
    )
    if request.start is not None:
        larger = from_bytes(request.start)
        assert isinstance(larger, Rotation), "what is begun within is a rotation"
        return Rotation.within(
            larger, captured.source[at] - captured.base[at], subspace.features or 0
        )
    activations = (
        torch.cat((captured.base[at], captured.source[at])) if subspace.basis == "pca" else None
    )
    generator = torch.Generator().manual_seed(request.seed)
    featurizer = untrained(subspace, captured.width, generator, heads, activations=activations)
    if isinstance(featurizer, Boundless | BoundlessRank | Mask):
        if recipe.temperature is not None:
            featurizer.cooling = TemperatureSchedule(recipe.temperature, featurizer.cooling.end)
        if recipe.penalty is not None:
            featurizer.weight = recipe.penalty
    return featurizer
