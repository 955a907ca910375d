"""What the tests of the ready problems share: the real tokenizer, the folder of trained models, one
prompt's answer."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from raysearch import Pair

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROOT = Path(__file__).resolve().parents[2]
SMOLLM2 = ROOT / "models" / "SmolLM2-135M-Instruct"
TRAINED = ROOT / "jobs" / "models"
ROWS = 16
"""Of a batch."""

needs_smollm2 = pytest.mark.skipif(
    not SMOLLM2.is_dir(), reason=f"no {SMOLLM2}; python scripts/fetch_smollm2.py makes it"
)


def check_words(pairs: Sequence[Pair], positions: Sequence[str]) -> None:
    """Every position of every text cuts out a word, and no blank beside it."""
    for pair in pairs:
        for shown in (pair.base, pair.sources["source"]):
            for name in positions:
                start, end = shown.spans[name]
                word = shown.text[start:end]
                assert word == word.strip(), (name, shown.text)
                assert not shown.text[start - 1 : start].isalpha(), (name, shown.text)
                assert not shown.text[end : end + 1].isalpha(), (name, shown.text)


def check_splits(pairs: Sequence[Pair]) -> None:
    """No base and source stand in two splits."""
    splits: dict[tuple[str, str], str] = {}
    for pair in pairs:
        assert (
            splits.setdefault((pair.base.text, pair.sources["source"].text), pair.split)
            == pair.split
        )


def changed(pairs: Sequence[Pair], variable: str) -> float:
    """The share of pairs on which the counterfactual of `variable` is not the base's answer."""
    return sum(p.counterfactual[variable] != p.answers["base"] for p in pairs) / len(pairs)


def solved(folder: Path, pairs: Sequence[Pair]) -> float:
    """The share of pairs whose base and source the model answers rightly, by the first token of
    each answer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder)
        sides = [
            ((p.base, p.answers["base"]), (p.sources["source"], p.answers["source"])) for p in pairs
        ]
        said = _said(model, tokenizer, {shown.text for both in sides for shown, _ in both})
        right = sum(
            all(
                said[shown.text] == answer_ids(tokenizer, shown.text, answer)[0]
                for shown, answer in both
            )
            for both in sides
        )
    finally:
        torch.set_num_threads(threads)
    return right / len(pairs)


def answer_ids(tokenizer: "PreTrainedTokenizerBase", text: str, answer: str) -> list[int]:
    """The tokens that `answer` adds to those of `text`, which it leaves as they are."""
    alone, joined = tokenizer(text)["input_ids"], tokenizer(text + answer)["input_ids"]
    assert joined[: len(alone)] == alone, (text, answer)
    return list(joined[len(alone) :])


def _said(model, tokenizer, texts: Collection[str]) -> dict[str, int]:  # type: ignore[no-untyped-def]
    """The most likely next token of each text. Texts of as many tokens go through the model
    together, without padding."""
    import torch

    by_length: dict[int, list[tuple[str, list[int]]]] = {}
    for text in sorted(texts):
        ids = tokenizer(text)["input_ids"]
        by_length.setdefault(len(ids), []).append((text, ids))
    said: dict[str, int] = {}
    for alike in by_length.values():
        for batch in (alike[i : i + ROWS] for i in range(0, len(alike), ROWS)):
            with torch.no_grad():
                logits = model(torch.tensor([ids for _, ids in batch]), logits_to_keep=1).logits[
                    :, -1
                ]
            said.update(zip((text for text, _ in batch), logits.argmax(1).tolist(), strict=True))
    return said
