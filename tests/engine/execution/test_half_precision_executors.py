"""bfloat16 and float16: an answer is the same whatever else is asked, in whatever order and limit of
rows: that of an executor that is batch-invariant, else the canonical computation's."""

import logging
import random
from dataclasses import replace
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, MixtralConfig

from raysearch.core.events import Measured, Task
from raysearch.core.runner_settings import RunnerSettings
from raysearch.engine.execution.activation_cache import ActivationCache
from raysearch.engine.execution.batch_invariance import is_batch_invariant
from raysearch.engine.execution.canonical_runner import CanonicalRunner
from raysearch.engine.execution.evaluate import Evaluator, RowRequest
from raysearch.engine.execution.executors import PlainExecutor
from raysearch.engine.execution.memory import RowLimit
from raysearch.engine.execution.predict import (
    NEAR_TIE,
    Prediction,
    gap_error,
    least_near_tie,
    near_ties,
    predict,
)
from raysearch.engine.execution.replay_executor import ReplayExecutor
from raysearch.engine.execution.selfcheck import (
    ExecutorChoice,
    error_of,
    select_executor,
)
from raysearch.engine.execution.selfcheck_rows import selfcheck_rows
from raysearch.engine.networks.half_precision import speed_up
from raysearch.engine.patching.oracle import oracle
from raysearch.engine.patching.rows import Row, swap
from raysearch.engine.replica import Replica
from tests.engine.execution.test_executors import asked
from tests.engine.worlds import (
    REPLAYED,
    VOCAB,
    World,
    alike_products,
    blocks_of,
    loaded,
    model_from,
    model_of,
    random_pairs,
    residual,
    world_of,
)

HALVES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
TRIED = ("llama", "gpt2", "gemma3", "qwen3", "bloom", "wide")
WIDE = {
    "vocab_size": 200, "hidden_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 256,
    "num_hidden_layers": 6, "initializer_range": 0.15, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
"""Wide and deep enough for rounding to differ between batches on a CPU: the families of `CONFIGS`
mostly agree bit for bit."""
NOISE = {"bfloat16": 0.12, "float16": 0.06}
"""Of logits, drawn anew for each row and run: more than a CPU does, as between kernels of a GPU."""


@cache
def half_world(family: str, dtype: str) -> World:
    """One that tests must leave as it is."""
    model = model_from(LlamaConfig(**WIDE)) if family == "wide" else model_of(family)
    model.to(HALVES[dtype])
    speed_up(model)  # as a replica does
    return world_of(model)


@cache
def settled_for(family: str, dtype: str, most: int) -> ExecutorChoice:
    world = half_world(family, dtype)
    rows = [row for seed in range(4) for row in asked(world, family, 1000 + seed, 6)]
    return select_executor(
        world.network, world.taps, selfcheck_rows(rows, world.layers), RowLimit(most), 2**30, dtype
    )


def measured(
    world: World,
    settled: ExecutorChoice,
    rows: list[Row],
    most: int,
    tolerance: float | None = None,
) -> list[int]:
    """The outputs as a replica measures them."""
    used = settled.near_tie if tolerance is None else tolerance
    plain = PlainExecutor(world.network, world.taps)
    measurer = Evaluator(settled.executor, plain, settled.cache, RowLimit(most), used)
    items = [RowRequest(f"i{at}", 0, 0, row) for at, row in enumerate(rows)]
    outcome = measurer.measure(items)
    assert not outcome.faults
    return [outcome.predictions[item][0].id for item in items]


@pytest.mark.slow_unless(dtype=["bfloat16"])
@pytest.mark.parametrize("dtype", HALVES)
@settings(max_examples=2, deadline=None)
@given(family=st.sampled_from(TRIED), seed=st.integers(0, 10**6), most=st.sampled_from([3, 64]))
def test_a_row_is_answered_alike_in_any_batch_and_as_the_oracle_does_unless_it_is_a_near_tie(
    dtype: str, family: str, seed: int, most: int
) -> None:
    world = half_world(family, dtype)
    settled = settled_for(family, dtype, most)
    assert settled.executor.name == ("replay" if family in (*REPLAYED, "wide") else "batched")
    rows = asked(world, family, seed, 8)
    canonical = [predict(world.oracle(row)[None])[0] for row in rows]
    answers = measured(world, settled, rows, most)
    if settled.near_tie:
        assert answers == [prediction.id for prediction in canonical]
    assert all(
        answer == prediction.id
        for answer, prediction in zip(answers, canonical, strict=True)
        if prediction.gap >= 2 * settled.tolerance
    )
    shuffled = random.Random(seed).sample(range(len(rows)), len(rows))
    assert measured(world, settled, [rows[at] for at in shuffled], 64) == [
        answers[at] for at in shuffled
    ]
    assert measured(world, settled, rows[:1], most) == answers[:1]


@pytest.mark.skipif(not alike_products(), reason="no MKL, or an untried processor")
@pytest.mark.slow_unless(family=["wide"])
@pytest.mark.parametrize("family", TRIED)
def test_on_this_processor_bfloat16_is_batch_invariant_and_nothing_is_decided_twice(
    family: str,
) -> None:
    settled = settled_for(family, "bfloat16", 64)
    assert settled.near_tie == settled.share == 0.0
    assert settled.tolerance > 0


class DependsOnBatch:
    """An executor whose logits depend on the number of rows of their batch, on whether there are
    many, or on their place."""

    def __init__(self, executor: object, what: str) -> None:
        self._executor, self._what = executor, what

    def __getattr__(self, name: str) -> object:
        return getattr(self._executor, name)

    def logits(
        self, rows: list[Row], replacements: object = None, choices_only: bool = False
    ) -> torch.Tensor:
        logits = self._executor.logits(rows, replacements)
        off = {
            "place": torch.arange(len(rows)),
            "number": torch.full((len(rows),), len(rows)),
            "many": torch.full((len(rows),), len(rows) // 40),
        }[self._what]
        return logits + 1e-5 * off[:, None]


@pytest.mark.parametrize("what", ["place", "number", "many"])
def test_logits_that_depend_on_their_batch_are_noticed(what: str) -> None:
    world = half_world("wide", "bfloat16")
    rows = selfcheck_rows(asked(world, "wide", 3, 6), world.layers)

    def empty_cache() -> ActivationCache:
        return ActivationCache(world.network, world.taps, RowLimit(64), 0.0, 2**30, keys=True)

    def make(cache: ActivationCache) -> DependsOnBatch:
        return DependsOnBatch(ReplayExecutor(world.network, world.taps, cache), what)

    assert not is_batch_invariant(make, empty_cache, rows)


@pytest.mark.skipif(not alike_products(), reason="no MKL, or an untried processor")
@torch.inference_mode()
def test_a_row_of_a_long_prompt_has_the_same_bits_whatever_number_of_rows_its_base_has() -> None:
    """300 tokens and heads of 128, where kernels for AMX sum in another order for many rows."""
    config = WIDE | {"hidden_size": 1024, "num_attention_heads": 8, "max_position_embeddings": 320}
    model = model_from(LlamaConfig(**config)).to(torch.bfloat16)
    speed_up(model)
    world = world_of(model)
    rng = random.Random(1)  # in other draws no sum is rounded otherwise
    base, *sources = (tuple(rng.randrange(3, 200) for _ in range(300)) for _ in range(7))
    rows = [swap(base, source, layer, (299,)) for source in sources for layer in range(6)]
    path = world.replayed()
    (batch,) = path.batches(rows)
    together = path.logits(batch)
    for count in (1, 4, 12, 18):
        assert torch.equal(path.logits(batch[:count]), together[:count]), count


class Noisy:
    """A path whose logits have noise of their own each time, as another company gives them on a
    device where kernels follow shapes."""

    def __init__(self, settled: ExecutorChoice, scale: float, seed: int) -> None:
        self._path, self._scale = settled.executor, scale
        self._generator = torch.Generator().manual_seed(seed)

    def __getattr__(self, name: str) -> object:
        return getattr(self._path, name)

    def logits(
        self, rows: list[Row], lent: object = None, choices_only: bool = False
    ) -> torch.Tensor:
        logits = self._path.logits(rows, lent)
        return logits + self._scale * (2 * torch.rand(logits.shape, generator=self._generator) - 1)


def noisy(family: str, dtype: str, seed: int) -> tuple[World, ExecutorChoice]:
    """A path with noise, and the tolerance that is measured on rows of its own."""
    world = half_world(family, dtype)
    settled = settled_for(family, dtype, 64)
    path = Noisy(settled, NOISE[dtype], seed)
    rows = [
        swap(base, source, at % world.layers, (1,))
        for at, (base, source) in enumerate(texts(99, 32))
    ]
    wanted = {row: predict(world.oracle(row)[None])[0] for row in rows}
    error = error_of(path, settled.cache, wanted)
    assert 0 < error.largest <= 4 * NOISE[dtype]
    tolerance = max(settled.tolerance, 2 * error.largest)
    return world, ExecutorChoice(path, settled.cache, tolerance, tolerance)


def texts(seed: int, count: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    rng = random.Random(seed)
    return [
        (
            tuple(rng.randrange(3, VOCAB) for _ in range(6)),
            tuple(rng.randrange(3, VOCAB) for _ in range(6)),
        )
        for _ in range(count)
    ]


@pytest.mark.slow_unless(dtype=["bfloat16"], family=["gpt2"])
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_where_companies_differ_near_ties_are_decided_again_and_else_answers_would_hang_on_them(
    family: str, dtype: str
) -> None:
    """Each answer is right twice, though the path says something else each time; without a second
    decision some are not."""
    rows = [swap(base, source, at % 2, (at % 6,)) for at, (base, source) in enumerate(texts(5, 60))]
    with_it, without = [], []
    for seed in (0, 1):
        world, settled = noisy(family, dtype, seed)
        with_it.append(measured(world, settled, rows, 64))
        without.append(measured(world, settled, rows, 64, tolerance=0.0))
    canonical = [predict(world.oracle(row)[None])[0].id for row in rows]
    assert with_it == [canonical, canonical]
    assert without != [canonical, canonical]
    assert without[0] != without[1]


@pytest.mark.slow_unless(dtype=["bfloat16"], family=["llama"])
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_replica_gives_the_same_outputs_for_any_limit_of_rows_order_and_grouping(
    family: str, dtype: str
) -> None:
    pairs = random_pairs(7, 16)
    places = [residual((layer, at)) for layer in range(2) for at in ("first", "here", "last")]

    def outputs(rows: int, order: list[int], groups: int) -> dict[tuple[str, int], object]:
        model = replace(loaded(model_of(family, scale=0.3).to(HALVES[dtype])), dtype=dtype)
        replica = Replica(
            model,
            pairs,
            ["first", "here"],
            ["x"],
            "w",
            settings=RunnerSettings(rows=rows),
        )
        assert replica.opened.facts.path == "replay"
        found: dict[tuple[str, int], object] = {}
        chosen = [places[at] for at in order]
        for start in range(0, len(chosen), groups):
            for block in blocks_of(pairs, 8):
                events = replica.do(
                    Task(1, "measure", tuple(chosen[start : start + groups]), (block,))
                )
                found |= {
                    (e.intervention, e.block): e.outputs for e in events if isinstance(e, Measured)
                }
        return found

    first = outputs(64, list(range(6)), 6)
    assert len(first) == 12
    assert first == outputs(3, [5, 2, 0, 4, 1, 3], 2)


@pytest.mark.slow_unless(dtype=["bfloat16"])
@pytest.mark.parametrize("dtype", HALVES)
def test_the_canonical_computation_is_the_oracle_bit_for_bit_and_makes_each_source_once(
    dtype: str,
) -> None:
    world = half_world("wide", dtype)
    rows = [row for row in asked(world, "wide", 11, 20) if row.patches]
    ran: list[int] = []
    for room in (2**28, 0):
        canonical = CanonicalRunner(world.network, world.taps, room)
        for row in rows:
            assert torch.equal(canonical.logits(row), oracle(world.network, world.taps, row)), row
    canonical = CanonicalRunner(world.network, world.taps)
    handle = world.model.get_input_embeddings().register_forward_hook(lambda *_: ran.append(1))
    try:
        for layer in range(6):
            canonical.logits(swap((5, 6, 7, 8), (9, 10, 11, 12), layer, (1,)))
    finally:
        handle.remove()
    assert len(ran) == 7


def test_a_row_whose_patch_puts_back_the_same_bits_is_its_base_and_another_is_not() -> None:
    world = half_world("wide", "bfloat16")
    canonical = CanonicalRunner(world.network, world.taps)
    same, other = (
        swap((5, 6, 7, 8), (5, 6, 7, 9), 1, (2,)),
        swap((5, 6, 7, 8), (5, 6, 4, 9), 1, (2,)),
    )
    assert canonical.changes_nothing(same)
    assert torch.equal(canonical.logits(same), world.plain((5, 6, 7, 8)))
    assert not canonical.changes_nothing(other)
    assert not canonical.changes_nothing(Row((5, 6, 7)))


@pytest.mark.parametrize("dtype", HALVES)
def test_a_mixture_of_experts_is_run_row_by_row_in_half_precision_and_says_why(
    dtype: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A router's near-tie may go either way in a batch: in float16 one row of 285 answered
    otherwise with a gap that looked safe."""
    config = MixtralConfig(**WIDE, num_local_experts=8, num_experts_per_tok=2)
    for name, expected in ((dtype, "plain"), ("float32", "replay")):
        world = world_of(model_from(config).to(getattr(torch, name)))
        rows = [swap(base, source, 1, (1,)) for base, source in texts(0, 6)]
        with caplog.at_level(logging.WARNING):
            assert (
                select_executor(
                    world.network, world.taps, rows, RowLimit(8), 2**28, name
                ).executor.name
                == expected
            )
    assert [r.message for r in caplog.records if "discrete choices" in r.message]


@pytest.mark.parametrize("chooses", ["short", "long"])
def test_a_choice_that_texts_of_some_lengths_make_is_seen(
    chooses: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A sparse attention chooses keys in long texts alone, for instance."""
    world = world_of(model_of("llama").to(torch.bfloat16))

    def choose(_module: object, _given: object, out: torch.Tensor) -> None:
        if (out.shape[1] > 6) is (chooses == "long"):
            out.topk(1)

    world.network.layers[1].register_forward_hook(choose)
    bases = (3, 4, 5, 6), tuple(range(3, 11)), (4, 5, 6, 7)
    rows = selfcheck_rows([swap(base, base[::-1], 1, (1,)) for base in bases], world.layers)
    with caplog.at_level(logging.WARNING):
        select_executor(world.network, world.taps, rows, RowLimit(8), 2**28, "bfloat16")
    assert "makes discrete choices on its way (topk)" in caplog.text


@pytest.mark.slow_unless(dtype=["float32", "bfloat16"])
@pytest.mark.parametrize("dtype", ["float32", *HALVES])
def test_a_path_that_is_wrong_and_not_only_rounded_is_refused(
    dtype: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A model whose blocks look ahead: a batch is right, a replay is not, however coarse the
    numbers."""
    world = world_of(model_of("llama").to(HALVES.get(dtype, torch.float32)))
    for block in world.network.layers:
        block.register_forward_hook(
            lambda _m, _i, out: out + 0.5 * out.flip(1) if out.shape[0] > 1 else out
        )
    rows = selfcheck_rows(
        [swap(base, source, 1, (1,)) for base, source in texts(0, 40)], world.layers
    )
    with caplog.at_level(logging.WARNING):
        assert (
            select_executor(
                world.network, world.taps, rows, RowLimit(64), 2**28, dtype
            ).executor.name
            == "plain"
        )
    assert "not the same as one run at a time" in caplog.text


def test_the_error_of_a_gap_is_what_would_let_the_second_win() -> None:
    one = Prediction(3, 0.5, True)
    assert gap_error(one, Prediction(3, 0.2, True)) == pytest.approx(0.3)
    assert gap_error(one, Prediction(4, 0.2, True)) == pytest.approx(0.7)
    assert gap_error(one, Prediction(3, 0.5, False)) == float("inf")
    assert gap_error(Prediction(0, 0.0, False), Prediction(3, 0.5, False)) == 0


def test_the_least_near_tie_follows_the_step_of_the_highest_logit() -> None:
    assert least_near_tie("bfloat16", [3.0, -20.0]) == 4 * 0.125
    assert least_near_tie("float16", [20.0]) == 4 / 64
    assert least_near_tie("bfloat16", [-100.0]) == 2.0
    assert least_near_tie("float32", [100.0]) == NEAR_TIE["float32"]
    assert least_near_tie("bfloat16", []) == NEAR_TIE["bfloat16"]


def test_decisions_taken_before_the_tolerance_was_known_are_taken_again() -> None:
    world = half_world("wide", "bfloat16")
    captures = ActivationCache(world.network, world.taps, RowLimit(8), 0.0, 2**28)
    rows = [Row(base) for base, _ in texts(3, 8)]
    assert not any(d.was_near_tie for d in captures.predictions(rows))
    captures.set_tolerance(1e9)
    assert all(d.was_near_tie for d in captures.predictions(rows))


def test_what_is_no_number_in_a_batch_is_left_to_the_canonical_computation() -> None:
    decisions = predict(
        torch.tensor([[0.0, float("nan")], [0.0, 9.0], [0.0, 0.5], [0.0, float("inf")]])
    )
    assert near_ties(decisions, 1.0) == [0, 2, 3]
