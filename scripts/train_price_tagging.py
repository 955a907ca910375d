"""Makes jobs/models/price_tagging: a Llama of four layers that says whether a price lies between two bounds.

    python scripts/train_price_tagging.py [--to FOLDER] [--steps N] [--rows N] [--seed N]

Invariants: trained on answers alone (nothing is planted), on nine of ten texts; prices below, between and above the bounds
are drawn equally often, as the problem draws them; one thread, so that equal seeds give equal weights.
"""

import argparse
import re
from collections import Counter
from itertools import combinations
from pathlib import Path

import torch
from small_model import Examples, is_held_out, rate, read, save, small_llama, train, word_tokenizer
from transformers import PreTrainedTokenizerFast

from raysearch.causal import Setting
from raysearch.problems.price_tagging import HIGHEST, STEP, dollars, problem, state_of

FOLDER = Path(__file__).resolve().parents[1] / "jobs" / "models" / "price_tagging"
PRICES = range(0, HIGHEST + 1, STEP)
WORD = r" ?[A-Za-z]+| ?[0-9]+\.[0-9]{2}|[,.:]"


def tokenizer() -> PreTrainedTokenizerFast:
    """Every word of the texts, with the blank before it, every price of the problem, " yes" and " no" are one token each."""
    shown = problem().render({"lower": 0, "upper": STEP, "price": 0}).text + " yes"
    words = [word for word in re.findall(WORD, shown) if not word[-1].isdigit()]
    return word_tokenizer(WORD, [*dict.fromkeys(words), *(f" {dollars(price)}" for price in PRICES)])


def settings() -> list[Setting]:
    """Every price with every two bounds."""
    run = problem().model.run
    return [run({"lower": low, "upper": up, "price": p}) for low, up in combinations(PRICES, 2) for p in PRICES]


def examples(words: PreTrainedTokenizerFast, held_out: bool) -> Examples:
    """All texts that are held out, or all others; below, between and above weigh the same."""
    asked = problem()
    shown = [(s, asked.render(s).text) for s in settings()]
    chosen = [(s, text) for s, text in shown if is_held_out(text) == held_out]
    counts = Counter(state_of(s) for s, _ in chosen)
    weights = [1 / counts[state_of(s)] for s, _ in chosen]
    return read(words, [text for _, text in chosen], [asked.answer(s["answer"]) for s, _ in chosen], weights)


def main() -> None:
    """Trains, says how well it went, and writes the folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--to", type=Path, default=FOLDER)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    words = tokenizer()
    learned, tested = examples(words, held_out=False), examples(words, held_out=True)
    model = small_llama(words, options.seed)
    train(model, learned, tested, options.steps, options.rows, options.seed)
    model.eval()
    print(
        f"right: {rate(model, learned):.4f} of {len(learned.ids)} trained, {rate(model, tested):.4f} of {len(tested.ids)} held out"
    )
    save(model, words, options.to)
    print(f"wrote {options.to}")


if __name__ == "__main__":
    main()
