"""Two networks that solve raysearch.problems.hierarchical_equality: one with weights written by
hand, one that was trained.

Both are blocks of a linear map and a ReLU (`layers`), then a linear map to the two classes. A
layer's residual is what its ReLU puts out.
"""

from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from raysearch.problems.hierarchical_equality import NEAREST

WEIGHTS = Path(__file__).with_name("hierarchical_equality.safetensors")
DIMENSIONS, WIDTH, LAYERS = 4, 16, 3
"""Of the trained network: of a symbol's vector, of each layer, and how many layers."""


class Mlp(nn.Module):
    """(row, number) to the logits of the classes "0" and "1"."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        steps = pairwise(widths)
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in steps)
        self.score = nn.Linear(widths[-1], 2)

    def forward(self, numbers: Tensor) -> Tensor:
        for layer in self.layers:
            numbers = layer(numbers)
        return self.score(numbers)


def trained() -> nn.Module:
    """Three layers of 16, trained by scripts/train_hierarchical_equality.py on vectors of 4
    dimensions."""
    model = Mlp((4 * DIMENSIONS, *[WIDTH] * LAYERS))
    model.load_state_dict(load_file(WEIGHTS))
    return model


@torch.no_grad()
def handcrafted() -> nn.Module:
    """Weights written by hand, for vectors of 2 dimensions.

    - layer 0: neurons 0-3 are all 0 where w = x, neurons 4-7 where y = z: ReLU of the differences
      of the two coordinates and of their opposites, so that their sum is how far the two vectors
      are apart: 0, or at least NEAREST.
    - layer 1: neurons 0 and 1 are c·sum and c·sum - 1 of neurons 0-3, with c·NEAREST > 1: their
      difference is 0 where w = x, else 1. Neurons 2 and 3 are the same of neurons 4-7.
    - layer 2: how many of the two comparisons are false, n, and n - 1.
    - the answer: n - 2·ReLU(n - 1) is 1 where exactly one is false, that is where the comparisons
      do not agree.
    """
    model = Mlp((8, 8, 4, 2))
    apart, told, counted = (layer[0] for layer in model.layers)
    for part in model.parameters():
        part.zero_()
    for side in (0, 1):
        for coordinate in (0, 1):
            for sign, neuron in (
                (1, 4 * side + 2 * coordinate),
                (-1, 4 * side + 2 * coordinate + 1),
            ):
                apart.weight[neuron, 4 * side + coordinate] = sign
                apart.weight[neuron, 4 * side + 2 + coordinate] = -sign
        told.weight[2 * side : 2 * side + 2, 4 * side : 4 * side + 4] = 2 / NEAREST
        told.bias[2 * side + 1] = -1
    counted.weight[:] = torch.tensor([[1.0, -1, 1, -1], [1, -1, 1, -1]])
    counted.bias[:] = torch.tensor([0.0, -1])
    model.score.weight[:] = torch.tensor([[1.0, -2], [-1, 2]])
    model.score.bias[:] = torch.tensor([0.0, 1])
    return model
