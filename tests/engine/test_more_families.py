"""More families: each component against hooks that are written out here, on the path that each
takes; what is no language model."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTForImageClassification,
)

from raysearch.core.model_source import ModelSource
from raysearch.core.runner_settings import RunnerSettings
from raysearch.engine.execution.usage import UsageMeter
from raysearch.engine.loading.inspect_model import inspect_model
from raysearch.engine.loading.load import load
from raysearch.engine.model_runner import ModelRunner
from raysearch.engine.networks.point import Point
from raysearch.engine.patching.rows import Patch, Row, Source
from raysearch.errors import ModelError
from tests.engine.more_worlds import MORE
from tests.engine.worlds import (
    CONFIGS,
    VOCAB,
    encoded_pairs,
    logits_of,
    model_from,
    word_tokenizer,
    world_of,
)

LAYER = 0


@dataclass(frozen=True)
class Hand:
    """Where a component of a layer is, in plain torch: a module in its block, whether what enters
    it, and the columns of head 0, 1, ..."""

    path: str
    enters: bool = False
    columns: Sequence[Sequence[int]] = ()


def heads(count: int, width: int, start: int = 0, step: int | None = None) -> list[range]:
    """`count` slices of so many columns, a new one beginning every `step`."""
    step = width if step is None else step
    return [range(start + step * at, start + step * at + width) for at in range(count)]


def codegen(part: int) -> list[range]:
    """Four blocks of two heads; in each its queries (0), its values (1), its keys (2), eight
    columns a head."""
    return [
        range(48 * block + 16 * part + 8 * head, 48 * block + 16 * part + 8 * head + 8)
        for block in range(4)
        for head in range(2)
    ]


def of_falcon(query: list[range], key: list[range], value: list[range]) -> dict[str, Hand]:
    fused = "self_attention.query_key_value"
    return {
        "head": Hand("self_attention.dense", True, heads(4, 8)),
        "query": Hand(fused, columns=query), "key": Hand(fused, columns=key), "value": Hand(fused, columns=value),
    }  # fmt: skip


GROUPS = [range(8), range(8, 16), range(32, 40), range(40, 48)]
"""Queries of two groups: two queries, a key, a value, then two queries, a key, a value."""

BY_HAND: dict[str, dict[str, Hand]] = {
    "gpt_neo": {
        "attention_output": Hand("attn"),
        "head": Hand("attn.attention.out_proj", True, heads(4, 8)),
        "query": Hand("attn.attention.q_proj", columns=heads(4, 8)),
        "key": Hand("attn.attention.k_proj", columns=heads(4, 8)),
        "value": Hand("attn.attention.v_proj", columns=heads(4, 8)),
        "mlp_output": Hand("mlp"),
        "mlp_activation": Hand("mlp.c_proj", True),
    },
    "opt": {"mlp_output": Hand("fc2"), "mlp_activation": Hand("fc2", True), "head": Hand("self_attn.out_proj", True, heads(4, 8))},
    "codegen": {
        "head": Hand("attn.out_proj", True, heads(8, 8)),
        "query": Hand("attn.qkv_proj", columns=codegen(0)),
        "value": Hand("attn.qkv_proj", columns=codegen(1)),
        "key": Hand("attn.qkv_proj", columns=codegen(2)),
    },
    "bigcode": {
        "head": Hand("attn.c_proj", True, heads(4, 8)),
        "query": Hand("attn.c_attn", columns=heads(4, 8)),
        "key": Hand("attn.c_attn", columns=[range(32, 40)]),
        "value": Hand("attn.c_attn", columns=[range(40, 48)]),
    },
    "bigcode_heads": {
        "head": Hand("attn.c_proj", True, heads(4, 8)),
        "query": Hand("attn.c_attn", columns=heads(4, 8, 0, 24)),
        "key": Hand("attn.c_attn", columns=heads(4, 8, 8, 24)),
        "value": Hand("attn.c_attn", columns=heads(4, 8, 16, 24)),
    },
    "persimmon": {
        "head": Hand("self_attn.dense", True, heads(4, 8)),
        "query": Hand("self_attn.query_key_value", columns=heads(4, 8, 0, 24)),
        "key": Hand("self_attn.query_key_value", columns=heads(4, 8, 8, 24)),
        "value": Hand("self_attn.query_key_value", columns=heads(4, 8, 16, 24)),
    },
    "falcon": of_falcon(heads(4, 8), [range(32, 40)], [range(40, 48)]),
    "falcon_heads": of_falcon(heads(4, 8, 0, 24), heads(4, 8, 8, 24), heads(4, 8, 16, 24)),
    "falcon_grouped": of_falcon(GROUPS, heads(2, 8, 16, 32), heads(2, 8, 24, 32)),
    "dbrx": {
        "head": Hand("norm_attn_norm.attn.out_proj", True, heads(4, 8)),
        "query": Hand("norm_attn_norm.attn.Wqkv", columns=heads(4, 8)),
        "key": Hand("norm_attn_norm.attn.Wqkv", columns=heads(2, 8, 32)),
        "value": Hand("norm_attn_norm.attn.Wqkv", columns=heads(2, 8, 48)),
    },
    # Latent attention: of each head four columns of its key, then twelve of its value.
    "deepseek_v3": {
        "head": Hand("self_attn.o_proj", True, heads(4, 12)),
        "query": Hand("self_attn.q_b_proj", columns=heads(4, 8)),
        "value": Hand("self_attn.kv_b_proj", columns=heads(4, 12, 4, 16)),
    },
    "deepseek_v2": {
        "query": Hand("self_attn.q_proj", columns=heads(4, 8)),
        "value": Hand("self_attn.kv_b_proj", columns=heads(4, 12, 4, 16)),
    },
    "mamba2": {"residual": Hand(""), "block_input": Hand("", True), "backbone.layers.{layer}.mixer": Hand("mixer"),
               "backbone.layers.{layer}.mixer.out_proj.input": Hand("mixer.out_proj", True)},
    "rwkv": {
        "residual": Hand(""),
        "block_input": Hand("", True),
        "attention_output": Hand("attention"),
        "mlp_output": Hand("feed_forward"),
        "mlp_activation": Hand("feed_forward.value", True),
        "rwkv.blocks.{layer}.attention.key": Hand("attention.key"),
    },
    "openai": {"residual": Hand(""), "attention_output": Hand("attn"), "value": Hand("attn.c_attn", columns=heads(4, 8, 64))},
    "qwen2_moe": {"model.layers.{layer}.mlp.shared_expert.down_proj.input": Hand("mlp.shared_expert.down_proj", True)},
}  # fmt: skip

PATHS = {"mamba2": "batched", "rwkv": "batched", "openai": "batched"}
"""Those of families that are not replayed."""


@pytest.mark.slow_unless(family=["rwkv", "deepseek_v2"])
@pytest.mark.parametrize("family", BY_HAND)
def test_each_component_is_what_it_is_by_hand_on_the_path_that_is_taken(family: str) -> None:
    world = world_of(model_from({**CONFIGS, **MORE}[family]()))
    hands = BY_HAND[family]
    machine = ModelRunner(
        world.network,
        "float32",
        encoded_pairs(3, 6, shortest=4),
        tuple(hands),
        RunnerSettings(rows=16),
        UsageMeter(),
    )
    assert machine.executor.name == PATHS.get(family, "replay")
    rng, rows, wanted = random.Random(family), [], []
    for component, hand in hands.items():
        assert world.taps.of(component)[LAYER].heads == len(hand.columns)
        for head in range(max(1, len(hand.columns))):
            base, source = (
                tuple(rng.randrange(3, VOCAB) for _ in range(rng.randint(3, 7))) for _ in range(2)
            )
            ours, theirs = (
                tuple(rng.sample(range(len(base)), 2)),
                tuple(rng.sample(range(len(source)), 2)),
            )
            width = len(hand.columns[head]) if hand.columns else 0
            features = range(head * width, (head + 1) * width) if hand.columns else None
            point = Point(LAYER, component)
            rows.append(
                Row(
                    base,
                    (
                        Patch(
                            point,
                            ours,
                            (Source(Row(source), point, theirs, features),),
                            features=features,
                        ),
                    ),
                )
            )
            wanted.append(
                by_hand(
                    world.model, world.network.blocks[LAYER], hand, head, base, source, ours, theirs
                )
            )
    for row, ours_, theirs_ in zip(rows, logits_of(machine.executor, rows), wanted, strict=True):
        assert (world.oracle(row) - theirs_).abs().max() <= 1e-4
        assert (ours_ - theirs_).abs().max() <= 1e-4
    moved = [
        bool((logits - world.plain(row.base)).abs().max() > 1e-3)
        for row, logits in zip(rows, wanted, strict=True)
    ]
    assert sum(moved) > len(rows) / 3  # else nothing was tested


def by_hand(
    model: PreTrainedModel, block: nn.Module, hand: Hand, head: int, base: Sequence[int], source: Sequence[int], ours: Sequence[int],
    theirs: Sequence[int],
) -> Tensor:  # fmt: skip
    """The logits at the last token of `base`, whose tokens `ours` take what `theirs` of `source`
    have, in two plain runs of one row."""
    module = block.get_submodule(hand.path)
    columns = list(hand.columns[head]) if hand.columns else ...
    lent: list[Tensor] = []

    def touch(activation: Tensor) -> Tensor:
        tokens = activation.clone().reshape(
            -1, activation.shape[-1]
        )  # there is one row, whatever the shape
        if not lent:
            lent.append(tokens[list(theirs)][:, columns])
        else:
            for at, token in enumerate(ours):
                tokens[token, columns] = lent[0][at]
        return tokens.reshape(activation.shape)

    def before(_module: nn.Module, args: tuple, kwargs: dict) -> tuple:
        name = "hidden_states" if "hidden_states" in kwargs else "hidden"
        return (
            ((touch(args[0]), *args[1:]), kwargs)
            if args
            else (args, {**kwargs, name: touch(kwargs[name])})
        )

    def after(_module: nn.Module, _args: tuple, out) -> object:
        return type(out)((touch(out[0]), *out[1:])) if isinstance(out, tuple | list) else touch(out)

    handle = (
        module.register_forward_pre_hook(before, with_kwargs=True)
        if hand.enters
        else module.register_forward_hook(after)
    )
    with torch.no_grad():
        model(input_ids=torch.tensor([list(source)]))
        logits = model(input_ids=torch.tensor([list(base)])).logits[0, -1]
    handle.remove()
    return logits


# --- what is no causal language model
# --------------------------------------------------------------------------------

_SMALL = {"vocab_size": VOCAB, "d_model": 8}
_BART = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 8,
         "decoder_ffn_dim": 8}  # fmt: skip


T5 = T5Config(**_SMALL, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
VIT = ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)


@pytest.mark.parametrize(
    ("make", "kind", "why"),
    [
        (
            lambda: T5ForConditionalGeneration(T5),
            "t5",
            "is no causal language model|has an encoder",
        ),
        (
            lambda: BartForConditionalGeneration(BartConfig(**_SMALL, **_BART)),
            "bart",
            "has an encoder",
        ),
        (lambda: ViTForImageClassification(VIT), "vit", "is no causal language model"),
    ],
)
def test_a_folder_of_what_is_no_causal_language_model_says_so_in_one_line(
    make, kind: str, why: str, tmp_path: Path
) -> None:
    make().save_pretrained(tmp_path / "model")
    word_tokenizer().save_pretrained(tmp_path / "model")
    for open_it in (load, inspect_model):
        with pytest.raises(
            ModelError,
            match=rf": {kind} ({why}).*; only causal language models \(decoder-only\) can be "
            rf"searched",
        ) as refused:
            open_it(ModelSource(str(tmp_path / "model")))
        assert "\n" not in str(refused.value)
        assert len(str(refused.value)) < 300 + len(str(tmp_path))
