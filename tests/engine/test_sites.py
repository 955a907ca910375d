"""Where blocks are found, and what is said where they are not."""

import pytest
import torch
from transformers import BartConfig, BertConfig, BertLMHeadModel
from transformers import BartForConditionalGeneration as Bart

from raysearch.engine.sites import check_site, layers_of, residual_in, sizes_of
from raysearch.errors import JobError, ModelError, NotYetError
from raysearch.search.hypothesis import Site
from tests.engine.worlds import CONFIGS, shared_model

SMALL = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 8, "vocab_size": 10}


@pytest.mark.parametrize("family", CONFIGS)
def test_the_blocks_of_every_family_are_found_with_their_number_width_and_heads(family: str) -> None:
    model = shared_model(family)
    sizes = sizes_of(model)
    two = ("gpt_neox", "opt", "qwen2", "bloom", "mpt")
    assert (sizes.layers, sizes.width, sizes.heads) == (({"llama": 4} | dict.fromkeys(two, 2)).get(family, 3), 32, 4)


def test_an_unknown_architecture_is_refused_with_what_was_looked_for() -> None:
    model = BertLMHeadModel(BertConfig(**SMALL, is_decoder=True))
    with pytest.raises(
        ModelError, match=r"BertLMHeadModel \(bert\): its blocks were not found; looked for model.layers, "
    ):
        layers_of(model)


def test_a_model_with_an_encoder_is_refused_although_its_decoder_has_a_known_name() -> None:
    small = {"encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8, "vocab_size": 10}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "d_model": 8, "max_position_embeddings": 8}
    with pytest.raises(ModelError, match="only decoder-only models"):
        layers_of(Bart(BartConfig(**small, **heads)))


@pytest.mark.parametrize("component", ["mlp_output", "head", "query", "model.layers.0.mlp"])
def test_a_component_that_the_format_knows_is_not_supported_yet(component: str) -> None:
    with pytest.raises(NotYetError, match="is not supported yet; use residual"):
        check_site(Site(0, component, "last"), 2)


def test_a_component_that_nobody_knows_is_refused_with_those_there_are() -> None:
    with pytest.raises(JobError, match="'resid' is no component; it may be residual, ") as refused:
        check_site(Site(0, "resid", "last"), 2)
    assert not isinstance(refused.value, NotYetError)


@pytest.mark.parametrize("layer", [-1, 2])
def test_a_layer_that_is_not_there_is_refused_with_those_that_are(layer: int) -> None:
    with pytest.raises(ModelError, match=rf"{layer} is no layer of the model; it has 0..1"):
        check_site(Site(layer, "residual", "last"), 2)


@pytest.mark.parametrize("output", ["text", torch.zeros(2, 3), (torch.zeros(1),)])
def test_a_block_that_returns_something_else_is_refused(output: object) -> None:
    with pytest.raises(ModelError, match="a block returned"):
        residual_in(output)
