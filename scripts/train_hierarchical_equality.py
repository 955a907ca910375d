"""Trains the network of jobs/hierarchical_equality.yaml and writes jobs/models/hierarchical_equality.safetensors.

    python scripts/train_hierarchical_equality.py

Seeded: on one kind of machine and torch it makes the same file. About a minute on two cores.
"""

import random
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from raysearch.causal import Setting
from raysearch.problems.hierarchical_equality import INPUTS, problem, vectors
from raysearch.user_code import module_of

MODELS = Path(__file__).parents[1] / "jobs" / "models" / "hierarchical_equality.py"
SYMBOLS, STEPS, BATCH, RATE = 20, 6000, 1024, 3e-3


def batch(rng: random.Random, count: int) -> tuple[Tensor, Tensor]:
    """(the vectors of each row, its class), as the problem samples them."""
    asked = problem(SYMBOLS)
    of = torch.tensor(vectors(SYMBOLS, 4))
    settings: list[Setting] = [asked.sample(rng)[0] for _ in range(count)]
    symbols = torch.tensor([[s[name] for name in INPUTS] for s in settings])
    left, right = symbols[:, 0] == symbols[:, 1], symbols[:, 2] == symbols[:, 3]
    return of[symbols].flatten(1), (left == right).long()


def main() -> None:
    began = time.monotonic()
    torch.manual_seed(0)
    models = module_of(str(MODELS), "models", "the file of jobs/models")
    model: nn.Module = models.Mlp((4 * models.DIMENSIONS, *[models.WIDTH] * models.LAYERS))
    rng = random.Random("hierarchical_equality.training")
    numbers, classes = batch(rng, 200_000)
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, STEPS)
    for step in range(STEPS):
        chosen = torch.randint(len(numbers), (BATCH,), generator=generator)
        loss = nn.functional.cross_entropy(model(numbers[chosen]), classes[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 1000 == 0:
            print(f"step {step}: loss {loss.item():.4f}")
    numbers, classes = batch(random.Random("hierarchical_equality.held out"), 20_000)
    with torch.no_grad():
        right = (model(numbers).argmax(1) == classes).float().mean()
    save_file(model.state_dict(), models.WEIGHTS)
    print(
        f"right on {right:.4f} of 20,000 rows that it was not trained on; {time.monotonic() - began:.0f} s; {models.WEIGHTS}"
    )


if __name__ == "__main__":
    main()
