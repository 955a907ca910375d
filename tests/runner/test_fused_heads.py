"""A search over heads of a fused projection says what plain hooks say: one value head decides the
answer, no query and no key does.

After a false accept: key head 0 of a GPT-BigCode whose columns were read in the order of GPT-2.
"""

import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    CodeGenConfig,
    FalconConfig,
    GPTBigCodeConfig,
    GPTNeoXConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

import raysearch as rs

HEADS, WIDTH, WORDS, PAIRS = 4, 8, 60, 24
GPT = {
    "vocab_size": WORDS + 1, "n_embd": HEADS * WIDTH, "n_layer": 1, "n_head": HEADS, "n_positions": 16, "bos_token_id": None,
    "eos_token_id": None,
}  # fmt: skip
BERT = {"vocab_size": WORDS + 1, "hidden_size": HEADS * WIDTH, "num_hidden_layers": 1, "num_attention_heads": HEADS,
        "bos_token_id": None, "eos_token_id": None}  # fmt: skip

Columns = Callable[[int, int], int]
"""Of a part (0 query, 1 key, 2 value) and a head, where its columns begin."""


def by_head(part: int, head: int) -> int:
    return WIDTH * (3 * head + part)


def by_block(part: int, head: int) -> int:
    """CodeGen with four heads: in each of its four blocks a query, a value, a key."""
    return WIDTH * (3 * head + (0, 2, 1)[part])


FAMILIES = {
    "bigcode": (lambda: GPTBigCodeConfig(**GPT, multi_query=False), "attn.c_attn", "attn.c_proj", "mlp.c_proj", by_head),
    "neox": (lambda: GPTNeoXConfig(**BERT), "attention.query_key_value", "attention.dense", "mlp.dense_4h_to_h", by_head),
    "falcon": (lambda: FalconConfig(**BERT, multi_query=False, parallel_attn=False), "self_attention.query_key_value",
               "self_attention.dense", "mlp.dense_4h_to_h", by_head),
    "codegen": (lambda: CodeGenConfig(**GPT, rotary_dim=4), "attn.qkv_proj", "attn.out_proj", "mlp.fc_out", by_block),
}  # fmt: skip


@pytest.mark.slow_unless(family=["neox"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_search_over_heads_says_what_plain_hooks_say(family: str, tmp_path: Path) -> None:
    config, fused, output, mlp, columns = FAMILIES[family]
    decisive = 2
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config()).eval()
    block = model.get_submodule("gpt_neox.layers.0" if family == "neox" else "transformer.h.0")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0 if parameter.dim() > 1 else 1.0)
        mix = block.get_submodule(output).weight.mul_(300.0)
        mix[:, [c for c in range(HEADS * WIDTH) if c // WIDTH != decisive]] *= 0.001
        block.get_submodule(mlp).weight.zero_()
    pairs = drawn(model)
    written(tmp_path, model, pairs)
    run = rs.run(tmp_path / "job.yaml", store=tmp_path / "runs", quiet=True)
    said = {(row.component, row.head): row for row in run.results().itertuples()}
    for part, name in enumerate(("query", "key", "value")):
        for head in range(HEADS):
            start = columns(part, head)
            iia = by_plain_hooks(
                model, block.get_submodule(fused), slice(start, start + WIDTH), pairs
            )
            assert iia == (1.0 if (name, head) == ("value", decisive) else 0.0)
            assert said[name, head].iia == iia
            assert said[name, head].verdict == ("accept" if iia else "reject")


def drawn(model: PreTrainedModel) -> list[tuple[int, int]]:
    """Bases and sources, of one token each, of different answers."""
    rng, pairs = random.Random(0), []
    answers = [answer(model, word) for word in range(WORDS)]
    while len(pairs) < PAIRS:
        base, source = rng.randrange(WORDS), rng.randrange(WORDS)
        if answers[base] != answers[source] and WORDS not in (answers[base], answers[source]):
            pairs.append((base, source))
    return pairs


@torch.no_grad()
def answer(model: PreTrainedModel, word: int) -> int:
    return int(model(torch.tensor([[word]])).logits[0, -1].argmax())


def by_plain_hooks(
    model: PreTrainedModel, module: nn.Module, columns: slice, pairs: list[tuple[int, int]]
) -> float:
    hits = 0
    for base, source in pairs:
        lent: list[Tensor] = []
        with hooked(module, lambda out, lent=lent: lent.append(out[0, -1, columns].clone())):
            wanted = answer(model, source)
        with hooked(module, lambda out, lent=lent: out[0, -1, columns].copy_(lent[0])):
            hits += answer(model, base) == wanted
    return hits / len(pairs)


@contextmanager
def hooked(module: nn.Module, do: Callable[[Tensor], object]) -> Iterator[None]:
    """`do` sees, and may change, what the module puts out."""
    handle = module.register_forward_hook(lambda _module, _args, out: (do(out), out)[1])
    yield
    handle.remove()


def written(folder: Path, model: PreTrainedModel, pairs: list[tuple[int, int]]) -> None:
    model.save_pretrained(folder / "model")
    words = Tokenizer(
        models.WordLevel({f"w{i:02d}": i for i in range(WORDS)} | {"?": WORDS}, unk_token="?")
    )
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="?").save_pretrained(folder / "model")
    lines = [
        {
            "base": {"text": f"w{base:02d}"}, "source": {"text": f"w{source:02d}"}, "split": "test",
            "answers": {"base": f" w{answer(model, base):02d}", "source": f" w{answer(model, source):02d}"},
            "counterfactual": {"v": f" w{answer(model, source):02d}"},
        }
        for base, source in pairs
    ]  # fmt: skip
    (folder / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "job.yaml").write_text(
        "name: fused\nmodel: {path: model}\nproblem: {pairs: pairs.jsonl}\n"
        f"pairs: {{test: {PAIRS}, fit: 0, holdout: 0, solved_only: false, kinds: unfiltered}}\n"
        "space: {layers: all, components: [query, key, value], heads: all, positions: [last]}\n"
        f"test: {{use: fixed, pairs: {PAIRS}, threshold: 0.5}}\n"
    )
