"""What holds whatever is done: a self-swap is nothing, and a model is afterwards as it was,
whatever happened."""

import inspect
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from raysearch.engine.networks.blocks import layers_of
from raysearch.engine.networks.hooks import MisfiredHookError
from raysearch.engine.networks.network import ModelInput
from raysearch.engine.networks.point import Point
from raysearch.engine.patching.operations import Collect, Operation
from raysearch.engine.patching.oracle import collect
from raysearch.engine.patching.rows import INTERCHANGE, Patch, Row, Source, swap
from tests.engine.worlds import CONFIGS, LAYOUTS, World, logits_of, model_of, shared_world, world_of

BASE, SOURCE = (5, 6, 7, 8, 9, 10), (11, 12, 13, 14)


def taken_from_itself(
    world: World, component: str, given: ModelInput = BASE, kind: Operation = INTERCHANGE
) -> list[Row]:
    """At every layer that has it: all of it at two tokens, one head, some features."""
    rows = []
    for layer, tap in world.taps.of(component).items():
        point, width = Point(layer, component), tap.width // max(tap.heads, 1)
        last = max(tap.heads, 1) - 1
        for tokens, features in (
            ((1, 4), None),
            ((0,), range(last * width, (last + 1) * width)),
            ((5, 2), (width - 1, 0)),
        ):
            rows.append(
                Row(
                    given,
                    (
                        Patch(
                            point,
                            tokens,
                            (Source(Row(given), point, tokens, features),),
                            kind,
                            features,
                        ),
                    ),
                )
            )
    return rows


@pytest.mark.slow_unless(family=LAYOUTS)
@pytest.mark.parametrize("family", CONFIGS)
def test_a_self_swap_is_a_no_op_bit_for_bit_at_every_component_layer_and_head(family: str) -> None:
    world = shared_world(family)
    with torch.no_grad():
        keep = (
            {"logits_to_keep": 1}
            if "logits_to_keep" in inspect.signature(world.model.forward).parameters
            else {}
        )
        own = world.model(input_ids=torch.tensor([BASE]), **keep).logits[0, -1]
    assert torch.equal(world.plain(BASE), own)
    for component in world.components():
        for row in taken_from_itself(world, component):
            assert torch.equal(world.oracle(row), own), row


@pytest.mark.parametrize("family", ["llama", "bloom"])
def test_so_is_one_of_all_components_at_once_and_twice_over(family: str) -> None:
    world = shared_world(family)
    rows = [row for component in world.components() for row in taken_from_itself(world, component)]
    together = Row(BASE, tuple(patch for row in rows for patch in row.patches))
    assert torch.equal(world.oracle(together), world.plain(BASE))
    point = Point(1, "residual")
    itself = Source(Row(BASE), point, (2,))
    assert torch.equal(
        world.oracle(Row(BASE, (Patch(point, (2,), (itself, itself)),))), world.plain(BASE)
    )
    serial = Source(together, point, (2,))
    assert torch.equal(world.oracle(Row(BASE, (Patch(point, (2,), (serial,)),))), world.plain(BASE))


@pytest.mark.slow_unless(family=LAYOUTS)
@pytest.mark.parametrize("family", CONFIGS)
def test_a_self_swap_keeps_the_fast_paths_at_the_models_own_logits(family: str) -> None:
    world = shared_world(family)
    rows = [row for component in world.components() for row in taken_from_itself(world, component)]
    own = world.plain(BASE)
    for path in world.fast():
        for row, logits in zip(rows, logits_of(path, rows), strict=True):
            assert (logits - own).abs().max() <= 1e-4, (path.name, row)


# --- the model afterwards
# ---------------------------------------------------------------------------------------------


class Others:
    """Hooks that are not ours, before and after every block, on the embedding and on the head."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.fired: list[str] = []
        self.handles = []
        modules = [*layers_of(model), model.get_input_embeddings(), model.get_output_embeddings()]
        for at, module in enumerate(modules):
            self.handles.append(
                module.register_forward_hook(lambda *_, at=at: self.fired.append(f"after {at}"))
            )
            self.handles.append(
                module.register_forward_pre_hook(
                    lambda *_, at=at: self.fired.append(f"before {at}")
                )
            )

    def since(self) -> list[str]:
        fired, self.fired = self.fired, []
        return fired


def state(model: PreTrainedModel) -> list[object]:
    """What there is to change by mistake: modules, what they hold, hooks of each sort, weights."""
    held = [
        (
            id(m),
            {k: id(v) for k, v in m.__dict__.items()},
            list(m._forward_hooks),
            list(m._forward_pre_hooks),
        )
        for m in model.modules()
    ]
    with_kwargs = [
        (list(m._forward_hooks_with_kwargs), list(m._forward_pre_hooks_with_kwargs))
        for m in model.modules()
    ]
    return [held, with_kwargs, [(name, id(p), p._version) for name, p in model.named_parameters()]]


def rows_of(world: World) -> list[Row]:
    """Every component, two layers, an input that is intervened upon as a source."""
    rows = [
        swap(BASE, SOURCE, layer, (2,), c)
        for c in world.components()
        for layer in sorted(world.taps.of(c))[-2:]
    ]
    point = Point(1, "residual")
    return [
        *rows,
        Row(BASE, (Patch(point, (3,), (Source(swap(SOURCE, BASE, 0, (1,)), point, (2,)),)),)),
    ]


def oracles(world: World) -> None:
    for row in rows_of(world):
        world.oracle(row)


def batched(world: World) -> None:
    logits_of(world.batched(), rows_of(world))


def replayed(world: World) -> None:
    logits_of(world.replayed(), rows_of(world))


def captured(world: World) -> None:
    captures = world.captures(keys=True, tolerance=1e9)  # each is decided again, plainly
    captures.want(world.components())
    captures.runs([Row(BASE), Row(SOURCE), swap(BASE, SOURCE, 1, (2,))])
    captures.predictions([Row(BASE), Row(SOURCE)])


def collected(world: World) -> None:
    for component in world.components():
        reads = tuple(
            Patch(Point(layer, component), (1,), kind=Collect())
            for layer in world.taps.of(component)
        )
        collect(world.network, world.taps, Row(BASE, reads))


WAYS = pytest.mark.parametrize("way", [oracles, batched, replayed, captured, collected])
FAMILIES = ["llama", "gpt2", "gpt_neox", "gemma3"]


@WAYS
@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_is_afterwards_as_it_was_and_hooks_of_others_are_there_and_fire(
    family: str, way: Callable[[World], None]
) -> None:
    model = model_of(family)
    own = plain(model)
    others = Others(model)
    before = state(model)
    assert torch.equal(plain(model), own)
    one_pass = others.since()
    assert len(one_pass) == len(others.handles)
    way(world_of(model))
    assert set(others.since()) == set(one_pass)  # they fired within, too
    assert state(model) == before
    assert torch.equal(plain(model), own)
    assert others.since() == one_pass


@WAYS
@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_so_it_is_after_an_error_in_the_middle(
    family: str, side: str, way: Callable[[World], None]
) -> None:
    model = model_of(family)
    world = world_of(model)
    rows_of(world)  # all components have been looked at: what fails is the run
    own, others = plain(model), Others(model)
    before = state(model)
    middle = layers_of(model)[1]
    register = middle.register_forward_hook if side == "after" else middle.register_forward_pre_hook
    theirs = register(raise_it)
    with pytest.raises(ZeroDivisionError):
        way(world)
    theirs.remove()
    assert state(model) == before
    others.since()
    assert torch.equal(plain(model), own)
    assert len(others.since()) == len(others.handles)
    for handle in others.handles:
        handle.remove()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    way(world)  # nothing half-made is in the way


@pytest.mark.parametrize("path", ["batched", "replayed"])
def test_after_an_error_in_the_middle_of_a_path_its_next_answers_are_right(path: str) -> None:
    world = world_of(model_of("llama"))
    on = getattr(world, path)()
    rows = rows_of(world)
    theirs = layers_of(world.model)[2].register_forward_hook(raise_it)
    with pytest.raises(ZeroDivisionError):
        logits_of(on, rows)
    theirs.remove()
    for row, ours in zip(rows, logits_of(on, rows), strict=True):
        assert torch.allclose(ours, world.oracle(row), atol=1e-4)


@pytest.mark.parametrize("way", [oracles, batched, captured, collected])
@pytest.mark.parametrize("times", [0, 2])
def test_a_module_that_runs_more_or_less_often_than_it_should_is_an_error(
    way: Callable[[World], None], times: int
) -> None:
    world = world_of(model_of("llama"))
    rows_of(world)  # when they were looked at, each ran once
    attention = world.model.model.layers[2].self_attn
    projection = attention.o_proj

    class Often(torch.nn.Module):
        def forward(self, mixed: Tensor) -> Tensor:
            return [projection(mixed) for _ in range(times)][-1] if times else mixed

    attention.o_proj = Often()
    with pytest.raises(
        MisfiredHookError, match=rf"a hook on Linear fired {times} times; it should 1$"
    ):
        way(world)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in world.model.modules())


def test_the_same_in_a_wave() -> None:
    world = world_of(model_of("llama"))
    path, row = world.replayed(), swap(BASE, SOURCE, 1, (2,), "head")
    logits_of(path, [row])
    attention = world.model.model.layers[1].self_attn
    projection = attention.o_proj
    attention.o_proj = torch.nn.Sequential(projection, projection)
    with pytest.raises(MisfiredHookError, match=r"a hook on Linear fired 2 times; it should 1$"):
        logits_of(path, [row])
    assert not projection._forward_pre_hooks


def plain(model: PreTrainedModel) -> Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([BASE])).logits


def raise_it(*_: object) -> None:
    raise ZeroDivisionError
