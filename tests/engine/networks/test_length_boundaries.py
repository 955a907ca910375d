"""Lengths at which a model computes otherwise: rows on both sides of them are what they are alone,
whatever ran before."""

import random
from collections.abc import Callable
from itertools import product

import pytest
import torch
from transformers import (
    Gemma3TextConfig,
    Llama4TextConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PhimoeConfig,
    PretrainedConfig,
)

from raysearch.core.events import Ids, Task
from raysearch.core.runner_settings import RunnerSettings
from raysearch.engine.execution.memory import RowLimit
from raysearch.engine.execution.replay_executor import ReplayExecutor
from raysearch.engine.execution.selfcheck import select_executor
from raysearch.engine.execution.selfcheck_rows import boundary_rows, selfcheck_rows
from raysearch.engine.loading.loaded_model import LoadedModel
from raysearch.engine.networks.length_boundaries import named_lengths, stretch_limit
from raysearch.engine.networks.point import Point
from raysearch.engine.patching.rows import Patch, Row, Source, swap
from raysearch.engine.replica import Replica
from tests.engine.worlds import (
    VOCAB,
    World,
    blocks_of,
    logits_of,
    model_from,
    random_pairs,
    residual,
    word_tokenizer,
    world_of,
)

LIMIT = 6
SIZES = {
    "vocab_size": VOCAB, "hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 64,
    "num_hidden_layers": 3, "initializer_range": 0.4, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
LONG = {
    "rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [1.0, 9.0, 30.0, 90.0], "rope_theta": 10000.0,
    "original_max_position_embeddings": LIMIT, "factor": 8.0,
}  # fmt: skip
CONFIGS: dict[str, Callable[[], PretrainedConfig]] = {
    "longrope": lambda: Phi3Config(
        **SIZES, max_position_embeddings=48, original_max_position_embeddings=LIMIT, rope_parameters=dict(LONG)
    ),
    "longrope_llama": lambda: LlamaConfig(**SIZES, max_position_embeddings=48, rope_parameters=dict(LONG)),
    "longrope_experts": lambda: PhimoeConfig(
        **SIZES, max_position_embeddings=48, num_local_experts=4, head_dim=8,
        rope_parameters={**LONG, "short_mscale": 1.1, "long_mscale": 1.3},
    ),
    "dynamic": lambda: LlamaConfig(
        **SIZES, max_position_embeddings=LIMIT,
        rope_parameters={"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0},
    ),
    "window": lambda: MistralConfig(**SIZES, sliding_window=LIMIT),
    "windows": lambda: Gemma3TextConfig(
        **SIZES, head_dim=8, sliding_window=LIMIT, query_pre_attn_scalar=8,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    ),
    "chunks": lambda: Llama4TextConfig(
        **SIZES, attention_chunk_size=LIMIT, head_dim=8, num_local_experts=2, intermediate_size_mlp=64, moe_layers=[],
        max_position_embeddings=48, floor_scale=4, no_rope_layers=[1, 0, 1],
        layer_types=["chunked_attention", "full_attention", "chunked_attention"],
    ),
}  # fmt: skip
STRETCHED = ("longrope", "longrope_llama", "longrope_experts", "dynamic")


def texts(seed: int, count: int = 8) -> list[Ids]:
    """Of lengths on both sides of the limit, that begin alike."""
    rng = random.Random(seed)
    shared = tuple(rng.randrange(3, VOCAB) for _ in range(3))
    lengths = [5, 6, 7, 8, *(rng.randrange(4, 14) for _ in range(count - 4))]
    return [(*shared, *(rng.randrange(3, VOCAB) for _ in range(length - 3))) for length in lengths]


def rows_of(seed: int, layers: int = 3) -> list[Row]:
    rng, known = random.Random(seed), texts(seed)
    rows = [Row(text) for text in known]
    for base, source in product(known, known):
        if base != source:
            rows.append(
                swap(
                    base,
                    source,
                    rng.randrange(layers),
                    (rng.randrange(min(len(base), len(source))),),
                )
            )
    return rows


def alone(name: str, row: Row) -> torch.Tensor:
    """By a model that has run nothing else."""
    fresh: World = world_of(model_from(CONFIGS[name]()))
    (patch,) = row.patches or (None,)
    if patch is None:
        return fresh.oracle(row)
    other: World = world_of(model_from(CONFIGS[name]()))
    (source,) = patch.sources
    seen: list[torch.Tensor] = []
    block = other.network.layers[source.point.layer]
    handle = block.register_forward_hook(
        lambda _m, _i, out: seen.append(out[0] if isinstance(out, tuple) else out)
    )
    other.plain(source.run.base)
    handle.remove()

    def put(
        _module: object, _given: object, out: torch.Tensor | tuple[torch.Tensor, ...]
    ) -> object:
        hidden = (out[0] if isinstance(out, tuple) else out).clone()
        hidden[0, list(patch.tokens)] = seen[0][0, list(source.tokens)]
        return (hidden, *out[1:]) if isinstance(out, tuple) else hidden

    fresh.network.layers[patch.point.layer].register_forward_hook(put)
    return fresh.plain(row.base)


@pytest.mark.slow_unless(name=["longrope", "chunks"])
@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_every_path_that_is_taken_says_what_a_model_says_that_ran_nothing_else(name: str) -> None:
    world = world_of(model_from(CONFIGS[name]()))
    rows = rows_of(0)
    wanted = {row: alone(name, row) for row in rows[::3]}
    lengths = boundary_rows(texts(0), world.layers, world.network.lengths)
    trial = [*selfcheck_rows(rows[:12], world.layers), *lengths]
    settled = select_executor(world.network, world.taps, trial, RowLimit(64), 2**30, "float32")
    if name not in ("chunks", "longrope_experts"):
        assert settled.executor.name == "replay"
    free = [row for row in rows if settled.executor.is_free(row)]
    asked = [row for row in rows if row not in free]
    found = dict(zip(asked, logits_of(settled.executor, asked), strict=True))
    found |= {row: world.plain(row.base) for row in free}
    for row, logits in wanted.items():
        assert (found[row] - logits).abs().max() < 1e-4, row
        assert torch.allclose(world.oracle(row), logits, atol=1e-5)


@pytest.mark.parametrize("name", STRETCHED)
def test_a_prefix_is_no_identity_across_the_limit_nor_a_batch_of_one_kind(name: str) -> None:
    world = world_of(model_from(CONFIGS[name]()))
    short, long = texts(1)[1], texts(1)[2]
    point = Point(0, "residual")
    across = Row(long, (Patch(point, (1,), (Source(Row(short), point, (1,)),)),))
    within = Row(short, (Patch(point, (1,), (Source(Row(short[:5]), point, (1,)),)),))
    path = ReplayExecutor(world.network, world.taps, world.captures(keys=True))
    assert path.is_free(within)
    assert not path.is_free(across)
    assert (world.oracle(across) - world.plain(long)).abs().max() > 1e-4
    assert world.network.batch_key(short) != world.network.batch_key(long)
    assert world.network.batch_key(long) != world.network.batch_key((*long, 5))


def test_what_was_run_before_changes_nothing_where_frequencies_grow() -> None:
    world = world_of(model_from(CONFIGS["dynamic"]()))
    rng = random.Random(0)
    text = tuple(rng.randrange(3, VOCAB) for _ in range(20))
    before = world.plain(text[:8])
    world.plain(text)
    assert torch.equal(world.plain(text[:8]), before)
    raw = model_from(CONFIGS["dynamic"]())
    with torch.inference_mode():
        raw(input_ids=torch.tensor([text]))
        assert (raw(input_ids=torch.tensor([text[:8]])).logits[0, -1] - before).abs().max() > 1e-2


def test_lengths_are_found_wherever_a_configuration_names_them() -> None:
    assert stretch_limit(CONFIGS["longrope"]().to_dict()) == LIMIT
    assert stretch_limit(CONFIGS["dynamic"]().to_dict()) == LIMIT
    assert stretch_limit(CONFIGS["window"]().to_dict()) is None
    of_layers = {
        "rope_parameters": {"full_attention": {"rope_type": "dynamic"}},
        "max_position_embeddings": 9,
    }
    assert stretch_limit(of_layers) == 9
    assert (
        stretch_limit({"rope_scaling": {"type": "su"}, "original_max_position_embeddings": 7}) == 7
    )
    assert stretch_limit({"rope_scaling": None, "max_position_embeddings": 7}) is None
    for name in CONFIGS:
        assert LIMIT in named_lengths(CONFIGS[name]().to_dict()), name
    assert named_lengths(
        {"a": {"some_chunk": 4}, "hidden": 9, "window": None, "use_window": True}
    ) == (4,)


def test_the_self_check_has_rows_on_both_sides_of_what_inputs_straddle_and_none_else() -> None:
    lengths = {len(row.base) for row in boundary_rows(texts(0), 3, (4, LIMIT, 12, 13, 40))}
    longest = max(map(len, texts(0)))
    expected = {LIMIT, LIMIT + 1} | {n + i for n in (12,) if n < longest for i in (0, 1)}
    assert {LIMIT, LIMIT + 1} <= lengths
    assert 41 not in lengths
    assert lengths >= expected
    assert boundary_rows([(1, 2, 3)], 3, (2, 3, 4)) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["longrope", "dynamic", "chunks"])
def test_a_replica_answers_as_the_plain_one_on_both_sides(name: str) -> None:
    pairs = random_pairs(3, 24, shortest=3, longest=11)

    def replica(plain: bool) -> Replica:
        loaded = LoadedModel(model_from(CONFIGS[name]()), word_tokenizer(), "", "float32")
        return Replica(
            loaded,
            pairs,
            ["first", "here"],
            ["x"],
            "w",
            settings=RunnerSettings(rows=16, plain=plain),
        )

    asked = [residual((layer, at)) for layer in range(3) for at in ("first", "here", "last")]
    task = Task(1, "measure", tuple(asked), blocks_of(pairs, 8))
    ours, plain = (replica(which).do(task) for which in (False, True))
    said = {(e.intervention, e.block): getattr(e, "outputs", None) for e in plain}
    assert {(e.intervention, e.block): getattr(e, "outputs", None) for e in ours} == said
    assert any(said.values())
