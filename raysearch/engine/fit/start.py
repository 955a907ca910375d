"""Where featurizers come from and how they are kept, for the trainer: new ones by their subspace, and to bytes and back.

Invariants: equal featurizers, equal bytes; a new one is a function of the subspace, the width and the seed.
"""

import json

import safetensors.torch
import torch

from raysearch.engine.featurizers.featurizer import Featurizer
from raysearch.engine.featurizers.rotation import Rotation
from raysearch.errors import JobError, NotYetError
from raysearch.search.hypothesis import Subspace


def started(subspace: Subspace, width: int, seed: int) -> Featurizer:
    """An untrained featurizer for vectors of `width`.

    Raises: JobError for more features than the width; NotYetError for a featurizer that is not trained.
    """
    if subspace.featurizer != "das":
        raise NotYetError(f"featurizer {subspace.featurizer!r} is not trained yet; use das")
    features = subspace.features or 0
    if not 1 <= features <= width:
        raise JobError(f"das: {subspace.features} features of a unit that has {width}; ask for 1 to {width}")
    return Rotation.random(width, features, torch.Generator().manual_seed(seed))


def to_bytes(featurizer: Featurizer) -> bytes:
    """The featurizer as safetensors."""
    return safetensors.torch.save(featurizer.tensors(), {"raysearch": json.dumps({"featurizer": featurizer.name})})
