"""Makes jobs/models/add_three: a Llama of four layers that adds three numbers from 0 to 9; where it
keeps what is its own affair.

    python scripts/train_add_three.py [--to FOLDER] [--steps N] [--rows N] [--seed N]

Invariants: trained on answers alone (nothing is planted), on nine of ten sums; one thread, so that
equal seeds give equal weights.
"""

import argparse
from itertools import product
from pathlib import Path

import torch
from small_model import Examples, is_held_out, rate, read, save, small_llama, train, word_tokenizer
from transformers import PreTrainedTokenizerFast

from raysearch.problems.add_three import problem

FOLDER = Path(__file__).resolve().parents[1] / "jobs" / "models" / "add_three"
HIGHEST = 9


def tokenizer() -> PreTrainedTokenizerFast:
    """Whole numbers 0 to 27, "+" and "=" as one token each; the id of a number is the number
    itself."""
    return word_tokenizer("[0-9]+|[+=]", [*(str(n) for n in range(3 * HIGHEST + 1)), "+", "="])


def examples(words: PreTrainedTokenizerFast, held_out: bool) -> Examples:
    """All sums that are held out, or all others."""
    asked = problem(HIGHEST)
    settings = [
        asked.model.run(dict(zip("abc", n, strict=True)))
        for n in product(range(HIGHEST + 1), repeat=3)
    ]
    chosen = [s for s in settings if is_held_out(asked.render(s).text) == held_out]
    texts = [asked.render(s).text for s in chosen]
    return read(words, texts, [asked.answer(s["total"]) for s in chosen], [1.0] * len(chosen))


def main() -> None:
    """Trains, says how well it went, and writes the folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--to", type=Path, default=FOLDER)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    words = tokenizer()
    learned, tested = examples(words, held_out=False), examples(words, held_out=True)
    model = small_llama(words, options.seed)
    train(model, learned, tested, options.steps, options.rows, options.seed)
    model.eval()
    print(
        f"right: {rate(model, learned):.4f} of {len(learned.ids)} trained, "
        f"{rate(model, tested):.4f} of {len(tested.ids)} held out"
    )
    save(model, words, options.to)
    print(f"wrote {options.to}")


if __name__ == "__main__":
    main()
