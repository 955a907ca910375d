"""A model in memory: its network, its encoder, and a summary of its shapes."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from raysearch.causal import Pair
from raysearch.core.events import Encoded
from raysearch.core.prompt_format import PLAIN, PromptFormat
from raysearch.engine.encoding.encode import encode
from raysearch.engine.loading.dtypes import cast, dtypes_of
from raysearch.engine.loading.model_summary import ModelSummary, check_lengths
from raysearch.engine.loading.quantisation import method_of, refuse_random_model
from raysearch.engine.networks.attention_modules import declared_value
from raysearch.engine.networks.components import Components
from raysearch.engine.networks.encoder import Encoder
from raysearch.engine.networks.half_precision import copied_bytes, speed_up
from raysearch.engine.networks.length_boundaries import config_values, most_tokens
from raysearch.engine.networks.network import LanguageModel

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to run, its tokenizer, the digest of its files and the name of its dtype; the
    prompt format; the hub's commit; files beside it that are not loaded (`unused`)."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    digest: str
    dtype: str = "float32"
    prompt_format: PromptFormat = PLAIN
    commit: str | None = None
    unused: tuple[str, ...] = ()

    def open(self, pairs: Sequence[Pair]) -> tuple[LanguageModel, Encoder]:
        """Returns the language model, and the encoder of texts. Raises: ModelError."""
        return LanguageModel(self.model), self.encode

    def summary(
        self, pairs: Sequence[Pair], components: Sequence[str] = ("residual",)
    ) -> ModelSummary:
        """Describes the model by its shapes alone. Raises: ModelError."""
        network = LanguageModel(self.model)
        hook_points, layers = Components(network), len(network.blocks)
        return ModelSummary(
            components=tuple(hook_points.facts(component) for component in components),
            layers=layers,
            width=network.width,
            heads=network.heads,
            path="replay" if network.can_replay else "batched",
            weight_bytes=sum(p.numel() * p.itemsize for p in self.model.parameters()),
            item_bytes=DTYPES[self.dtype].itemsize,
            keys=_keys(self.model, layers) if network.can_replay else 0,
            widest=widest_of(network.blocks),
            logits=int(self.model.config.get_text_config().vocab_size),
            encode=self.encode,
            read=lambda token: str(self.tokenizer.decode(token)),
            unused=self.unused,
            copied_bytes=copied_bytes(self.model, DTYPES[self.dtype]),
            quantised=method_of(self.model.config),
        )

    @property
    def longest(self) -> int | None:
        """Most tokens that the model takes; None if its configuration names no limit."""
        return most_tokens(config_values(self.model.config.get_text_config()))

    def reinitialised(self, seed: int = 0) -> "LoadedModel":
        """Returns the same architecture with weights as its family initialises them, on the same
        device."""
        refuse_random_model(type(self.model).__name__, method_of(self.model.config))
        build: Any = type(self.model)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = build(copy.deepcopy(self.model.config))
        cast(model, dtypes_of(self.model), DTYPES[self.dtype])
        model = model.to(device=self.model.device).eval().requires_grad_(False)
        speed_up(model)
        return replace(self, model=model, digest=f"{self.digest} with random weights {seed}")

    def encode(
        self, pairs: Sequence[Pair], positions: Sequence[str], variables: Sequence[str]
    ) -> tuple[Encoded, ...]:
        """Encodes the pairs in the model's tokens. Raises: PairsError, PositionError; ModelError
        for a pair that is too long."""
        encoded = encode(pairs, self.tokenizer, positions, variables, self.prompt_format)
        check_lengths(self.longest, encoded)
        return encoded


def widest_of(blocks: Sequence[nn.Module]) -> int:
    """Returns the widest vector that a block takes or returns, by the shapes of its weights."""
    return max((max(p.shape) for block in blocks for p in block.parameters() if p.shape), default=0)


def _keys(model: PreTrainedModel, layers: int) -> int:
    """Returns the numbers in the keys and values of a token, over all layers; an upper bound for
    families that compress them."""
    config = model.config.get_text_config()
    heads = int(getattr(config, "num_attention_heads", None) or 1)
    shared = int(declared_value(config, "num_key_value_heads") or heads)
    each = int(declared_value(config, "head_dim") or config.hidden_size // heads)
    return 2 * layers * shared * each
