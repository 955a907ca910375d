"""A language model that cannot run at all is refused in one line, whatever its own code raises."""

import pytest
import torch
from transformers import FalconConfig, LlamaConfig

from raysearch.errors import ModelError
from tests.engine.worlds import VOCAB, model_from, world_of

SMALL = {"vocab_size": VOCAB, "hidden_size": 48, "num_attention_heads": 6, "num_hidden_layers": 2}


@pytest.mark.parametrize("component", ["residual", "query"])
def test_a_configuration_that_fits_no_weights_is_said_in_one_line(component: str) -> None:
    """Falcon's old architecture has a key for each head, whatever `num_kv_heads` says, and then
    reads it as if there were fewer."""
    config = FalconConfig(
        **SMALL, multi_query=False, num_kv_heads=2, bos_token_id=0, eos_token_id=0
    )
    world = world_of(model_from(config))
    with pytest.raises(
        ModelError,
        match=r"FalconForCausalLM \(falcon\) does not run, without any intervention.*invalid for "
        r"input",
    ) as e:
        world.taps.of(component)
    assert "\n" not in str(e.value)


def test_so_is_whatever_a_models_own_code_raises() -> None:
    world = world_of(model_from(LlamaConfig(**SMALL, intermediate_size=16)))
    world.model.model.layers[1].mlp.forward = broken
    with pytest.raises(ModelError, match=r"\(KeyError: 'no kernel'\)"):
        world.taps.of("residual")


def broken(_given: torch.Tensor) -> torch.Tensor:
    raise KeyError("no kernel")
