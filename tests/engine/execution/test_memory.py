"""Keeping within memory: work is split where it does not fit, captures stay below what they may
take, answers stay the same."""

import random
from collections.abc import Callable, Sequence
from functools import cache

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from raysearch.engine.execution.activation_cache import ActivationCache
from raysearch.engine.execution.evaluate import Evaluator, RowRequest
from raysearch.engine.execution.executors import BatchedExecutor, PlainExecutor
from raysearch.engine.execution.memory import RowLimit, capture_bytes, run_in_halves
from raysearch.engine.execution.predict import NEAR_TIE, Prediction, predict
from raysearch.engine.execution.replay_executor import ReplayExecutor
from raysearch.engine.networks.blocks import layers_of
from raysearch.engine.networks.point import Point
from raysearch.engine.patching.rows import Patch, Row, Source, swap
from raysearch.errors import is_out_of_memory
from tests.engine.worlds import VOCAB, World, logits_of, model_of, shared_world, world_of

ON_A_GPU = torch.OutOfMemoryError
Error = Callable[[str], Exception]


def on_a_cpu(text: str) -> RuntimeError:
    """What torch raises there, of no class of its own."""
    return RuntimeError(
        f"[enforce fail at alloc_cpu.cpp:118] . DefaultCPUAllocator: can't allocate memory: {text}"
    )


def fits(
    most: int, error: Error = ON_A_GPU
) -> tuple[Callable[[Sequence[int]], list[int]], list[int]]:
    """Something to do that runs out of memory above `most` items, and the sizes that were tried."""
    tried: list[int] = []

    def do(items: Sequence[int]) -> list[int]:
        tried.append(len(items))
        if len(items) > most:
            raise error("out of memory")
        return [-i for i in items]

    return do, tried


# --- halving
# ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ON_A_GPU, on_a_cpu])
@pytest.mark.parametrize("most", [1, 2, 3, 7, 16, 40])
@pytest.mark.parametrize("count", [1, 2, 5, 16, 33])
def test_what_does_not_fit_is_split_until_it_does_and_the_size_is_remembered(
    count: int, most: int, error: Error
) -> None:
    do, tried = fits(most, error)
    limit = RowLimit(64)
    done = [result for part in run_in_halves(list(range(count)), do, limit) for result in part]
    assert done == [-i for i in range(count)]  # all, once, in their order
    assert tried[0] == count
    if count <= most:
        assert (tried, limit.rows) == ([count], 64)
    else:
        assert limit.rows <= most
        assert limit.rows >= most / 2  # no smaller than need be


def test_a_limit_never_rises() -> None:
    limit = RowLimit(3)
    do, _ = fits(10)
    assert [r for part in run_in_halves(list(range(18)), do, limit) for r in part] == [
        -i for i in range(18)
    ]
    assert limit.rows == 3


@pytest.mark.parametrize("error", [ON_A_GPU, on_a_cpu])
def test_a_single_item_that_does_not_fit_is_an_error(error: Error) -> None:
    do, tried = fits(0, error)
    with pytest.raises(RuntimeError, match=r"out of memory"):
        list(run_in_halves([1, 2, 3, 4], do, RowLimit(64)))
    assert tried == [4, 2, 1]


def test_another_error_is_not_split() -> None:
    do, tried = fits(1, RuntimeError)
    with pytest.raises(RuntimeError, match=r"^out of memory$"):
        list(run_in_halves([1, 2, 3, 4], do, RowLimit(64)))
    assert tried == [4]
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))
    assert not is_out_of_memory(ValueError())


def test_on_a_cpu_captures_may_take_some_of_what_is_free() -> None:
    assert 2**20 < capture_bytes(torch.device("cpu")) <= 2 * 2**30


# --- captures
# ---------------------------------------------------------------------------------------------------------


def rows_of(world: World, count: int = 24, seed: int = 0) -> list[Row]:
    """Of several components and layers, over a dozen texts, some from runs intervened upon."""
    rng, components = random.Random(seed), world.components()
    texts = [
        tuple(rng.randrange(3, VOCAB) for _ in range(rng.choice((6, 7, 8)))) for _ in range(12)
    ]
    rows = []
    for _ in range(count):
        base, source, other = rng.sample(texts, 3)
        component = rng.choice(components)
        point, at = (
            Point(rng.choice(sorted(world.taps.of(component))), component),
            (rng.randrange(6),),
        )
        run = swap(source, other, 0, at) if rng.random() < 0.3 else Row(source)
        rows.append(Row(base, (Patch(point, at, (Source(run, point, at),)),)))
    return rows


def kept_bytes(captures: ActivationCache) -> int:
    """What is really held: the storages of all tensors that are kept."""
    found: dict[int, int] = {}
    for run in captures._runs.values():
        batch = run.batch
        for layers in (*batch.activations.values(), batch.keys, batch.values):
            for tensor in [layers] if isinstance(layers, Tensor) else layers or ():
                found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    return sum(found.values())


@cache
def with_room(family: str) -> list[list[Tensor]]:
    """The logits of `rows_of` on each fast path, where captures may take what they like."""
    world = shared_world(family)
    return [logits_of(path, rows_of(world)) for path in world.fast()]


@pytest.mark.slow_unless(family=["llama"], max_bytes=[1])
@pytest.mark.slow_unless(max_bytes=[9_000])
@pytest.mark.parametrize("max_bytes", [0, 1, 9_000, 40_000, 2**30])
@pytest.mark.parametrize("family", ["llama", "gpt2", "deepseek_v3"])
def test_with_little_room_the_logits_are_the_same(family: str, max_bytes: int) -> None:
    world = shared_world(family)
    rows = rows_of(world)
    for path, wanted in zip(world.fast(64, max_bytes), with_room(family), strict=True):
        for ours, theirs in zip(logits_of(path, rows), wanted, strict=True):
            assert (ours - theirs).abs().max() <= 1e-5


@pytest.mark.parametrize("max_bytes", [0, 9_000, 100_000])
@pytest.mark.parametrize("keys", [False, True])
def test_what_is_kept_takes_no_more_than_it_may(keys: bool, max_bytes: int) -> None:
    world = shared_world("llama")
    captures = world.captures(64, max_bytes, keys=keys)
    path = (
        ReplayExecutor(world.network, world.taps, captures)
        if keys
        else BatchedExecutor(world.network, world.taps, captures)
    )
    for batch in path.batches(rows_of(world)):
        path.logits(batch)
        assert kept_bytes(captures) == captures._bytes <= max_bytes
    assert bool(captures._runs) == (
        max_bytes == 100_000
    )  # one run with all components takes more than 9000


@pytest.mark.parametrize("most", [1, 3, 64])
@pytest.mark.parametrize("room", [0, 1, 2, 5, 100])
def test_parts_fit_into_the_room_there_is_and_rows_are_all_there_in_order(
    room: int, most: int
) -> None:
    world = shared_world("llama")
    rows = [swap((5, 6, 7, 8 + at), (20, 21, 22, 8 + at), 1, (2,)) for at in range(20)]
    captures = world.captures(most)
    captures.want(["residual"])
    (run,) = captures.runs([Row(rows[0].base)]).values()
    captures = world.captures(most, room * run.nbytes)
    captures.want(["residual"])
    captures.runs([Row(rows[0].base)])  # from now on it is known how much one takes
    parts = list(captures.parts_that_fit(rows))
    assert [row for part in parts for row in part] == rows
    for part in parts:
        runs = {Row(row.base) for row in part} | {
            p.sources[0].run for row in part for p in row.patches
        }
        assert len(part) <= most
        assert len(part) == 1 or len(runs) <= room
    assert len(parts) == -(
        -20 // max(1, min(most, room // 2))
    )  # two runs a row, and no more parts than need be


def test_rows_that_share_runs_share_their_room() -> None:
    world = shared_world("llama")
    rows = [
        swap((5, 6, 7, 8), (20, 21, 22, 23), layer, (token,))
        for layer in range(4)
        for token in range(4)
    ]
    captures = world.captures()
    captures.want(["residual"])
    (run, _) = captures.runs([Row((5, 6, 7, 8)), Row((20, 21, 22, 23))]).values()
    captures = world.captures(64, 2 * run.nbytes)
    captures.want(["residual"])
    captures.runs([Row((5, 6, 7, 8))])
    assert list(captures.parts_that_fit(rows)) == [rows]


def test_the_run_used_last_is_kept_longest_and_made_once() -> None:
    world, ran = world_of(model_of("llama")), []
    first, second, third = (Row((5, 6, 7, token)) for token in (8, 9, 10))
    captures = world.captures()
    captures.want(["residual"])
    size = captures.runs([first])[first].nbytes
    captures = world.captures(64, 2 * size)
    captures.want(["residual"])
    world.model.get_input_embeddings().register_forward_hook(
        lambda m, i, o: ran.extend(i[0][:, -1].tolist())
    )
    for row in (first, second, first, third, first, second):
        captures.runs([row])
    assert ran == [8, 9, 10, 9]


def test_a_run_is_made_again_where_another_component_is_wanted_of_it() -> None:
    world, row, point = shared_world("llama"), Row((5, 6, 7, 8)), Point(2, "head")
    captures = world.captures()
    captures.want(["residual"])
    assert set(captures.runs([row])[row].batch.activations) == {"residual"}
    captures.want(["head"])
    run = captures.runs([row])[row]
    assert set(run.batch.activations) == {"residual", "head"}
    assert captures.at(run, point).shape == (4, 32)
    assert kept_bytes(captures) == captures._bytes == run.nbytes


# --- out of memory
# ----------------------------------------------------------------------------------------------------


def short_of_memory(model: PreTrainedModel, rows: int, error: Error) -> list[int]:
    """Lets the last block run out of memory above so many rows; how many rows it got."""
    got: list[int] = []

    def refuse(module, inputs, output) -> None:
        got.append(len(output))
        if len(output) > rows:
            raise error("out of memory")

    layers_of(model)[-1].register_forward_hook(refuse)
    return got


@cache
def by_the_oracle() -> dict[Row, Prediction]:
    world = shared_world("llama")
    return {row: predict(world.oracle(row)[None])[0] for row in rows_of(world, 40)}


@pytest.mark.slow_unless(room=[2])
@pytest.mark.parametrize("error", [ON_A_GPU, on_a_cpu])
@pytest.mark.parametrize("room", [1, 2, 3])
@pytest.mark.parametrize("path", ["batched", "replay"])
def test_a_measurement_that_runs_out_of_memory_ends_with_every_outcome_and_no_fault(
    path: str, room: int, error: Error
) -> None:
    wanted = by_the_oracle()
    world = world_of(model_of("llama"))
    rows_of(world)  # all components have been looked at
    got, limit, tolerance = (
        short_of_memory(world.model, room, error),
        RowLimit(64),
        NEAR_TIE["float32"],
    )
    captures = ActivationCache(
        world.network, world.taps, limit, tolerance, 2**30, keys=path == "replay"
    )
    one = (ReplayExecutor if path == "replay" else BatchedExecutor)(
        world.network, world.taps, captures
    )
    measurer = Evaluator(one, PlainExecutor(world.network, world.taps), captures, limit, tolerance)
    items = [RowRequest(f"i{at % 5}", at % 3, at, row) for at, row in enumerate(wanted)]
    outcome = measurer.measure(items)
    assert not outcome.faults
    assert {item: d.id for item, (d,) in outcome.predictions.items()} == {
        item: wanted[item.row].id for item in items
    }
    assert max(got) > room >= limit.rows >= 1
    got.clear()
    more = [RowRequest("more", 0, at, row) for at, row in enumerate(rows_of(world, 30, seed=1))]
    assert not measurer.measure(more).faults
    assert max(got) <= room  # what did not fit is not tried again


def test_an_item_that_does_not_fit_alone_is_a_fault_of_its_intervention_only() -> None:
    world = world_of(model_of("llama"))
    low, high = (swap((5, 6, 7, 8), (9, 10, 11, 12), layer, (2,)) for layer in (0, 2))
    limit, tolerance = RowLimit(64), NEAR_TIE["float32"]
    captures = world.captures(64, tolerance=tolerance, keys=True)
    path = ReplayExecutor(world.network, world.taps, captures)
    wanted = {row: predict(world.oracle(row)[None])[0].id for row in (low, high)}
    path.logits([low, high])  # runs and templates are there: what fails is the wave

    def refuse(module, inputs, output) -> None:
        raise ON_A_GPU("out of memory")

    layers_of(world.model)[1].register_forward_hook(refuse)
    measurer = Evaluator(path, PlainExecutor(world.network, world.taps), captures, limit, tolerance)
    outcome = measurer.measure([RowRequest("low", 0, 0, low), RowRequest("high", 3, 0, high)])
    assert {name: (fault.block, type(fault.error)) for name, fault in outcome.faults.items()} == {
        "low": (0, ON_A_GPU)
    }
    assert [(item.intervention, d.id) for item, (d,) in outcome.predictions.items()] == [
        ("high", wanted[high])
    ]
    assert torch.isfinite(path.logits([high])).all()


def test_runs_that_are_made_in_halves_are_all_there() -> None:
    world = world_of(model_of("llama"))
    short_of_memory(world.model, 3, ON_A_GPU)
    captures = world.captures()
    captures.want(["residual"])
    rows = [Row((5, 6, 7, token)) for token in range(8, 20)]
    runs = captures.runs([*rows, swap((5, 6, 7, 8), (5, 6, 7, 9), 1, (3,))])
    assert len(runs) == 13
    for row in rows:
        alone = shared_world("llama").captures()
        alone.want(["residual"])
        wanted = alone.runs([row])[row]
        for layer in range(4):
            ours = runs[row].at("residual", layer)
            assert torch.allclose(ours, wanted.at("residual", layer), atol=1e-4)
    assert captures._limit.rows <= 3
