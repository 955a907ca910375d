"""Hooks that we own: counted, removed however it ends, and nobody else's touched."""

import pytest
import torch
from torch import nn

from raysearch.engine.hooks import MisfiredHookError, owned_hooks
from raysearch.engine.sites import layers_of
from tests.engine.worlds import model_of


class Block(nn.Module):
    """A block as transformers < 5 had them: it returns a tuple."""

    def forward(self, hidden: torch.Tensor) -> tuple[torch.Tensor, str]:
        return hidden + 1, "cache"


def hidden() -> torch.Tensor:
    return torch.zeros(1, 2, 3)


def test_none_of_ours_is_left_and_those_of_others_still_fire() -> None:
    block, theirs = Block(), []
    block.register_forward_hook(lambda *_: theirs.append(1))
    with owned_hooks([(block, lambda h: None)]):
        block(hidden())
    block(hidden())
    assert len(block._forward_hooks) == 1
    assert len(theirs) == 2


def test_none_of_ours_is_left_after_an_error_and_the_error_is_the_one_that_is_seen() -> None:
    block = Block()
    theirs = block.register_forward_hook(lambda *_: None)
    with pytest.raises(ZeroDivisionError), owned_hooks([(block, lambda h: None)]):
        raise ZeroDivisionError
    assert list(block._forward_hooks) == [theirs.id]


def test_an_error_inside_an_edit_leaves_no_hook_either() -> None:
    block = Block()

    def edit(h: torch.Tensor) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), owned_hooks([(block, edit)]):
        block(hidden())
    assert not block._forward_hooks


@pytest.mark.parametrize("times", [0, 2])
def test_a_hook_that_does_not_fire_exactly_once_is_an_error(times: int) -> None:
    block = Block()

    def run() -> None:
        with owned_hooks([(block, lambda h: None)]):
            for _ in range(times):
                block(hidden())

    with pytest.raises(MisfiredHookError, match=rf"Block fired {times} times; it should 1"):
        run()
    assert not block._forward_hooks


def test_the_first_item_of_a_tuple_is_what_is_read_and_written() -> None:
    block, seen = Block(), []
    with owned_hooks([(block, lambda h: seen.append(h.clone()))]):
        assert block(hidden())[1] == "cache"
    with owned_hooks([(block, lambda h: h * 5)]):
        out, cache = block(hidden())
    assert seen[0].eq(1).all()
    assert out.eq(5).all()
    assert cache == "cache"


def test_a_model_has_no_hook_of_ours_after_a_forward_pass() -> None:
    model = model_of("llama")
    layers = layers_of(model)
    with owned_hooks([(layer, lambda h: None) for layer in layers]):
        model(torch.tensor([[1, 2]]))
    assert not any(layer._forward_hooks for layer in layers)
