"""Small worlds for the engine's tests: random tiny models of several families, small tokenizers, random pairs."""

import random
from collections.abc import Sequence
from functools import cache

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MptConfig,
    OPTConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from raysearch.causal import ONE_SOURCE, Input, Pair
from raysearch.engine.load import Loaded
from raysearch.search.events import Block
from raysearch.search.hypothesis import Intervention, Site, Unit

WORDS = tuple(f"w{i}" for i in range(30))
VOCAB = 40
POSITIONS = ("first", "here")

_WIDE = {"vocab_size": VOCAB, "hidden_size": 32, "num_attention_heads": 4, "initializer_range": 0.4}
CONFIGS = {
    "llama": lambda: LlamaConfig(
        **_WIDE, num_hidden_layers=4, num_key_value_heads=2, intermediate_size=64, max_position_embeddings=32
    ),
    "gpt2": lambda: GPT2Config(
        vocab_size=VOCAB, n_embd=32, n_head=4, n_layer=3, n_positions=32, initializer_range=0.4, bos_token_id=0, eos_token_id=0
    ),
    "gpt_neox": lambda: GPTNeoXConfig(**_WIDE, num_hidden_layers=2, intermediate_size=64, bos_token_id=0, eos_token_id=0),
    "opt": lambda: OPTConfig(
        vocab_size=VOCAB, hidden_size=32, num_attention_heads=4, init_std=0.4, num_hidden_layers=2, ffn_dim=64,
        word_embed_proj_dim=32, pad_token_id=1, bos_token_id=0, eos_token_id=0,
    ),
    "qwen2": lambda: Qwen2Config(**_WIDE, num_hidden_layers=2, num_key_value_heads=2, intermediate_size=64),
    "bloom": lambda: BloomConfig(
        vocab_size=VOCAB, hidden_size=32, n_head=4, n_layer=2, initializer_range=0.4, bos_token_id=0, eos_token_id=0
    ),
    "mpt": lambda: MptConfig(vocab_size=VOCAB, d_model=32, n_heads=4, n_layers=2, initializer_range=0.4, max_seq_len=32),
}  # fmt: skip


def model_of(family: str, seed: int = 0, scale: float = 1.0) -> PreTrainedModel:
    """A random model; `scale` shrinks its weights: at 0.05 most outputs are near-ties."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(CONFIGS[family]())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    return model.eval().requires_grad_(False)


@cache
def shared_model(family: str) -> PreTrainedModel:
    """One that tests must leave as it is."""
    return model_of(family)


def word_tokenizer(before: bool = False, after: bool = False) -> PreTrainedTokenizerFast:
    """A word is a token, the blank before it included; with special tokens `before` and `after` the text, if asked."""
    vocab = {"[UNK]": 0, "[BOS]": 1, "[EOS]": 2, "▁": 3}
    for word in WORDS[:18]:
        vocab[word] = len(vocab)
    for word in WORDS[:18]:
        vocab["▁" + word] = len(vocab)
    assert len(vocab) == VOCAB
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="never")
    tokenizer.add_special_tokens(["[UNK]", "[BOS]", "[EOS]"])
    _frame(tokenizer, before, after)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def letter_tokenizer(*merges: str, before: bool = False) -> PreTrainedTokenizerFast:
    """A letter is a token, save those that `merges` ("a b") join, blanks and edges of words regardless."""
    vocab = {"[UNK]": 0, "[BOS]": 1, "[EOS]": 2}
    for letter in "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ .":
        vocab[letter] = len(vocab)
    pairs = [(m[: m.index("|")], m[m.index("|") + 1 :]) for m in merges]
    for left, right in pairs:
        vocab.setdefault(left + right, len(vocab))
    tokenizer = Tokenizer(models.BPE(vocab, pairs, unk_token="[UNK]"))
    tokenizer.add_special_tokens(["[UNK]", "[BOS]", "[EOS]"])
    _frame(tokenizer, before, False)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def _frame(tokenizer: Tokenizer, before: bool, after: bool) -> None:
    if before or after:
        form = ("[BOS] " if before else "") + "$A" + (" [EOS]" if after else "")
        tokenizer.post_processor = processors.TemplateProcessing(
            single=form, special_tokens=[("[BOS]", 1), ("[EOS]", 2)]
        )


def words_input(words: Sequence[str], here: int) -> Input:
    """The words with blanks between; positions "first" and "here" (the word at that index)."""
    text = " ".join(words)
    start = len(" ".join(words[:here])) + (here > 0)
    return Input(text, {"first": (0, len(words[0])), "here": (start, start + len(words[here]))})


def random_pairs(seed: int, count: int, shortest: int = 1, longest: int = 9) -> tuple[Pair, ...]:
    """Pairs of random words, base and source of lengths of their own. Variable: "x"."""
    rng = random.Random(f"{seed}.pairs")
    pairs = []
    for index in range(count):
        inputs = []
        for _ in range(2):
            words = [rng.choice(WORDS[:18]) for _ in range(rng.randint(shortest, longest))]
            inputs.append(words_input(words, rng.randrange(len(words))))
        answers = [" " + rng.choice(WORDS[:18]) for _ in range(3)]
        pairs.append(
            Pair(
                index,
                inputs[0],
                {ONE_SOURCE: inputs[1]},
                {"base": answers[0], ONE_SOURCE: answers[1]},
                {"x": answers[2]},
                "test",
            )
        )
    return tuple(pairs)


def residual(*places: tuple[int, str], component: str = "residual") -> Intervention:
    """The interchange of whole residuals at each (layer, position)."""
    return Intervention(tuple(Unit(Site(layer, component, position)) for layer, position in places))


def blocks_of(pairs: Sequence[Pair], size: int) -> tuple[Block, ...]:
    indices = [p.index for p in pairs]
    return tuple(Block("test", i // size, tuple(indices[i : i + size])) for i in range(0, len(indices), size))


def loaded(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast | None = None) -> Loaded:
    return Loaded(model, tokenizer or word_tokenizer(), "digest of a random model", "float32")
