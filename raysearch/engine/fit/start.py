"""How a fit begins: an untrained featurizer, a function of the subspace, the unit and the seed."""

import torch

from raysearch.engine.components import Taps
from raysearch.engine.featurizers.featurizer import Featurizer
from raysearch.engine.featurizers.make import to_bytes, untrained
from raysearch.engine.fit.unit import Captured
from raysearch.engine.rows import Point
from raysearch.errors import JobError
from raysearch.search.hypothesis import TRAINED, Unit

__all__ = ["started", "to_bytes"]


def started(unit: Unit, captured: Captured, taps: Taps, seed: int) -> Featurizer:
    """An untrained featurizer for `unit`; principal components that a mask lies over are those of what it was captured as.

    Raises: JobError for what cannot be had, such as more features than the unit has.
    """
    subspace = unit.subspace
    if subspace.featurizer not in TRAINED:
        raise JobError(f"{subspace.featurizer} is not trained; those that are: {', '.join(TRAINED)}")
    heads = (
        captured.tokens * taps.at(Point(unit.site.layer, unit.site.component)).heads if unit.site.head is None else 0
    )
    activations = torch.cat((captured.base, captured.source)) if subspace.basis == "pca" else None
    generator = torch.Generator().manual_seed(seed)
    return untrained(subspace, captured.width, generator, heads, activations=activations)
