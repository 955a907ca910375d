"""Trains the vision transformer of jobs/marked_symbol.yaml and writes
jobs/models/marked_symbol.safetensors.

    python scripts/train_marked_symbol.py

Images are drawn from the problem, 4,000 of them. Seeded: on one kind of machine and torch it makes
the same file. Under a minute on one core.
"""

import random
from pathlib import Path

import torch
from job_module import module_of
from safetensors.torch import save_file
from torch import Tensor, nn

JOBS = Path(__file__).parents[1] / "jobs"
STEPS, BATCH, RATE, IMAGES, HELD_BACK = 1500, 128, 1e-3, 4000, 1000


def drawn(count: int) -> tuple[Tensor, Tensor]:
    """(images, their classes)."""
    problems = module_of(JOBS / "problems" / "marked_symbol.py")
    problem, rng = problems.problem(), random.Random("marked_symbol.train")
    settings = [problem.model.run(problem.sample(rng)[0]) for _ in range(count)]
    return torch.tensor([[problems.pixels(s)] for s in settings]), torch.tensor(
        [s["marked"] for s in settings]
    )


def main() -> None:
    torch.manual_seed(0)
    models = module_of(JOBS / "models" / "marked_symbol.py")
    model: nn.Module = models.untrained()
    images, classes = drawn(IMAGES + HELD_BACK)
    optimizer = torch.optim.AdamW(model.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, STEPS)
    for step in range(1, STEPS + 1):
        chosen = torch.randint(IMAGES, (BATCH,))
        loss = nn.functional.cross_entropy(model(images[chosen]).logits, classes[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 250 == 0:
            print(f"step {step}: loss {loss.item():.4f}")
    model.eval()
    with torch.no_grad():
        right = (model(images[IMAGES:]).logits.argmax(1) == classes[IMAGES:]).float().mean()
    save_file(model.state_dict(), models.WEIGHTS)
    print(
        f"right on {right:.4f} of {HELD_BACK} images that it was not trained on; {models.WEIGHTS}"
    )


if __name__ == "__main__":
    main()
