"""Trains the network of jobs/hierarchical_equality.yaml and writes
jobs/models/hierarchical_equality.safetensors.

    python scripts/train_hierarchical_equality.py

Its rows are of vectors that are drawn anew each time, so that it has to compare and cannot learn
symbols by heart; weight decay keeps the comparison small. Without it the network is as often right,
and no 8 directions of its first layer carry a comparison on its own. Seeded: on one kind of machine
and torch it makes the same file. About a minute on two cores.
"""

import random
import time
from pathlib import Path

import torch
from job_module import module_of
from safetensors.torch import save_file
from torch import Tensor, nn

from raysearch.problems.hierarchical_equality import INPUTS, problem, vectors

MODELS = Path(__file__).parents[1] / "jobs" / "models" / "hierarchical_equality.py"
STEPS, BATCH, RATE, DECAY, SYMBOLS = 10_000, 1024, 3e-3, 0.5, 20


def fresh(dimensions: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(new random vectors of each row, its class): both comparisons are true half of the time."""
    given = torch.rand(BATCH, 4, dimensions, generator=generator) * 2 - 1
    left, right = torch.rand(2, BATCH, generator=generator) < 0.5
    given[left, 1] = given[left, 0]
    given[right, 3] = given[right, 2]
    return given.flatten(1), (left == right).long()


def asked(count: int) -> tuple[Tensor, Tensor]:
    """(rows of the problem itself, their classes)."""
    here, rng = problem(SYMBOLS), random.Random("hierarchical_equality.asked")
    settings = [here.sample(rng)[0] for _ in range(count)]
    symbols = torch.tensor([[setting[name] for name in INPUTS] for setting in settings])
    left, right = symbols[:, 0] == symbols[:, 1], symbols[:, 2] == symbols[:, 3]
    return torch.tensor(vectors(SYMBOLS, 4))[symbols].flatten(1), (left == right).long()


def main() -> None:
    began = time.monotonic()
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    models = module_of(MODELS)
    model: nn.Module = models.Mlp((4 * models.DIMENSIONS, *[models.WIDTH] * models.LAYERS))
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, STEPS)
    for step in range(1, STEPS + 1):
        numbers, classes = fresh(models.DIMENSIONS, generator)
        loss = nn.functional.cross_entropy(model(numbers), classes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 1000 == 0:
            print(f"step {step}: loss {loss.item():.4f}")
    numbers, classes = asked(20_000)
    with torch.no_grad():
        right = (model(numbers).argmax(1) == classes).float().mean()
    save_file(model.state_dict(), models.WEIGHTS)
    print(
        f"right on {right:.4f} of 20,000 rows of the problem; {time.monotonic() - began:.0f} s; "
        f"{models.WEIGHTS}"
    )


if __name__ == "__main__":
    main()
