"""Converts between orthonormal matrices and torch's orthogonal parametrization, as MIB and pyvene
store rotations.

MIB's modules have a layer `rotate` with a `weight` of (width, k) under
torch.nn.utils.parametrizations.orthogonal; its loader builds the same and loads the state strictly.
So names and shapes are those of the installed torch.

Invariants: the matrix read is the one that torch computes from the state.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal

from raysearch.visible_text import one_line

ORIGINAL = "rotate.parametrizations.weight.original"


class RotationError(Exception):
    """A state that holds no rotation; the text says why in one line."""


class _Layer(nn.Module):
    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.clone())


class _Module(nn.Module):
    """Mimics MIB's featurizers, whose layer is called `rotate`."""

    def __init__(self, directions: Tensor) -> None:
        super().__init__()
        self.rotate = orthogonal(_Layer(directions))

    def weight(self) -> Tensor:
        layer = self.rotate
        assert isinstance(layer, _Layer)
        return layer.weight


def rotation_state(directions: Tensor, layer: str = "rotate") -> dict[str, Tensor]:
    """Returns the state_dict that `read_rotation` turns into `directions` (width, k), to float32
    rounding.

    It holds a width x width matrix. `layer`: name of the layer.
    """
    state = _Module(directions.cpu().float()).state_dict()
    return {
        f"{layer}.{name.partition('.')[2]}": tensor.detach().clone()
        for name, tensor in state.items()
    }


def read_rotation(state: Mapping[str, Tensor]) -> Tensor:
    """Returns the matrix (width, k). Raises: RotationError if the state holds none."""
    original = state.get(ORIGINAL)
    if not isinstance(original, Tensor) or original.ndim != 2 or not original.is_floating_point():
        raise RotationError(
            f"its state has no matrix {ORIGINAL}; it has {', '.join(map(str, state)) or 'nothing'}"
        )
    width, features = original.shape
    if not 1 <= features <= width:
        raise RotationError(
            f"its rotation has shape {tuple(original.shape)}; need (width, k), k in 1..width"
        )
    module = _Module(torch.eye(width, features))
    try:
        module.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    except (RuntimeError, AttributeError, TypeError) as e:
        raise RotationError(
            f"its state is not that of torch's orthogonal parametrization ({one_line(e)})"
        ) from e
    with torch.no_grad():
        directions = module.weight().clone(memory_format=torch.contiguous_format)
    if not torch.isfinite(directions).all():
        raise RotationError("its rotation is not finite")
    return directions
