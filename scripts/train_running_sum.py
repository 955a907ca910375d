"""Trains the GRU of jobs/running_sum.yaml and writes jobs/models/running_sum.safetensors.

    python scripts/train_running_sum.py

On all 729 rows of six digits, and on all that they begin with: the answer of a row of any length.
(On rows of six digits alone it learns nothing.) Seeded: on one kind of machine and torch it makes
the same file. Ten seconds on one core.
"""

import itertools
from pathlib import Path

import torch
from job_module import module_of
from safetensors.torch import save_file
from torch import nn

MODELS = Path(__file__).parents[1] / "jobs" / "models" / "running_sum.py"
STEPS, RATE, DIGITS = 1500, 1e-2, 6


def main() -> None:
    torch.manual_seed(0)
    models = module_of(MODELS)
    model = models.RunningSum()
    digits = torch.tensor(list(itertools.product(range(3), repeat=DIGITS)))
    rows, sums = nn.functional.one_hot(digits, 3).float(), digits.cumsum(1) % 3
    optimizer = torch.optim.Adam(model.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for step in range(1, STEPS + 1):
        states, _ = model.gru(rows)
        loss = nn.functional.cross_entropy(model.score(states).flatten(0, 1), sums.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            right = (model(rows).argmax(1) == sums[:, -1]).float().mean()
            print(f"step {step}: loss {loss.item():.4f}, right on {right:.4f} of {len(rows)} rows")
    save_file(model.state_dict(), models.WEIGHTS)
    print(models.WEIGHTS)


if __name__ == "__main__":
    main()
