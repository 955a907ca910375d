"""Families: those of the first tier on the fast path with all their components; the second works,
or is refused in one line."""

import random

import pytest
import torch
from transformers import (
    BertConfig,
    BertLMHeadModel,
    FalconConfig,
    MambaConfig,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

from raysearch.core.events import Measured, Task
from raysearch.core.hypothesis import Intervention, Site, Unit
from raysearch.core.runner_settings import RunnerSettings
from raysearch.core.space import COMPONENTS
from raysearch.engine.execution.predict import predict
from raysearch.engine.networks.point import Point
from raysearch.engine.patching.build import build_row
from raysearch.engine.patching.operations import Zero
from raysearch.engine.patching.rows import Patch, Row, swap
from raysearch.engine.replica import Replica
from raysearch.errors import ModelError
from tests.engine.worlds import (
    CONFIGS,
    FIRST_TIER,
    LAYOUTS,
    POSITIONS,
    REPLAYED,
    VOCAB,
    World,
    blocks_of,
    loaded,
    logits_of,
    model_from,
    model_of,
    random_pairs,
    shared_world,
    world_of,
)

PAIRS = random_pairs(11, 8)


def sites_of(world: World, component: str) -> list[Site]:
    """At every layer that has it and at two positions; of a component with heads, its last head."""
    taps = world.taps.of(component)
    return [
        Site(layer, component, position, taps[layer].heads - 1 if taps[layer].heads else None)
        for layer in taps
        for position in ("here", "last")
    ]


def measured_as_by_the_oracle(model: PreTrainedModel, components: list[str], path: str) -> None:
    """All of them, as a replica measures them, on the path that is expected."""
    world = world_of(model)
    replica = Replica(
        loaded(model),
        PAIRS,
        POSITIONS,
        ["x"],
        "w",
        settings=RunnerSettings(rows=16),
        components=tuple(components),
    )
    assert replica.opened.facts.path == path
    assert [facts.name for facts in replica.opened.facts.components] == components
    asked = [
        Intervention((Unit(site),))
        for component in components
        for site in sites_of(world, component)
    ]
    events = replica.do(Task(1, "measure", tuple(asked), blocks_of(PAIRS, 8)))
    changed = 0
    for intervention, event in zip(asked, events, strict=True):
        assert isinstance(event, Measured), event
        rows = [build_row(pair, intervention, world.taps) for pair in replica.opened.encoded]
        wanted = [predict(world.oracle(row)[None])[0].id for row in rows]
        assert event.outputs == tuple((one,) for one in wanted)
        changed += any(
            int(world.plain(row.base).argmax()) != one
            for row, one in zip(rows, wanted, strict=True)
        )
    assert changed > len(asked) / 8  # else nothing was tested


def swaps_equal_the_oracle(world: World, components: list[str]) -> None:
    rng, rows = random.Random(0), []
    for component in components:
        for layer in world.taps.of(component):
            base, source = (
                tuple(rng.randrange(3, VOCAB) for _ in range(rng.randint(3, 9))) for _ in range(2)
            )
            rows.append(swap(base, source, layer, (rng.randrange(3),), component))
    for path in world.fast():
        for row, ours in zip(rows, logits_of(path, rows), strict=True):
            assert (ours - world.oracle(row)).abs().max() <= 1e-4, (path.name, row)


def refused(world: World, component: str) -> str:
    """What is said, which is one line and names the family."""
    with pytest.raises(ModelError) as error:
        world.taps.of(component)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(world.network.name)
    return str(error.value)


@pytest.mark.slow_unless(family=["gpt_neox"])
@pytest.mark.parametrize("family", FIRST_TIER)
def test_the_first_tier_is_replayed_with_all_its_components(family: str) -> None:
    components = shared_world(family).components()
    assert set(COMPONENTS) - set(components) <= (
        {"mlp_activation"} if family in ("mixtral", "qwen2_moe") else set()
    )
    measured_as_by_the_oracle(shared_world(family).model, components, "replay")


@pytest.mark.slow_unless(family=LAYOUTS)
@pytest.mark.parametrize("family", ["falcon", "falcon_heads", "falcon_grouped", "gptj"])
def test_falcon_and_gptj_are_replayed_with_all_their_components(family: str) -> None:
    components = shared_world(family).components()
    assert set(components) == set(COMPONENTS)
    measured_as_by_the_oracle(shared_world(family).model, components, "replay")


def test_falcon_with_alibi_is_right_too() -> None:
    model = model_from(FalconConfig(**{**CONFIGS["falcon"]().to_dict(), "alibi": True}))
    measured_as_by_the_oracle(model, ["residual", "head", "key"], "replay")


@pytest.mark.slow_unless(family=LAYOUTS)
@pytest.mark.parametrize("family", ["bloom", "mpt"])
def test_bloom_and_mpt_run_in_batches_with_all_their_components(family: str) -> None:
    assert family not in REPLAYED
    components = shared_world(family).components()
    assert set(components) == set(COMPONENTS)
    measured_as_by_the_oracle(shared_world(family).model, components, "batched")


def test_what_bloom_adds_to_the_residual_is_its_attention_output() -> None:
    """Its attention module adds the residual itself; the component is what is added."""
    world = shared_world("bloom")
    attention = world.model.transformer.h[1].self_attention
    assert world.taps.of("attention_output")[1].module is attention.dense
    assert world.taps.of("mlp_output")[1].module is world.model.transformer.h[1].mlp.dense_4h_to_h


def test_opt_is_replayed_with_all_its_components() -> None:
    """Its MLP too, which sees the tokens of all rows as one long list."""
    world = shared_world("opt")
    assert set(world.components()) == set(COMPONENTS)
    measured_as_by_the_oracle(world.model, world.components(), "replay")


@pytest.fixture(scope="module")
def mamba() -> PreTrainedModel:
    config = MambaConfig(
        vocab_size=VOCAB, hidden_size=32, state_size=4, num_hidden_layers=3, pad_token_id=0, bos_token_id=1,
        eos_token_id=2, initializer_range=0.4,
    )  # fmt: skip
    return model_from(config)


def test_mamba_runs_in_batches_with_what_it_has(
    mamba: PreTrainedModel, caplog: pytest.LogCaptureFixture
) -> None:
    world = world_of(mamba)
    assert world.components() == ["residual", "block_input", "embedding"]
    assert not world.network.can_replay
    measured_as_by_the_oracle(mamba, world.components(), "batched")
    (said,) = {
        record.getMessage() for record in caplog.records if record.name.startswith("raysearch")
    }
    assert (
        said
        == "MambaForCausalLM (mamba): takes no cache: rows are run whole, not from the patch on"
    )


def test_what_mamba_lacks_is_refused_and_its_mixer_goes_by_its_path(mamba: PreTrainedModel) -> None:
    world = world_of(mamba)
    for component in sorted(set(COMPONENTS) - {"residual", "block_input", "embedding"}):
        said = refused(world, component)
        assert said.startswith(f"MambaForCausalLM (mamba) has no {component}: ")
        assert (
            "; name a module by its path: backbone.layers.{layer}.norm, "
            "backbone.layers.{layer}.mixer, " in said
        )
    swaps_equal_the_oracle(
        world, ["backbone.layers.{layer}.mixer", "backbone.layers.{layer}.mixer.out_proj.input"]
    )


def test_experts_go_by_their_path() -> None:
    """Not one expert, which sees no row of its own; the mixture, and its router's input."""
    swaps_equal_the_oracle(
        shared_world("qwen2_moe"), ["model.layers.{layer}.mlp", "model.layers.{layer}.mlp.input"]
    )


@pytest.mark.parametrize("family", CONFIGS)
def test_each_family_says_what_it_lacks_in_one_line(family: str) -> None:
    world = shared_world(family)
    for component in set(COMPONENTS) - set(world.components()):
        assert component in refused(world, component)


BERT = BertConfig(
    hidden_size=8,
    num_attention_heads=2,
    num_hidden_layers=1,
    intermediate_size=8,
    vocab_size=VOCAB,
    is_decoder=True,
)
T5 = T5Config(vocab_size=VOCAB, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
WHISPER = WhisperConfig(
    vocab_size=VOCAB, d_model=8, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
    decoder_attention_heads=2, encoder_ffn_dim=8, decoder_ffn_dim=8, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    decoder_start_token_id=1, num_mel_bins=4, max_source_positions=10, max_target_positions=10,
)  # fmt: skip


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda: BertLMHeadModel(BERT),
            r"BertLMHeadModel \(bert\): its blocks were not found; looked for ",
        ),
        (
            lambda: T5ForConditionalGeneration(T5),
            r"T5ForConditionalGeneration \(t5\) has an encoder; only causal language models",
        ),
        (
            lambda: WhisperForConditionalGeneration(WHISPER),
            r"WhisperForConditionalGeneration \(whisper\) has an encoder; only causal language "
            r"models \(decoder-only\) can be searched$",
        ),
    ],
)
def test_bert_t5_and_whisper_are_refused_in_one_line_before_they_run(make, text: str) -> None:
    model, ran = make(), []
    model.register_forward_pre_hook(lambda *_: ran.append(1))
    with pytest.raises(ModelError, match=text) as error:
        Replica(loaded(model), PAIRS, POSITIONS, ["x"], "w")
    assert "\n" not in str(error.value)
    assert not ran


def test_a_module_that_sees_the_answers_token_alone_in_a_batch_is_run_plainly() -> None:
    measured_as_by_the_oracle(model_of("llama"), ["lm_head.input"], "plain")


class NotANumber(Zero):
    def forward(self, base: torch.Tensor, source: torch.Tensor | None) -> torch.Tensor:
        return torch.full_like(base, float("nan"))


def test_an_activation_that_is_not_a_number_is_told_of_the_intervention_that_made_it() -> None:
    world = shared_world("llama")
    row = Row((5, 6, 7), (Patch(Point(1, "residual"), (1,), kind=NotANumber()),))
    for logits in (world.oracle(row), *(logits_of(path, [row])[0] for path in world.fast())):
        assert not predict(logits[None])[0].finite
    beside = swap((5, 6, 8), (9, 10, 11), 1, (1,))
    for path in world.fast():  # and nobody in its company is any the worse for it
        assert torch.allclose(logits_of(path, [row, beside])[1], world.oracle(beside), atol=1e-4)
