"""Makes jobs/models/two_digit_addition: a Llama of four layers that adds two numbers from 10 to 49,
digit by digit.

    python scripts/train_two_digit_addition.py [--out FOLDER] [--steps N] [--rows N] [--seed N] [--threads N]

Invariants: those of answer_model.py; every character is one token.
"""

import argparse

import torch
from answer_model import UNSCORED, Rows, make_model, make_tokenizer, run, train
from small_model import save
from tokenizers import Regex, pre_tokenizers

EQUALS = 5  # the index of "=" in "47+35=82"; the two digits after it are scored


def make(options: argparse.Namespace) -> None:
    """Trains on all sums, drawn uniformly, and writes the folder."""
    tokenizer = make_tokenizer(
        "0123456789+=", pre_tokenizers.Split(Regex("."), behavior="isolated")
    )
    texts = [f"{a}+{b}={a + b}" for a in range(10, 50) for b in range(10, 50)]
    sums = torch.tensor(tokenizer(texts)["input_ids"])
    generator = torch.Generator().manual_seed(options.seed)

    def draw() -> Rows:
        ids = sums[torch.randint(len(sums), (options.rows,), generator=generator)]
        wanted = ids[:, 1:].clone()
        wanted[:, :EQUALS] = UNSCORED
        return ids[:, :-1], wanted

    model = make_model(len(tokenizer), layers=4, width=64, seed=options.seed)
    train(model, draw, options.steps)
    save(model, tokenizer, options.out)


if __name__ == "__main__":
    run(__doc__, "two_digit_addition", steps=2000, rows=256, make=make)
