"""What a run on a network of one's own found is exported with its tensors, and applied to tensors."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import raysearch as rs
from raysearch.engine.patching.subspace_operations import draw_featurizer

CLASSES = 3


class Stages(nn.Module):
    """Says which of three numbers is the largest, by two stages without layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.last = nn.Linear(4, 6, bias=False), nn.Linear(6, CLASSES, bias=False)
        for layer in (self.embed, self.last):
            layer.weight = nn.Parameter(torch.eye(*layer.weight.shape))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.last(self.embed(x))
        return answer


def draw(rng: Any) -> dict[str, int]:
    return {"x": rng.randrange(CLASSES), "n": rng.randrange(4096)}


PROBLEM = rs.Problem(
    "largest",
    rs.CausalModel(
        variables=(
            rs.Variable("x", tuple(range(CLASSES))),
            rs.Variable("n", tuple(range(4096))),
            rs.Variable("same", tuple(range(CLASSES))),
        ),
        parents={"same": ("x",)},
        mechanisms={"same": lambda x: x},
        output="same",
    ),
    lambda rng: (draw(rng), draw(rng)),
    lambda v: rs.Input(
        stimulus=[*(float(v["x"] == i) for i in range(CLASSES)), v["n"] / 4096], values=v
    ),
    str,
    (),
)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., rs.Run]:
    """Searches the network, as it is in memory, in a space."""

    def search(**space: Any) -> rs.Run:
        return rs.run(
            problem=PROBLEM,
            model=Stages(),
            space={"variables": ["x"], **space},
            pairs={"test": 40, "holdout": 0},
            store=tmp_path_factory.mktemp("runs"),
            quiet=True,
        )

    return search


def test_a_random_subspace_of_a_network_of_ones_own_is_exported_as_it_was_drawn(
    searched: Callable[..., rs.Run], tmp_path: Path
) -> None:
    run = searched(components=["embed"], subspaces=[{"random": [2]}])
    (hypothesis,) = run.results()["hypothesis"]
    (folder,) = run.export(hypothesis, tmp_path / "it")
    saved = rs.load_intervention(folder)
    drawn = draw_featurizer(saved.intervention, saved.intervention.units[0], 6)
    assert torch.equal(saved.tensors["directions"], drawn.tensors()["directions"])
    assert int(saved.tensors["width"]) == 6
