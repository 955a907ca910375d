"""Products in bfloat16 on a CPU: the same numbers, but for one rounding, by whichever way is
faster."""

import copy

import pytest
import torch
from torch import nn

from raysearch.engine.networks import half_precision as products
from raysearch.engine.networks.half_precision import MANY, speed_up


@pytest.fixture
def layer(monkeypatch: pytest.MonkeyPatch) -> nn.Linear:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    torch.manual_seed(0)
    made = nn.Linear(96, 48).bfloat16().requires_grad_(False)
    speed_up(nn.Sequential(made))
    return made


@pytest.mark.parametrize("rows", [1, MANY - 1, MANY, 3 * MANY])
def test_a_product_is_the_exact_one_rounded_once(layer: nn.Linear, rows: int) -> None:
    given = torch.randn(rows, 96).bfloat16()
    exact = given.double() @ layer.weight.double().T + layer.bias.double()
    assert layer(given).dtype == torch.bfloat16
    assert torch.allclose(layer(given).double(), exact, rtol=2**-7, atol=1e-2)
    assert torch.equal(layer(given), layer(given.clone()))


def test_gradients_flow_and_a_copy_computes_with_its_own_weights(layer: nn.Linear) -> None:
    given = torch.randn(2 * MANY, 96).bfloat16().requires_grad_()
    layer(given).sum().backward()
    wanted = layer.weight.float().sum(0).expand(2 * MANY, -1)
    assert torch.allclose(given.grad.float(), wanted, rtol=2**-6, atol=0.02)
    other = copy.deepcopy(layer)
    other.weight.zero_()
    other.bias.zero_()
    assert not other(given).any()
    assert layer(given).any()


def test_other_numbers_and_processors_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = nn.Linear(4, 4)
    speed_up(plain)
    assert "forward" not in vars(plain)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    half = nn.Linear(4, 4).bfloat16()
    speed_up(half)
    assert vars(half)["forward"].__func__ is products._in_one_piece


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_slice_is_one_product_and_copies_no_weights(dtype: torch.dtype) -> None:
    head = nn.Linear(96, 48, bias=False).to(dtype).requires_grad_(False)
    given = torch.randn(6, 5, 96).to(dtype)[:, -1:]
    wanted = head(given.contiguous())
    speed_up(head)
    with torch.profiler.profile() as seen:
        assert torch.equal(head(given), wanted)
    assert not any(event.key == "aten::bmm" for event in seen.key_averages())
