"""Makes jobs/models/price_tagging: a Llama of four layers that says whether a price lies between
two bounds, by two boundary variables.

    python scripts/train_price_tagging.py [--to FOLDER] [--steps N] [--rows N] [--seed N] [--plain]

It is trained to have them, by interchange intervention training (price_swaps.py): beside the
answers, it learns what the causal model says after swaps of `lower_bound_ok` and `upper_bound_ok`
in four directions each of the residual after layer 1 at the price. --plain trains on the answers
alone: that network solves the problem as well, was searched, and held neither variable anywhere.

Invariants: nine of ten texts are trained on; prices below, between and above the bounds are drawn
equally often, as the problem draws them; one thread, so that equal seeds give equal weights.
"""

import argparse
import re
from collections import Counter
from itertools import combinations
from pathlib import Path

import torch
from price_swaps import Priced, SwapLoss, directions
from safetensors.torch import save_file
from small_model import (
    answers_alone,
    is_held_out,
    rate,
    read,
    save,
    small_llama,
    train,
    word_tokenizer,
)
from transformers import PreTrainedTokenizerFast

import raysearch as rs
from raysearch.problems.price_tagging import HIGHEST, STEP, dollars, problem, state_of

FOLDER = Path(__file__).resolve().parents[1] / "jobs" / "models" / "price_tagging"
PRICES = range(0, HIGHEST + 1, STEP)
WORD = r" ?[A-Za-z]+| ?[0-9]+\.[0-9]{2}|[,.:]"


def tokenizer() -> PreTrainedTokenizerFast:
    """Every word of the texts, with the blank before it, every price of the problem, " yes" and "
    no" are one token each."""
    shown = problem().render({"lower": 0, "upper": STEP, "price": 0}).text + " yes"
    words = [word for word in re.findall(WORD, shown) if not word[-1].isdigit()]
    return word_tokenizer(
        WORD, [*dict.fromkeys(words), *(f" {dollars(price)}" for price in PRICES)]
    )


def settings() -> list[rs.Setting]:
    """Every price with every two bounds."""
    run = problem().model.run
    return [
        run({"lower": low, "upper": up, "price": p})
        for low, up in combinations(PRICES, 2)
        for p in PRICES
    ]


def priced(words: PreTrainedTokenizerFast, held_out: bool) -> Priced:
    """All texts that are held out, or all others; below, between and above weigh the same."""
    asked = problem()
    shown = [(s, asked.render(s).text) for s in settings()]
    chosen = [(s, text) for s, text in shown if is_held_out(text) == held_out]
    counts = Counter(state_of(s) for s, _ in chosen)
    weights = [1 / counts[state_of(s)] for s, _ in chosen]
    texts = read(
        words, [text for _, text in chosen], [asked.answer(s["answer"]) for s, _ in chosen], weights
    )
    cents = [[s[name] for name in ("lower", "upper", "price")] for s, _ in chosen]
    answers = words.convert_tokens_to_ids([asked.answer(said) for said in (False, True)])
    return Priced(texts, torch.tensor(cents), torch.tensor(answers))


def main() -> None:
    """Trains, says how well it went, and writes the folder; the directions of each variable as
    planted.safetensors."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--to", type=Path, default=FOLDER)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--plain", action="store_true", help="on the answers alone: nothing is planted"
    )
    options = parser.parse_args()
    if options.plain and options.to.resolve() == FOLDER:
        parser.error("--plain needs a folder of its own: --to FOLDER")
    torch.set_num_threads(1)
    words = tokenizer()
    learned, tested = priced(words, held_out=False), priced(words, held_out=True)
    model, planted = small_llama(words, options.seed), directions(options.seed)
    swaps = SwapLoss(learned, planted)
    loss_of = answers_alone if options.plain else swaps
    train(model, learned.texts, tested.texts, options.steps, options.rows, options.seed, loss_of)
    model.eval()
    for name, found in (("trained", learned.texts), ("held out", tested.texts)):
        print(f"right: {rate(model, found):.4f} of {len(found.ids)} {name}")
    save(model, words, options.to)
    if not options.plain:
        for swap, (changed, kept) in swaps.rates(model, tested, 2000, options.seed).items():
            print(
                f"right after a swap of {swap}: {changed:.3f} where the answer changes, {kept:.3f} "
                f"where not"
            )
        save_file(planted, options.to / "planted.safetensors")
        (options.to / "planted.safetensors").chmod(0o644)  # safetensors writes for the owner alone
    print(f"wrote {options.to}")


if __name__ == "__main__":
    main()
