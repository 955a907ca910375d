"""What the scripts of jobs/models share: a tokenizer of whole words, a small Llama, its training,
the folder that is written.

Invariants: everything random comes from the seed; a text that `is_held_out` is never trained on;
the same seed gives the same weights to the bit on one kind of CPU with one torch, which is why the
weights are kept in the repository.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils.logging import disable_progress_bar

PAD = "<pad>"
WARMUP = 100
HELD_OUT = 0.1
"""The share of all texts that no model is trained on."""


@dataclass(frozen=True)
class Examples:
    """Texts of equal token counts as ids [text, token], the id of each answer [text], how often
    each is drawn [text]."""

    ids: Tensor
    answers: Tensor
    weights: Tensor


def is_held_out(text: str) -> bool:
    """Whether a text is for testing alone: by a hash of it, so that nobody needs a list."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") < HELD_OUT * 2**64


def word_tokenizer(pattern: str, words: Sequence[str]) -> PreTrainedTokenizerFast:
    """Each of `words` is one token, with its place in the list as its id; `pattern` (a regex) cuts
    a text into words."""
    vocab = {word: i for i, word in enumerate((*words, PAD))}
    tokenizer = Tokenizer(models.WordLevel(vocab))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        model_max_length=32,
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )


def small_llama(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """The untrained model: four layers, width 64, four heads."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=32,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=None,
        initializer_range=0.05,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def read(
    tokenizer: PreTrainedTokenizerFast,
    texts: Sequence[str],
    answers: Sequence[str],
    weights: Sequence[float],
) -> Examples:
    """The texts as a model sees them. Each answer is the first token after the text's own."""
    ids = tokenizer(list(texts))["input_ids"]
    joined = tokenizer([text + answer for text, answer in zip(texts, answers, strict=True)])[
        "input_ids"
    ]
    assert all(whole[: len(own)] == own for own, whole in zip(ids, joined, strict=True))
    said = [whole[len(own)] for own, whole in zip(ids, joined, strict=True)]
    return Examples(
        torch.tensor(ids), torch.tensor(said), torch.tensor(weights, dtype=torch.float64)
    )


@torch.no_grad()
def rate(model: PreTrainedModel, examples: Examples) -> float:
    """The share of the texts, by their weights, that the model answers rightly."""
    right = torch.cat(
        [
            model(ids, use_cache=False).logits[:, -1].argmax(1) == answers
            for ids, answers in zip(
                examples.ids.split(1000), examples.answers.split(1000), strict=True
            )
        ]
    )
    return float(examples.weights[right].sum() / examples.weights.sum())


def answers_alone(
    model: LlamaForCausalLM, examples: Examples, rows: int, generator: torch.Generator
) -> Tensor:
    """The cross entropy of the answers to so many drawn texts."""
    drawn = draw(examples, rows, generator)
    logits = model(examples.ids[drawn], use_cache=False, logits_to_keep=1).logits[:, -1]
    return cross_entropy(logits, examples.answers[drawn])


def draw(examples: Examples, rows: int, generator: torch.Generator) -> Tensor:
    """The places of so many texts, drawn by their weights, [row]."""
    return torch.multinomial(examples.weights, rows, replacement=True, generator=generator)


def train(
    model: LlamaForCausalLM,
    examples: Examples,
    tested: Examples,
    steps: int,
    rows: int,
    seed: int,
    loss_of: Callable[[LlamaForCausalLM, Examples, int, torch.Generator], Tensor] = answers_alone,
) -> None:
    """Trains the model in place, on the answers alone or by another loss; `tested` is looked at,
    never learned from."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=3e-3, weight_decay=0.1, betas=(0.9, 0.98), fused=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda s: min((s + 1) / WARMUP, 0.01 + 0.99 * (0.5 + 0.5 * math.cos(math.pi * s / steps))),
    )
    start = time.perf_counter()
    for step in range(1, steps + 1):
        loss = loss_of(model, examples, rows, generator)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 200 == 0 or step == steps:
            shown = f"step {step:5d}  loss {loss.item():.4f}  right on held-out texts {rate(model, tested):.4f}"
            print(f"{shown}  {time.perf_counter() - start:.0f} s", flush=True)


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Writes weights, config and tokenizer to `folder`, which transformers' Auto classes load."""
    disable_progress_bar()
    model.generation_config = GenerationConfig(pad_token_id=tokenizer.pad_token_id)
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    written = folder / "tokenizer_config.json"
    config = json.loads(written.read_text()) | {
        "tokenizer_class": "PreTrainedTokenizerFast"
    }  # known to 4.x and 5.x
    written.write_text(json.dumps(config, indent=2) + "\n")
    (folder / "model.safetensors").chmod(0o644)  # safetensors writes for the owner alone
