"""Modules that see rows and tokens in another shape than (row, token, width): the input of their
block says which is whose."""

import pytest
import torch
from torch import Tensor, nn

from raysearch.engine.networks.hooks import Hook, HookCall, owned_hooks
from raysearch.errors import ModelError


class Block(nn.Module):
    """Gives its linear map the tokens in the shape that `seen_as` makes of them."""

    def __init__(self, seen_as) -> None:
        super().__init__()
        self.map = nn.Linear(4, 4)
        self.seen_as = seen_as

    def forward(self, hidden: Tensor) -> Tensor:
        return self.map(self.seen_as(hidden)).reshape(hidden.shape[0], -1, 4)[:, -hidden.shape[1] :]


SHAPES = {
    "one list": lambda h: h.reshape(-1, 4),
    "a dimension of one": lambda h: h[:, None],
    "as it is": lambda h: h,
}


@pytest.mark.parametrize("side", ["input", "output"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_token_of_a_row_is_the_same_whatever_the_shape(shape: str, side) -> None:
    block, plain = Block(SHAPES[shape]), Block(SHAPES["as it is"])
    plain.load_state_dict(block.state_dict())
    hidden = torch.randn(3, 5, 4)

    def write(activation: Tensor, _moment: HookCall) -> Tensor:
        assert activation.shape == (3, 5, 4)
        new = activation.clone()
        new[1, 2] = 7.0
        return new

    for rows in (3, 1):
        given = hidden[:rows]
        edit = write if rows == 3 else lambda activation, _: activation * 2
        outs = []
        for one in (block, plain):
            with owned_hooks([Hook(one.map, side, edit, block=one)]):
                outs.append(one(given))
        assert torch.equal(*outs)
        assert not torch.equal(outs[0], block(given))


def test_without_its_block_such_a_module_is_refused() -> None:
    block = Block(SHAPES["one list"])
    with (
        pytest.raises(ModelError, match=r"an activation is \(15, 4\); need"),
        owned_hooks([Hook(block.map, "output", lambda activation, _: None)]),
    ):
        block(torch.randn(3, 5, 4))


def test_what_sees_other_than_the_tokens_of_all_rows_is_refused() -> None:
    """An expert, which is given some of the tokens."""
    block = Block(lambda hidden: hidden.reshape(-1, 4)[::2])
    with (
        pytest.raises(ModelError, match=r"an activation is \(8, 4\); need"),
        owned_hooks([Hook(block.map, "output", lambda activation, _: None, block=block)]),
    ):
        block(torch.randn(3, 5, 4))


def test_what_a_cache_kept_is_seen_again_from_the_first_token_on() -> None:
    """Latent attention makes the values of all tokens anew whenever some follow."""
    before = torch.randn(2, 6, 4)
    block = Block(lambda hidden: torch.cat((before, hidden), 1)[:, None])
    seen: list[tuple[int, tuple[int, ...]]] = []

    def look(activation: Tensor, moment: HookCall) -> None:
        seen.append((moment.first, tuple(activation.shape)))

    with owned_hooks([Hook(block.map, "output", look, block=block, first=6)]):
        block(torch.randn(2, 3, 4))
    assert seen == [(0, (2, 9, 4))]
