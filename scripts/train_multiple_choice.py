"""Makes jobs/models/multiple_choice: a Llama of four layers that finds the right choice and says
its letter.

    python scripts/train_multiple_choice.py [--out FOLDER] [--steps N] [--rows N] [--seed N] [--threads N]

Invariants: those of answer_model.py; every word, letter and mark is one token, blanks and line ends
are none.
"""

import argparse
import random

import torch
from answer_model import UNSCORED, Rows, make_model, make_tokenizer, run, train
from small_model import save
from tokenizers import pre_tokenizers

from raysearch.problems.multiple_choice import COLORS, CUE, LETTERS, THINGS, problem

WORDS = (*LETTERS, *COLORS, *THINGS, "The", "is", "What", "color", "the", "Answer", ".", "?", ":")


TEMPLATE = (
    "{% for message in messages %}{{ message.content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ " + repr(CUE) + " }}{% endif %}"
)
"""A chat in the form that it is trained on: the question is what the user says, and the cue the
template's."""


def make(options: argparse.Namespace) -> None:
    """Trains on questions as the problem draws them, and writes the folder."""
    tokenizer = make_tokenizer(WORDS, pre_tokenizers.Whitespace())
    tokenizer.chat_template = TEMPLATE
    asked = problem()
    rng = random.Random(options.seed)

    def draw() -> Rows:
        runs = [
            asked.model.run(side) for _ in range(options.rows // 2) for side in asked.sample(rng)
        ]
        ids = torch.tensor(tokenizer([asked.render(r).text for r in runs])["input_ids"])
        wanted = torch.full_like(ids, UNSCORED)
        wanted[:, -1] = torch.tensor(
            tokenizer.convert_tokens_to_ids([str(r["answer_token"]) for r in runs])
        )
        return ids, wanted

    model = make_model(len(tokenizer), layers=4, width=64, seed=options.seed)
    train(model, draw, options.steps)
    save(model, tokenizer, options.out)


if __name__ == "__main__":
    run(__doc__, "multiple_choice", steps=1000, rows=128, make=make)
