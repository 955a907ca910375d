"""Makes jobs/models/entity_tracking: a Llama of three layers that says which thing is in which box.

    python scripts/train_entity_tracking.py [--out FOLDER] [--steps N] [--rows N] [--seed N] [--threads N]

Invariants: those of answer_model.py; every word, letter and mark is one token, blanks are none.
"""

import argparse
import random
from pathlib import Path
from typing import Any

import torch
from answer_model import UNSCORED, Rows, make_model, make_tokenizer, run, train
from job_module import module_of
from small_model import save
from tokenizers import pre_tokenizers

PROBLEM = Path(__file__).parents[1] / "jobs" / "problems" / "entity_tracking.py"


def make(options: argparse.Namespace) -> None:
    """Trains on texts as the problem draws them, asked for more than one box in turn, and writes
    the folder."""
    asked = module_of(PROBLEM)
    words = (*asked.LETTERS, *asked.THINGS, *asked.ADJECTIVES, ".")
    tokenizer = make_tokenizer(words, pre_tokenizers.Whitespace())
    problem, rng = asked.problem(), random.Random(options.seed)

    def draw() -> Rows:
        texts, wanted = [], []
        for _ in range(options.rows):
            r = problem.model.run(problem.sample(rng)[0])
            ids = tokenizer(problem.render(r).text)["input_ids"]
            said = [UNSCORED] * (len(ids) - 1) + [noun(r, r["asked"])]
            for letter in rng.sample(
                r["boxes"], len(r["boxes"])
            ):  # and then for each of them, in any order
                ids += [said[-1], *tokenizer(f" . {letter}")["input_ids"]]
                said += [UNSCORED] * 2 + [noun(r, letter)]
            texts.append(ids)
            wanted.append(said)
        longest = max(map(len, texts))
        filled = torch.tensor([row + [0] * (longest - len(row)) for row in texts])
        return filled, torch.tensor([row + [UNSCORED] * (longest - len(row)) for row in wanted])

    def noun(r: dict[str, Any], letter: str) -> int:
        thing: str = r["things"][r["boxes"].index(letter)]
        return int(tokenizer.convert_tokens_to_ids(thing.split(" ")[0]))

    model = make_model(len(tokenizer), layers=3, width=64, seed=options.seed)
    train(model, draw, options.steps)
    save(model, tokenizer, options.out)


if __name__ == "__main__":
    run(__doc__, "entity_tracking", steps=600, rows=64, make=make)
