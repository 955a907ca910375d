"""The canonical computation, made cheaper: begun at the first patch, the head at the answer alone,
no more read than there is room for."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from transformers import LlamaConfig

from raysearch.engine.execution.canonical_runner import CanonicalRunner
from raysearch.engine.patching.oracle import oracle
from raysearch.engine.patching.rows import Patch, Point, Row, Source, swap
from tests.engine.execution.test_executors import asked
from tests.engine.execution.test_half_precision_executors import WIDE
from tests.engine.worlds import CONFIGS, World, model_from, model_of, older, world_of

DTYPES = ("float32", "bfloat16", "float16")
TEXT, OTHER = (5, 6, 7, 8, 9), (9, 10, 11, 12, 13)


def world(family: str, dtype: str) -> World:
    model = model_from(LlamaConfig(**WIDE)) if family == "wide" else model_of(family)
    return world_of((older(model) if family == "older" else model).to(getattr(torch, dtype)))


def proved(world: World, room: int = 2**28) -> CanonicalRunner:
    layers = len(world.network.blocks)
    canonical = CanonicalRunner(world.network, world.taps, room)
    canonical.prove([swap(TEXT, OTHER, layer, (2,)) for layer in range(layers)])
    return canonical


@contextmanager
def blocks_run(world: World) -> Iterator[list[int]]:
    """The layers whose blocks are run within, in their order."""
    ran: list[int] = []
    handles = [
        b.register_forward_hook(lambda *_, at=at: ran.append(at))
        for at, b in enumerate(world.network.layers)
    ]
    try:
        yield ran
    finally:
        for handle in handles:
            handle.remove()


@torch.inference_mode()
@pytest.mark.slow_unless(family=["wide"], dtype=["float32"])
@pytest.mark.slow_unless(family=["wide", "gpt_neox", "gemma2", "bloom", "mpt"], dtype=["bfloat16"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", ["wide", *CONFIGS])
def test_begun_at_its_first_patch_a_row_is_the_whole_run_bit_for_bit(
    family: str, dtype: str
) -> None:
    here = world(family, dtype)
    canonical = proved(here)
    assert canonical.resumes or family in (
        "bloom",
        "mpt",
    )  # these hand their blocks more than a residual, or may
    rows = [row for row in asked(here, family, 21, 12) if row.patches]
    for row in rows * 2:  # the first time that a base is met all is run
        assert torch.equal(canonical.logits(row), oracle(here.network, here.taps, row)), row


@torch.inference_mode()
def test_blocks_below_a_patch_are_run_once_for_all_rows_of_a_base() -> None:
    here = world("wide", "bfloat16")
    canonical = proved(here)
    rows = [swap(OTHER, TEXT, layer, (at,)) for layer in (2, 4, 5) for at in range(3)]
    with blocks_run(here) as ran:
        for row in rows:
            canonical.logits(row)
    # OTHER and TEXT were run whole when they were proved on; of each row is run what lies above.
    assert ran == [at for layer in (2, 4, 5) for _ in range(3) for at in range(layer, 6)]


@torch.inference_mode()
def test_a_model_whose_blocks_hand_on_more_than_a_residual_is_run_whole() -> None:
    here = world("wide", "float32")
    said: list[torch.Tensor] = []
    here.network.layers[0].register_forward_hook(lambda _m, _i, out: said.append(out.mean()))
    here.network.layers[5].register_forward_hook(
        lambda _m, _i, out: out + said.pop() + 0 * len(said)
    )
    row = swap(TEXT, OTHER, 3, (2,))
    assert not proved(here).resumes
    assert torch.equal(proved(here).logits(row), oracle(here.network, here.taps, row))


@pytest.mark.slow_unless(room=[0, 20_000])
@torch.inference_mode()
@pytest.mark.parametrize("room", [0, 3_000, 20_000, 2**28])
def test_no_more_is_kept_and_no_more_is_read_than_there_is_room_for(room: int) -> None:
    """Of a text of 5 tokens a layer's residual is 1,280 bytes in bfloat16, six layers' 7,680."""
    here = world("wide", "bfloat16")
    canonical = CanonicalRunner(here.network, here.taps, room)
    texts = [tuple(range(first, first + 5)) for first in range(3, 12)]
    for layer in range(6):
        for text in texts:
            point = Point(layer, "residual")
            lent = canonical._read_run(Row(text), [point])
            assert len(lent) == 6 if room >= 7_680 else len(lent) <= 2
            assert sum(tensor.nbytes for tensor in lent.values()) <= max(room, 1_280)
            assert canonical._bytes == sum(
                t.nbytes for kept in canonical._cached.values() for t in kept.values()
            )
            assert canonical._bytes <= room
            row = Row(TEXT, (Patch(point, (2,), (Source(Row(text), point, (2,)),)),))
            assert torch.equal(canonical.logits(row), oracle(here.network, here.taps, row))


@torch.inference_mode()
@pytest.mark.slow_unless(dtype=["bfloat16"])
@pytest.mark.slow_unless(family=["wide", "llama", "gpt2"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", ["wide", *CONFIGS])
def test_the_head_at_the_answer_alone_says_what_the_whole_run_says(family: str, dtype: str) -> None:
    here = world(family, dtype)
    whole, alone = here.network.plain(TEXT, whole=True), here.network.plain(TEXT)
    step = torch.finfo(getattr(torch, dtype)).eps * float(whole.abs().max())
    assert (whole - alone).abs().max() <= 4 * step


@torch.inference_mode()
def test_a_patch_on_the_head_itself_is_written_at_each_token() -> None:
    here = world("llama", "float32")
    point = Point(None, "lm_head.input")
    row = Row(TEXT, (Patch(point, (1, 4), (Source(Row(OTHER), point, (1, 4)),)),))
    said = oracle(here.network, here.taps, row)
    assert torch.allclose(said, here.plain(OTHER), atol=1e-5)
    assert torch.equal(proved(here).logits(row), said)


@torch.inference_mode()
def test_blocks_that_return_tuples_are_left_out_too() -> None:
    here = world_of(older(model_of("llama")))
    canonical = proved(here)
    assert canonical.resumes
    row = swap(TEXT, OTHER, 2, (2,))
    assert torch.equal(canonical.logits(row), oracle(here.network, here.taps, row))
