"""Hooks that we own: counted, removed however it ends, and nobody else's touched."""

import pytest
import torch
from torch import Tensor, nn

from raysearch.engine.networks.blocks import layers_of
from raysearch.engine.networks.hooks import (
    Hook,
    HookCall,
    MisfiredHookError,
    as_rows_and_tokens,
    owned_hooks,
)
from raysearch.errors import ModelError
from tests.engine.worlds import model_of


class Block(nn.Module):
    """A block as transformers < 5 had them: it returns a tuple."""

    def forward(self, hidden: Tensor, *, scale: int = 1) -> tuple[Tensor, str]:
        return hidden * scale + 1, "cache"


def hidden() -> Tensor:
    return torch.zeros(1, 2, 3)


def leave(activation: Tensor, moment: HookCall) -> None:
    """An edit that changes nothing."""


SIDES = pytest.mark.parametrize("side", ["input", "output"])


def hooks_on(module: nn.Module) -> list[int]:
    return [*module._forward_hooks, *module._forward_pre_hooks]


@SIDES
def test_none_of_ours_is_left_and_those_of_others_still_fire(side) -> None:
    block, theirs = Block(), []
    block.register_forward_hook(lambda *_: theirs.append("after"))
    block.register_forward_pre_hook(lambda *_: theirs.append("before"))
    own = hooks_on(block)
    with owned_hooks([Hook(block, side, leave)]):
        assert len(hooks_on(block)) == 3
        block(hidden())
    block(hidden())
    assert hooks_on(block) == own
    assert theirs == ["before", "after"] * 2


@SIDES
def test_none_of_ours_is_left_after_an_error_and_the_error_is_the_one_that_is_seen(side) -> None:
    block = Block()
    theirs = block.register_forward_hook(lambda *_: None)
    with pytest.raises(ZeroDivisionError), owned_hooks([Hook(block, side, leave)]):
        raise ZeroDivisionError
    assert hooks_on(block) == [theirs.id]


@SIDES
def test_an_error_inside_an_edit_leaves_no_hook_either(side) -> None:
    block = Block()

    def edit(activation: Tensor, moment: HookCall) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), owned_hooks([Hook(block, side, edit)]):
        block(hidden())
    assert not hooks_on(block)


@SIDES
@pytest.mark.parametrize(("fires", "times"), [(0, 1), (2, 1), (2, 3), (4, 3)])
def test_a_hook_that_does_not_fire_as_often_as_it_should_is_an_error(
    side, fires: int, times: int
) -> None:
    block = Block()

    def run() -> None:
        with owned_hooks([Hook(block, side, leave, times)]):
            for _ in range(fires):
                block(hidden())

    with pytest.raises(MisfiredHookError, match=rf"Block fired {fires} times; it should {times}$"):
        run()
    assert not hooks_on(block)


def test_a_hook_that_fires_as_it_comes_must_fire_once_at_least() -> None:
    block = Block()
    with owned_hooks([Hook(block, "output", leave, times=None)]):
        block(hidden())
        block(hidden())
    with (
        pytest.raises(MisfiredHookError, match="fired 0 times; it should at least once"),
        owned_hooks([Hook(block, "output", leave, times=None)]),
    ):
        pass


def test_the_first_item_of_a_tuple_is_what_is_read_and_written() -> None:
    block, read = Block(), []
    with owned_hooks([Hook(block, "output", lambda h, _: read.append(h.clone()))]):
        assert block(hidden())[1] == "cache"
    with owned_hooks([Hook(block, "output", lambda h, _: h * 5)]):
        out, cache = block(hidden())
    assert read[0].eq(1).all()
    assert out.eq(5).all()
    assert cache == "cache"


def test_what_a_module_is_given_is_edited_in_line_or_by_name_and_the_rest_is_handed_on() -> None:
    with owned_hooks([Hook(block := Block(), "input", lambda h, _: h + 2)]):
        assert block(hidden(), scale=3)[0].eq(7).all()
    linear = nn.Linear(3, 3)
    with owned_hooks([Hook(linear, "input", lambda h, _: h + 2)]):
        assert torch.equal(linear(input=hidden()), linear.forward(hidden() + 2))


def test_edits_of_one_side_are_done_in_their_order() -> None:
    block = Block()
    hooks = [Hook(block, "output", lambda h, _: h + 1), Hook(block, "output", lambda h, _: h * 10)]
    with owned_hooks(hooks):
        assert block(hidden())[0].eq(20).all()
    with owned_hooks(hooks[::-1]):
        assert block(hidden())[0].eq(11).all()


def test_an_edit_is_told_how_many_tokens_came_before() -> None:
    block, told = Block(), []

    def edit(activation: Tensor, moment: HookCall) -> Tensor:
        told.append((moment.first, moment.last))
        return activation - 1

    with owned_hooks([Hook(block, "output", edit, times=2, first=4)]):
        assert block(hidden() + 3)[0].eq(3).all()
        block(hidden())
    assert told == [(4, False), (6, True)]


def test_an_activation_without_tokens_is_seen_with_one_where_that_may_be() -> None:
    linear, flat = nn.Linear(3, 3), torch.zeros(2, 3)
    with owned_hooks([Hook(linear, "output", lambda h, _: h.new_full((2, 1, 3), 4.0), flat=True)]):
        assert torch.equal(linear(flat), torch.full((2, 3), 4.0))
    with (
        pytest.raises(ModelError, match=r"is \(2, 3\); need"),
        owned_hooks([Hook(linear, "output", leave)]),
    ):
        linear(flat)


@pytest.mark.parametrize("output", ["text", torch.zeros(2, 3), None])
def test_what_is_no_activation_is_refused(output: object) -> None:
    with pytest.raises(
        ModelError, match=r"an activation is .*; need a tensor \(row, token, width\)"
    ):
        as_rows_and_tokens(output)


def test_a_model_has_no_hook_of_ours_after_a_forward_pass() -> None:
    model = model_of("llama")
    layers = layers_of(model)
    with owned_hooks(
        [Hook(layer, side, leave) for layer in layers for side in ("input", "output")]
    ):
        model(torch.tensor([[1, 2]]))
    assert not any(hooks_on(layer) for layer in layers)
