"""The subspace of a saved intervention, as named tensors and back.

Invariants: the tensors are the featurizer's own (`Featurizer.tensors`) and its "width"; what is
made of them computes what the saved one computes; tensors that do not fit the subspace are refused.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from raysearch.core.hypothesis import Intervention
from raysearch.engine.featurizers.featurizer import Featurizer
from raysearch.engine.featurizers.make import from_parts
from raysearch.errors import StoreError

WIDTH = "width"
"""The name of the tensor that holds how many numbers the vectors have that the featurizer takes."""


def tensors_of(featurizer: Featurizer) -> dict[str, Tensor]:
    """What is saved of it."""
    return {**featurizer.tensors(), WIDTH: torch.tensor(featurizer.width)}


def featurizer_of(intervention: Intervention, tensors: Mapping[str, Tensor]) -> Featurizer | None:
    """The featurizer that `tensors` hold, hardened, on the CPU; None where all units are plain
    coordinates.

    Raises: StoreError where they do not fit the subspace of its one unit.
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
            f"missing or no number; "
            "save it with the tensors of its featurizer"
        )
    held = {name: tensor for name, tensor in tensors.items() if name != WIDTH}
    try:
        return from_parts(named[0], width, held)
    except StoreError as e:
        raise StoreError(f"{where}: {e}; save it with the tensors of its featurizer") from e


def width_of(tensors: Mapping[str, Tensor]) -> int | None:
    """What the tensor "width" says; None where there is none, or it is no whole number from 1."""
    width = tensors.get(WIDTH)
    if width is None or width.numel() != 1 or width.is_floating_point() or width.is_complex():
        return None
    return int(width) if int(width) >= 1 else None


def tensors_of_width(width: int) -> dict[str, Tensor]:
    """What tells the width of a vector of which plain coordinates are interchanged."""
    return {WIDTH: torch.tensor(width)}
