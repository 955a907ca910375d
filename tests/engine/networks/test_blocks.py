"""Where blocks and components are found, and what is said where they are not."""

import pytest
from transformers import BartConfig, BertConfig, BertLMHeadModel
from transformers import BartForConditionalGeneration as Bart

from raysearch.core.space import COMPONENTS
from raysearch.engine.networks.blocks import layers_of
from raysearch.engine.networks.module_names import PER_HEAD
from raysearch.engine.networks.network import LanguageModel
from raysearch.engine.networks.point import Point
from raysearch.errors import ModelError
from tests.engine.worlds import CONFIGS, FIRST_TIER, LAYERS, model_of, shared_world, world_of

SMALL = {
    "hidden_size": 8,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "intermediate_size": 8,
    "vocab_size": 10,
}


@pytest.mark.parametrize("family", CONFIGS)
def test_the_blocks_of_every_family_are_found_with_their_number_width_and_heads(
    family: str,
) -> None:
    world = shared_world(family)
    assert (world.layers, world.network.width, world.network.heads) == (
        LAYERS.get(family, 3),
        32,
        4,
    )


def test_an_unknown_architecture_is_refused_with_what_was_looked_for() -> None:
    model = BertLMHeadModel(BertConfig(**SMALL, is_decoder=True))
    with pytest.raises(
        ModelError,
        match=r"BertLMHeadModel \(bert\): its blocks were not found; looked for model.layers, ",
    ):
        layers_of(model)


def test_a_model_with_an_encoder_is_refused_although_its_decoder_has_a_known_name() -> None:
    small = {
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_ffn_dim": 8,
        "decoder_ffn_dim": 8,
        "vocab_size": 10,
    }
    heads = {
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "d_model": 8,
        "max_position_embeddings": 8,
    }
    with pytest.raises(ModelError, match="only causal language models"):
        LanguageModel(Bart(BartConfig(**small, **heads)))


@pytest.mark.parametrize("family", FIRST_TIER)
def test_facts_of_a_component_are_its_layers_width_and_heads(family: str) -> None:
    world = shared_world(family)
    for component in world.components():
        facts = world.taps.facts(component)
        assert facts.name == component
        assert facts.layers == ((None,) if component == "embedding" else tuple(range(world.layers)))
        assert (facts.heads > 0) == (component in PER_HEAD)
        if component in ("residual", "block_input", "embedding", "attention_output", "mlp_output"):
            assert facts.width == 32


def test_components_of_heads_they_share_have_fewer() -> None:
    facts = {
        (f, c): shared_world(f).taps.facts(c)
        for f in ("falcon", "falcon_heads", "falcon_grouped", "qwen3")
        for c in PER_HEAD
    }
    assert {f: facts[f, "key"].heads for f, _ in facts} == {
        "falcon": 1, "falcon_heads": 4, "falcon_grouped": 2, "qwen3": 2,
    }  # fmt: skip
    assert {(f.width, f.heads) for (family, c), f in facts.items() if c == "query"} == {
        (32, 4),
        (64, 4),
    }
    assert facts["qwen3", "value"].width == 32


@pytest.mark.parametrize(
    ("point", "text"),
    [
        (
            Point(-1, "residual"),
            r"layer -1 has no residual in LlamaForCausalLM \(llama\); layers that have it: 0..3",
        ),
        (Point(4, "head"), r"layer 4 has no head in .*: 0..3"),
        (
            Point(1, "embedding"),
            "layer 1 has no embedding in .*; it has it once, in no layer: leave layer out",
        ),
        (
            Point(0, "resid"),
            "'resid' is no component; it may be residual, .* or a dotted module path",
        ),
        (
            Point(0, "model.layers.0.mlp.nope"),
            "has no module .*; model.layers.0.mlp has gate_proj, up_proj, down_proj",
        ),
        (
            Point(0, "model.layers.{layer}.nope"),
            r"has no module .*; model.layers.0 has self_attn, mlp, ",
        ),
        (
            Point(4, "model.layers.{layer}.mlp"),
            r"layer 4 has no model.layers.\{layer\}.mlp in .*: 0..3",
        ),
        (Point(0, "lm.head"), r"has no module 'lm.head'; the model has model, lm_head"),
    ],
)
def test_what_is_not_there_is_refused_in_one_line_with_what_is(point: Point, text: str) -> None:
    with pytest.raises(ModelError, match=text) as refused:
        shared_world("llama").taps.at(point)
    assert "\n" not in str(refused.value)


def test_what_the_module_of_a_component_is_not_is_told_before_it_is_used() -> None:
    model = model_of("llama")
    model.model.layers[1] = model.model.layers[0]
    with pytest.raises(
        ModelError, match=r"residual cannot be patched: a hook on .* fired 2 times; it should 1"
    ):
        world_of(model).taps.of("residual")
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_dotted_path_may_name_a_side_and_each_layer_or_one() -> None:
    taps, model = shared_world("llama").taps, shared_world("llama").model
    down = model.model.layers[2].mlp.down_proj
    for path, layer, side in (
        ("model.layers.{layer}.mlp.down_proj.input", 2, "input"),
        ("model.layers.{layer}.mlp.down_proj.output", 2, "output"),
        ("model.layers.2.mlp.down_proj", 0, "output"),
    ):
        tap = taps.at(Point(layer, path))
        assert (tap.module, tap.side, tap.layer, tap.is_block) == (down, side, 2, False)
    assert taps.at(Point(0, "model.norm")).layer is None
    assert taps.at(Point(1, "model.layers.{layer}")) == taps.at(Point(1, "residual"))


def test_the_names_of_components_are_those_of_the_table() -> None:
    assert set(COMPONENTS) == {
        "residual", "block_input", "embedding", "attention_output", "head", "mlp_output", "mlp_activation", "query",
        "key", "value",
    }  # fmt: skip
