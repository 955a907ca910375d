"""A GRU that says the sum of the digits that it was given, modulo 3; trained by
scripts/train_running_sum.py."""

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, nn

WEIGHTS = Path(__file__).with_name("running_sum.safetensors")


class RunningSum(nn.Module):
    """(row, step, digit as one of three) to the logits of the three sums, after the last step."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.gru = nn.GRU(3, width, batch_first=True)
        self.score = nn.Linear(width, 3)

    def forward(self, digits: Tensor) -> Tensor:
        states, _ = self.gru(digits)
        return self.score(states[:, -1])


def trained() -> nn.Module:
    """The network of jobs/running_sum.yaml."""
    model = RunningSum()
    model.load_state_dict(load_file(WEIGHTS))
    return model
