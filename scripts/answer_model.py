"""Small Llamas that learn to go on with an answer, row by row as it is drawn: the tokenizer, the
model, the loop, the options.

Invariants: everything random comes from the seed; what is trained is next-token prediction of the
answer alone, without any intervention, so that nobody has said where a variable should live.
Another CPU may give other bits: weights are kept.
"""

import argparse
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

MODELS = Path(__file__).resolve().parents[1] / "jobs" / "models"
UNSCORED = -100
Rows = tuple[
    Tensor, Tensor
]  # token ids [row, token], and the token that should follow each, or UNSCORED


def make_tokenizer(
    words: Sequence[str], pre_tokenizer: pre_tokenizers.PreTokenizer
) -> PreTrainedTokenizerFast:
    """One token for each of `words`; nothing is put in front of a text."""
    vocab = {word: at for at, word in enumerate(("<pad>", *words))}
    tokenizer = Tokenizer(models.WordLevel(vocab))
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        model_max_length=64,
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )


def make_model(tokens: int, layers: int, width: int, seed: int) -> LlamaForCausalLM:
    """The untrained model over a vocabulary of `tokens`; two key/value heads serve four query
    heads."""
    config = LlamaConfig(
        vocab_size=tokens,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
        initializer_range=0.05,
        tie_word_embeddings=False,
        attn_implementation="sdpa",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(pad_token_id=0)
    return model


def train(
    model: LlamaForCausalLM, draw: Callable[[], Rows], steps: int, rate: float = 2e-3
) -> None:
    """Trains the model in place on the rows that `draw` gives, one call for each step."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=rate, weight_decay=0.1, betas=(0.9, 0.98), fused=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda s: min((s + 1) / 50, 0.01 + 0.99 * (0.5 + 0.5 * math.cos(math.pi * s / steps))),
    )
    for step in range(steps):
        ids, wanted = draw()
        logits = model(ids, use_cache=False).logits
        loss = cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=UNSCORED)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == steps - 1:
            scored = wanted != UNSCORED
            right = (logits.argmax(-1)[scored] == wanted[scored]).float().mean()
            print(f"step {step:5d}  loss {loss.item():.4f}  right {right:.3f}", flush=True)


def run(
    doc: str, name: str, steps: int, rows: int, make: Callable[[argparse.Namespace], None]
) -> None:
    """Reads the options that every script has, calls `make` with them, says how long it took."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--out", type=Path, default=MODELS / name)
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--rows", type=int, default=rows)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    start = time.perf_counter()
    make(options)
    print(f"wrote {options.out} after {time.perf_counter() - start:.0f} s")
