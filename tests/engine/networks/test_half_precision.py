"""Products of halves on a CPU: the same numbers, but for one rounding, by the faster way, with
copies of the weights or without."""

import copy

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from raysearch.engine.execution.memory import room_on_host
from raysearch.engine.loading.given_model import GivenModel
from raysearch.engine.networks import half_precision as products
from raysearch.engine.networks.half_precision import (
    BLOCK,
    copied_bytes,
    drop_copies,
    keep_copies,
    multiplies_in_float32,
    slow_down,
    speed_up,
)
from tests.engine.worlds import alike_products, model_of, word_tokenizer

SIZE = 4 * 96 * 48
"""Bytes of a copy of the layer's weights."""


@pytest.fixture(params=["bfloat16", "float16"])
def dtype(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.dtype:
    """On a processor without units that multiply it faster than float32."""
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_fp16_supported", lambda: False)
    return getattr(torch, request.param)


@pytest.fixture(params=[nn.Linear, Conv1D])
def layer(request: pytest.FixtureRequest, dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    made = nn.Linear(96, 48) if request.param is nn.Linear else Conv1D(48, 96)
    nn.init.normal_(made.weight, std=0.1)
    nn.init.normal_(made.bias)
    made = made.to(dtype).requires_grad_(False)
    speed_up(nn.Sequential(made))
    return made


def exact(layer: nn.Module, given: torch.Tensor) -> torch.Tensor:
    weight = layer.weight if isinstance(layer, Conv1D) else layer.weight.T
    return given.double() @ weight.double() + layer.bias.double()


@pytest.mark.parametrize(
    "shape",
    [
        (1, 96),
        (1, 1, 96),
        (1, 31, 96),
        (32, 96),
        (3, 32, 96),
    ],
)
def test_a_product_is_the_exact_one_rounded_once_with_a_copy_and_without_alike(
    layer: nn.Module, shape: tuple[int, ...]
) -> None:
    given = torch.randn(shape).to(layer.weight.dtype)
    said = layer(given)
    assert said.dtype == given.dtype
    assert torch.allclose(said.double(), exact(layer, given), rtol=2**-7, atol=1e-2)
    assert keep_copies(layer, SIZE) == (SIZE, SIZE)
    assert torch.equal(layer(given), said)
    drop_copies(layer)
    assert torch.equal(layer(given), said)


def test_a_copy_is_used_and_never_where_the_weights_have_changed(
    layer: nn.Module,
) -> None:
    given = torch.randn(64, 96).to(layer.weight.dtype)
    keep_copies(layer, SIZE)
    vars(layer)[products.PLAN].copy.numbers.zero_()  # so that its use shows
    assert torch.equal(layer(given), layer.bias.expand(64, -1))
    layer.weight.mul_(2)
    assert torch.allclose(layer(given).double(), exact(layer, given), rtol=2**-7, atol=2e-2)
    keep_copies(layer, SIZE)
    layer.weight.data = layer.weight.data * 2
    assert torch.allclose(layer(given).double(), exact(layer, given), rtol=2**-7, atol=4e-2)
    keep_copies(layer, SIZE)
    layer.weight = nn.Parameter(layer.weight / 2, requires_grad=False)
    assert torch.allclose(layer(given).double(), exact(layer, given), rtol=2**-7, atol=2e-2)


def test_no_more_is_kept_than_there_is_room_for_and_what_is_not_computes_the_same(
    dtype: torch.dtype,
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(96, 96) for _ in range(3))).to(dtype).requires_grad_(False)
    speed_up(model)
    given, size = torch.randn(64, 96).to(dtype), 4 * 96 * 96
    said = model(given)
    for room, kept in ((0, 0), (size - 1, 0), (2 * size + 1, 2), (9 * size, 3)):
        assert keep_copies(model, room) == (kept * size, 3 * size)
        assert sum(vars(m)[products.PLAN].copy is not None for m in model) == kept
        assert torch.equal(model(given), said)
    assert copied_bytes(model, dtype) == 3 * size
    assert copied_bytes(model, torch.float32) == 0


def test_gradients_flow_and_a_copy_of_the_layer_computes_with_its_own_weights(
    layer: nn.Module,
) -> None:
    given = torch.randn(64, 96).to(layer.weight.dtype).requires_grad_()
    keep_copies(layer, SIZE)
    layer(given).sum().backward()
    wanted = (
        (layer.weight if isinstance(layer, Conv1D) else layer.weight.T)
        .float()
        .sum(1)
        .expand(64, -1)
    )
    assert torch.allclose(given.grad.float(), wanted, rtol=2**-6, atol=0.02)
    other = copy.deepcopy(layer)
    other.weight.zero_()
    other.bias.zero_()
    assert not other(given).any()
    assert layer(given).any()


def test_weights_that_are_trained_get_their_gradients_and_no_copy(layer: nn.Module) -> None:
    layer.requires_grad_(True)
    assert keep_copies(layer, SIZE) == (0, 0)
    layer(torch.randn(64, 96).to(layer.weight.dtype)).sum().backward()
    assert layer.weight.grad.any()


def test_which_way_is_taken_follows_from_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {}
    for amx in (True, False):
        for units in (True, False):
            monkeypatch.setattr(
                torch.cpu, "_is_amx_tile_supported", lambda amx=amx: amx, raising=False
            )
            for name in ("bf16", "fp16"):
                monkeypatch.setattr(
                    torch.ops.mkldnn, f"_is_mkldnn_{name}_supported", lambda units=units: units
                )
            found[amx, units] = [
                multiplies_in_float32(d) for d in (torch.bfloat16, torch.float16, torch.float32)
            ]
    assert found == {
        (True, True): [False, False, False],
        (True, False): [False, True, False],
        (False, True): [True, False, False],
        (False, False): [True, True, False],
    }


@pytest.mark.skipif(not alike_products(), reason="no MKL, or an untried processor")
def test_the_bits_of_a_row_depend_neither_on_its_batch_nor_on_its_place(layer: nn.Module) -> None:
    given = torch.randn(96, 96).to(layer.weight.dtype)
    whole = layer(given)
    assert all(torch.equal(layer(given[:rows]), whole[:rows]) for rows in range(1, 96))
    assert torch.equal(layer(given.flip(0)), whole.flip(0))


@pytest.mark.skipif(not alike_products(), reason="no MKL, or an untried processor")
@pytest.mark.parametrize("widths", [(1536, 576), (576, 4096)])
def test_so_they_do_where_few_rows_have_another_way_of_their_own(
    dtype: torch.dtype, widths: tuple[int, int]
) -> None:
    """Up to three rows, MKL on an AMD EPYC sums these widths in another order."""
    torch.manual_seed(0)
    layer = nn.Linear(*widths, bias=False).to(dtype).requires_grad_(False)
    speed_up(layer)
    given = torch.randn(64, widths[0]).to(dtype)
    whole = layer(given)
    for rows in (1, 2, 3, 4, 5, 17):
        assert torch.equal(layer(given[:rows]), whole[:rows]), rows
        assert torch.equal(layer(given[None, :rows]), whole[None, :rows]), rows


@pytest.mark.parametrize("kind", [nn.Linear, Conv1D])
def test_on_amx_a_vector_has_the_same_bits_in_every_batch(
    kind: type[nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    """There oneDNN sums in another order for another number of vectors: each product is of as
    many."""
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True, raising=False)
    torch.manual_seed(0)
    layer = (nn.Linear(576, 1536) if kind is nn.Linear else Conv1D(1536, 576)).bfloat16()
    nn.init.normal_(layer.weight, std=0.1)
    speed_up(layer.requires_grad_(False))
    given = torch.randn(300, 576).bfloat16()
    whole = layer(given)
    assert torch.allclose(whole.double(), exact(layer, given), rtol=2**-7, atol=2e-2)
    for rows in (1, 7, 32, 33, 64, 65, 128, 299):
        sizes = set()
        with torch.profiler.profile(record_shapes=True) as seen:
            assert torch.equal(layer(given[:rows]), whole[:rows]), rows
        for event in seen.events():
            if event.name == "aten::addmm":
                sizes.add(event.input_shapes[1][0])
        assert sizes == {BLOCK}
    assert torch.equal(layer(given.flip(0)), whole.flip(0))
    assert torch.equal(layer(given.view(20, 15, 576)), whole.view(20, 15, 1536))
    assert layer(given[:0]).shape == (0, 1536)


@pytest.mark.parametrize("kind", [nn.Linear, Conv1D])
def test_on_amx_the_bits_are_the_same_where_a_gradient_flows_which_is_one_product(
    kind: type[nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True, raising=False)
    layer = (nn.Linear(576, 1536) if kind is nn.Linear else Conv1D(1536, 576)).bfloat16()
    speed_up(layer.requires_grad_(False))
    given = torch.randn(3, BLOCK, 576).bfloat16().requires_grad_()
    out = layer(given)
    assert torch.equal(out, layer(given.detach()))
    with torch.profiler.profile() as seen:
        out.backward(torch.ones_like(out))
    assert sum(event.name == "aten::mm" for event in seen.events()) == 1
    matrix = layer.weight if kind is Conv1D else layer.weight.T
    wanted = matrix.float().sum(1).expand(3, BLOCK, -1)
    assert torch.allclose(given.grad.float(), wanted, rtol=2**-6, atol=0.02)


def test_float32_and_a_layer_with_a_forward_of_its_own_are_left_alone(dtype: torch.dtype) -> None:
    plain, own = nn.Linear(4, 4), nn.Linear(4, 4).to(dtype)
    own.forward = lambda given: given  # type: ignore[method-assign]
    assert speed_up(nn.ModuleList([plain, own])) == []
    assert "forward" not in vars(plain)
    given = torch.randn(3, 4).to(dtype)
    assert own(given) is given


@pytest.mark.parametrize("rows", [1, 6])
def test_a_slice_is_one_product_and_copies_no_weights(dtype: torch.dtype, rows: int) -> None:
    head = nn.Linear(96, 48, bias=False).to(dtype).requires_grad_(False)
    given = torch.randn(rows, 5, 96).to(dtype)[:, -1:]
    wanted = given.double() @ head.weight.double().T
    changed = speed_up(head)
    with torch.profiler.profile() as seen:
        assert torch.allclose(head(given).double(), wanted, rtol=2**-7, atol=1e-2)
    assert not any(event.key == "aten::bmm" for event in seen.key_averages())
    slow_down(changed)
    assert not {"forward", products.PLAN} & set(vars(head))


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_model_that_was_given_is_sped_up_while_it_is_borrowed_and_is_then_as_it_was(
    dtype: torch.dtype, family: str
) -> None:
    model = model_of(family).to(dtype)
    given = GivenModel.of(model, word_tokenizer())
    before, digest = [dict(vars(m)) for m in model.modules()], given.loaded().digest
    with given.borrowed():
        assert sum("forward" in vars(m) for m in model.modules()) > 8
        kept, every = keep_copies(model, 2**30)
        assert kept == every == copied_bytes(model, dtype)
        assert given.loaded().digest == digest
    assert [dict(vars(m)) for m in model.modules()] == before


def test_there_is_room_for_no_more_than_a_container_allows(tmp_path) -> None:
    assert room_on_host(tmp_path) > 2**20
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("700000\n")
    (tmp_path / "memory.stat").write_text("inactive_file 100000\n")
    assert room_on_host(tmp_path) == 200_000
    (tmp_path / "memory.current").write_text("1700000\n")
    assert room_on_host(tmp_path) == 0
