"""Converts the subspace of a saved intervention to named tensors and back.

Invariants: the tensors are `Featurizer.tensors` and "width"; loading them gives an equivalent
featurizer; tensors that do not fit the subspace are refused.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from raysearch.core.hypothesis import Intervention
from raysearch.engine.featurizers.construction import from_parts
from raysearch.engine.featurizers.featurizer import Featurizer
from raysearch.errors import StoreError

WIDTH = "width"
"""Name of the tensor that holds the length of the featurizer's vectors."""


def tensors_of(featurizer: Featurizer) -> dict[str, Tensor]:
    """Returns the tensors to save for a featurizer."""
    return {**featurizer.tensors(), WIDTH: torch.tensor(featurizer.width)}


def featurizer_of(intervention: Intervention, tensors: Mapping[str, Tensor]) -> Featurizer | None:
    """Builds the hardened featurizer from `tensors`, on the CPU; None for plain coordinates.

    Raises: StoreError if they do not fit the subspace of its only unit.
    """
    where = f"intervention {intervention.id}"
    named = [unit.subspace for unit in intervention.units if unit.subspace.featurizer != "identity"]
    if not named:
        return None
    if len(intervention.units) > 1:
        raise StoreError(
            f"{where}: has {len(intervention.units)} units; tensors are kept of a single one"
        )
    width = width_of(tensors)
    if width is None:
        raise StoreError(
            f"{where}: the tensors do not fit its subspace ({named[0].featurizer}): {WIDTH!r} is "
            "missing or no number; save it with the tensors of its featurizer"
        )
    parameters = {name: tensor for name, tensor in tensors.items() if name != WIDTH}
    try:
        return from_parts(named[0], width, parameters)
    except StoreError as e:
        raise StoreError(f"{where}: {e}; save it with the tensors of its featurizer") from e


def width_of(tensors: Mapping[str, Tensor]) -> int | None:
    """Returns the tensor "width" as a number; None if it is missing or not a positive integer."""
    width = tensors.get(WIDTH)
    if width is None or width.numel() != 1 or width.is_floating_point() or width.is_complex():
        return None
    return int(width) if int(width) >= 1 else None


def tensors_of_width(width: int) -> dict[str, Tensor]:
    """Returns the tensors to save for plain coordinates of a vector of this width."""
    return {WIDTH: torch.tensor(width)}
