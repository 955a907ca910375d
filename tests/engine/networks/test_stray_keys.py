"""A key of config.json that the model's class does not read changes nothing of what is found."""

from typing import Any

import pytest
import torch
from transformers import BartConfig, BartForCausalLM, BioGptConfig, PretrainedConfig

from raysearch.engine.networks.component_check import wrong_heads
from raysearch.engine.networks.components import Components
from raysearch.engine.networks.module_names import PER_HEAD
from tests.engine.more_worlds import MORE
from tests.engine.worlds import CONFIGS, VOCAB, model_from, world_of

STRAY: dict[str, Any] = {
    "num_key_value_heads": 2,
    "layer_types": ["linear_attention"] * 8,
    "head_dim": 2,
    "num_heads": 3,
}
WIDE = {"vocab_size": VOCAB, "max_position_embeddings": 32, "pad_token_id": 0}
OTHERS = {
    "biogpt": lambda: BioGptConfig(
        **WIDE, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64
    ),
    "bart": lambda: BartConfig(
        **WIDE, d_model=32, decoder_layers=2, decoder_attention_heads=4, decoder_ffn_dim=64,
        is_encoder_decoder=False, is_decoder=True,
    ),
}  # fmt: skip
FAMILIES = {**CONFIGS, **MORE, **OTHERS}
NAMED = ["gpt2", "gptj", "gpt_neo", "mpt", "opt", "bloom", "codegen", "bigcode", "biogpt", "bart"]


def components_of(config: PretrainedConfig) -> tuple[Components, Any]:
    torch.manual_seed(1)
    model = BartForCausalLM(config).eval() if config.model_type == "bart" else model_from(config)
    world = world_of(model)
    return world.taps, world.network


def found(components: Components) -> list[tuple[str, int | None, int, int]]:
    return [
        (part, layer, of.width, of.heads)
        for part in PER_HEAD
        for layer, of in components.of(part).items()
    ]


@pytest.mark.parametrize("family", NAMED)
def test_a_stray_key_does_not_change_heads(family: str) -> None:
    sound, _ = components_of(FAMILIES[family]())
    config = FAMILIES[family]()
    for key, value in STRAY.items():
        if not hasattr(config, key):
            setattr(config, key, value)
    assert hasattr(config, "num_key_value_heads")
    stray, network = components_of(config)
    assert found(stray) == found(sound)
    parts = {
        part: {at: of for at, of in stray.of(part).items() if at is not None} for part in PER_HEAD
    }
    assert wrong_heads(network, parts) == ""
