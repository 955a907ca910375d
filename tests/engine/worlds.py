"""Small worlds for the engine's tests: random tiny models of several families, small tokenizers,
random pairs."""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    DeepseekV3Config,
    FalconConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTJConfig,
    GPTNeoXConfig,
    GptOssConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    MptConfig,
    Olmo2Config,
    OPTConfig,
    Phi3Config,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2MoeConfig,
    Qwen3Config,
)

from raysearch import Input, Pair
from raysearch.causal import ONE_SOURCE
from raysearch.core.events import Block, Encoded
from raysearch.core.hypothesis import Intervention, Site, Unit
from raysearch.core.space import COMPONENTS
from raysearch.engine.encoding.encode import encode
from raysearch.engine.execution.activation_cache import ActivationCache
from raysearch.engine.execution.executors import BatchedExecutor, Executor
from raysearch.engine.execution.memory import RowLimit
from raysearch.engine.execution.replay_executor import ReplayExecutor
from raysearch.engine.loading.loaded_model import LoadedModel
from raysearch.engine.networks.components import Components
from raysearch.engine.networks.network import LanguageModel
from raysearch.engine.patching.oracle import oracle
from raysearch.engine.patching.rows import Row
from raysearch.errors import ModelError

WORDS = tuple(f"w{i}" for i in range(30))
VOCAB = 40
POSITIONS = ("first", "here")

_WIDE = {"vocab_size": VOCAB, "hidden_size": 32, "num_attention_heads": 4, "initializer_range": 0.4}
_OF_THREE = {
    **_WIDE, "num_hidden_layers": 3, "num_key_value_heads": 2, "intermediate_size": 64, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
_FALCON = {
    **_WIDE,
    "num_hidden_layers": 2,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "max_position_embeddings": 32,
}
_EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
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
    "mistral": lambda: MistralConfig(**_OF_THREE, sliding_window=4),
    "gemma2": lambda: Gemma2Config(**_OF_THREE, head_dim=8, sliding_window=4, query_pre_attn_scalar=8),
    "gemma3": lambda: gemma3_config(),
    "qwen3": lambda: Qwen3Config(**_OF_THREE, head_dim=16),
    "olmo2": lambda: Olmo2Config(**_OF_THREE),
    "phi3": lambda: Phi3Config(**_OF_THREE),
    "gptj": lambda: GPTJConfig(
        vocab_size=VOCAB, n_positions=32, n_embd=32, n_layer=3, n_head=4, rotary_dim=4, initializer_range=0.4,
        bos_token_id=1, eos_token_id=2,
    ),
    "falcon": lambda: FalconConfig(**_FALCON),  # one key and value for all heads
    "falcon_heads": lambda: FalconConfig(**_FALCON, multi_query=False, parallel_attn=False),  # a key and value for each
    "falcon_grouped": lambda: FalconConfig(**_FALCON, new_decoder_architecture=True, num_kv_heads=2),
    "mixtral": lambda: MixtralConfig(**_OF_THREE, num_local_experts=4, num_experts_per_tok=2),
    "qwen2_moe": lambda: Qwen2MoeConfig(**_OF_THREE, **_EXPERTS, num_experts=4, shared_expert_intermediate_size=32),
    "gpt_oss": lambda: GptOssConfig(
        **_OF_THREE, head_dim=8, num_local_experts=4, num_experts_per_tok=2, sliding_window=4
    ),
    "deepseek_v3": lambda: DeepseekV3Config(
        **{**_OF_THREE, "num_key_value_heads": 4}, **_EXPERTS, q_lora_rank=8, kv_lora_rank=8, qk_rope_head_dim=4,
        qk_nope_head_dim=4, v_head_dim=12, n_routed_experts=4, n_group=1, topk_group=1, first_k_dense_replace=1,
    ),
}  # fmt: skip

LAYERS = {"llama": 4} | dict.fromkeys(
    ("gpt_neox", "opt", "qwen2", "bloom", "mpt", "falcon", "falcon_heads", "falcon_grouped"), 2
)
"""How many a family has; those not named have three."""

FIRST_TIER = (
    "llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "gpt2", "gpt_neox", "olmo2", "phi3", "mixtral", "qwen2_moe",
)  # fmt: skip
"""Families on which every component is exact, and on the fast path."""

LAYOUTS = (
    "llama",
    "gpt2",
    "gpt_neox",
    "gemma2",
    "falcon_grouped",
    "qwen2_moe",
    "deepseek_v3",
    "bloom",
)
"""One family for each way to lay out a block: query, key and value apart or fused (by head, by
group, side by side), attention and MLP one after the other or beside each other, norms after them,
experts, compressed keys, blocks that add to the residual themselves."""

REPLAYED = tuple(family for family in CONFIGS if family not in ("bloom", "mpt"))
"""Families that are replayed. The others say no position_ids in their forward pass: their rows are
run whole."""

TOLD_ATTENTION = ("bloom", "mpt", "gemma2", "gptj", "gpt_oss")
"""Families that have no scaled dot product attention in transformers, or not always."""


def gemma3_config(layers: int = 3, **more: object) -> Gemma3TextConfig:
    """Two kinds of attention in turn, one of them with a window of four tokens."""
    kinds = ["sliding_attention", "full_attention"] * layers
    sizes = {**_OF_THREE, "num_hidden_layers": layers, "layer_types": kinds[:layers]}
    return Gemma3TextConfig(**sizes, head_dim=8, sliding_window=4, query_pre_attn_scalar=8, **more)


def model_of(
    family: str, seed: int = 0, scale: float = 1.0, attention: str | None = None
) -> PreTrainedModel:
    """A random model; `scale` shrinks its weights: at 0.05 most outputs are near-ties."""
    return model_from(CONFIGS[family](), seed, scale, attention)


def model_from(
    config: PretrainedConfig, seed: int = 0, scale: float = 1.0, attention: str | None = None
) -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    return model.eval().requires_grad_(False)


@cache
def shared_model(family: str) -> PreTrainedModel:
    """One that tests must leave as it is."""
    return model_of(family)


@dataclass(frozen=True)
class World:
    """A model as the engine sees it, with paths on it."""

    network: LanguageModel
    taps: Components

    @property
    def model(self) -> PreTrainedModel:
        return self.network.model

    @property
    def layers(self) -> int:
        return len(self.network.blocks)

    def oracle(self, row: Row) -> Tensor:
        return oracle(self.network, self.taps, row)

    def plain(self, given: Sequence[int]) -> Tensor:
        with torch.inference_mode():
            return self.network.plain(tuple(given))

    def captures(
        self, most: int = 64, max_bytes: int = 2**30, tolerance: float = 0.0, keys: bool = False
    ) -> ActivationCache:
        return ActivationCache(
            self.network, self.taps, RowLimit(most), tolerance, max_bytes, keys=keys
        )

    def batched(self, most: int = 64, max_bytes: int = 2**30) -> BatchedExecutor:
        return BatchedExecutor(self.network, self.taps, self.captures(most, max_bytes))

    def replayed(self, most: int = 64, max_bytes: int = 2**30) -> ReplayExecutor:
        return ReplayExecutor(self.network, self.taps, self.captures(most, max_bytes, keys=True))

    def fast(self, most: int = 64, max_bytes: int = 2**30) -> list[Executor]:
        """Those that can be: batched, and replay where the model takes a cache."""
        paths: list[Executor] = [self.batched(most, max_bytes)]
        return [*paths, self.replayed(most, max_bytes)] if self.network.can_replay else paths

    def components(self) -> list[str]:
        """Those that it has."""
        return [component for component in COMPONENTS if self._has(component)]

    def _has(self, component: str) -> bool:
        try:
            return bool(self.taps.of(component))
        except ModelError:
            return False


def world_of(model: PreTrainedModel) -> World:
    network = LanguageModel(model)
    return World(network, Components(network))


@cache
def shared_world(family: str, dtype: torch.dtype = torch.float32) -> World:
    """One that tests must leave as it is."""
    return world_of(shared_model(family) if dtype == torch.float32 else model_of(family).to(dtype))


def logits_of(path: Executor, asked: Sequence[Row]) -> list[Tensor]:
    """The logits of each row, in the order of `asked`, in the batches that the path makes."""
    found: dict[Row, Tensor] = {}
    for batch in path.batches(list(dict.fromkeys(asked))):
        found.update(zip(batch, path.logits(batch), strict=True))
    return [found[row] for row in asked]


def older(model: PreTrainedModel) -> PreTrainedModel:
    """The same Llama with blocks that return tuples, as in transformers < 5."""

    class Older(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, hidden, *args, **kwargs):
            return (
                self.inner(hidden[0] if isinstance(hidden, tuple) else hidden, *args, **kwargs),
                None,
            )

    for at, block in enumerate(model.model.layers):
        model.model.layers[at] = Older(block)
    model.model.norm.register_forward_pre_hook(lambda m, args: (args[0][0],))
    return model


def word_tokenizer(before: bool = False, after: bool = False) -> PreTrainedTokenizerFast:
    """A word is a token, the blank before it included; with special tokens `before` and `after` the
    text, if asked."""
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
    """A letter is a token, save those that `merges` ("a b") join, blanks and edges of words
    regardless."""
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


def encoded_pairs(seed: int, count: int, **lengths: int) -> tuple[Encoded, ...]:
    """Random pairs as a model sees them, with a token before the text."""
    return encode(
        random_pairs(seed, count, **lengths), word_tokenizer(before=True), POSITIONS, ["x"]
    )


def itself(pair: Encoded) -> Encoded:
    """The pair with its base as its source."""
    return Encoded(
        pair.index,
        pair.base,
        {ONE_SOURCE: pair.base},
        pair.base_positions,
        {ONE_SOURCE: pair.base_positions},
        {},
        {},
    )


def residual(*places: tuple[int, str], component: str = "residual") -> Intervention:
    """The interchange of whole residuals at each (layer, position)."""
    return Intervention(tuple(Unit(Site(layer, component, position)) for layer, position in places))


def blocks_of(pairs: Sequence[Pair], size: int) -> tuple[Block, ...]:
    indices = [p.index for p in pairs]
    return tuple(
        Block("test", i // size, tuple(indices[i : i + size])) for i in range(0, len(indices), size)
    )


def loaded(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast | None = None) -> LoadedModel:
    return LoadedModel(model, tokenizer or word_tokenizer(), digest_of(model), "float32")


def digest_of(model: PreTrainedModel) -> str:
    """The digest of a model as its library made it, by which its self-check is remembered in this
    session; "" for one that was changed by hand, which is checked each time."""
    for module in model.modules():
        theirs = type(module).__module__.startswith(("torch.", "transformers."))
        hooks = module._forward_hooks or module._forward_pre_hooks
        if not theirs or hooks or "forward" in vars(module):
            return ""
    found = hashlib.sha256(f"{type(model)} {model.config.to_json_string()}".encode())
    attention = model.config._attn_implementation
    found.update(f"{attention} {model.training}".encode())
    for name, tensor in model.state_dict().items():
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def alike_products() -> bool:
    """Returns whether products here are known to be batch-invariant: MKL's on an Intel processor,
    by its strict mode, or on an AMD one with AVX2 alone, from four rows on."""
    cpu = Path("/proc/cpuinfo")
    said = cpu.read_text() if cpu.is_file() else ""
    amd = "AuthenticAMD" in said and "avx512f" not in said
    return ("GenuineIntel" in said or amd) and torch.backends.mkl.is_available()
