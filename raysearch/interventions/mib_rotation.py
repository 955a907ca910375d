"""A matrix with orthonormal columns as the state of torch's orthogonal parametrization, and back:
how MIB and pyvene keep a rotation.

MIB's modules hold a layer `rotate` with a `weight` of (width, k) under
torch.nn.utils.parametrizations.orthogonal; its loader makes one like it and reads the state
strictly. So the names and the shapes are torch's own, those of the torch that writes.

Invariants: the matrix that is read is the one that torch computes of the state, not one beside it.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal

from raysearch.visible_text import one_line

ORIGINAL = "rotate.parametrizations.weight.original"


class RotationError(Exception):
    """A state that is none of a rotation; the text says what is wrong, in one line."""


class _Layer(nn.Module):
    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.clone())


class _Module(nn.Module):
    """As MIB's featurizers: a layer called `rotate`."""

    def __init__(self, directions: Tensor) -> None:
        super().__init__()
        self.rotate = orthogonal(_Layer(directions))

    def weight(self) -> Tensor:
        layer = self.rotate
        assert isinstance(layer, _Layer)
        return layer.weight


def rotation_state(directions: Tensor, layer: str = "rotate") -> dict[str, Tensor]:
    """The state_dict of which `read_rotation` makes `directions` (width, k), to float32 rounding.
    It holds a width x width matrix.

    `layer`: what the layer is called.
    """
    state = _Module(directions.cpu().float()).state_dict()
    return {
        f"{layer}.{name.partition('.')[2]}": tensor.detach().clone()
        for name, tensor in state.items()
    }


def read_rotation(state: Mapping[str, Tensor]) -> Tensor:
    """The matrix (width, k). Raises: RotationError where this is the state of none."""
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
