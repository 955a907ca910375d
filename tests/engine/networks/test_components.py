"""Components against hooks written by hand, and heads against the model's own attention weights."""

import random

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from raysearch.core.space import COMPONENTS
from raysearch.engine.networks.module_names import PER_HEAD
from raysearch.engine.networks.point import Point
from raysearch.engine.patching.operations import Collect
from raysearch.engine.patching.oracle import collect
from raysearch.engine.patching.rows import Patch, Row, Source
from raysearch.errors import ModelError
from tests.engine.by_hand import HEAD_WIDTH, Place, Swap, heads_of, interchange, place
from tests.engine.worlds import (
    CONFIGS,
    FIRST_TIER,
    VOCAB,
    World,
    logits_of,
    model_of,
    shared_world,
    world_of,
)

MIXTURES = ("mixtral", "qwen2_moe")
"""Have no one MLP activation: each token has those of its own experts."""

CELLS = [
    (f, c) for f in FIRST_TIER for c in COMPONENTS if not (f in MIXTURES and c == "mlp_activation")
]


def texts(rng: random.Random) -> tuple[tuple[int, ...], tuple[int, ...]]:
    base, source = (
        tuple(rng.randrange(3, VOCAB) for _ in range(rng.randint(3, 9))) for _ in range(2)
    )
    return base, source


def asked_by_hand(
    world: World, family: str, component: str, rng: random.Random
) -> tuple[Row, Tensor]:
    """A random interchange of the component (of one head, where it has heads), and what comes of it
    by hand."""
    base, source = texts(rng)
    count = heads_of(family, component)
    ours = tuple(rng.sample(range(len(base)), 2))
    theirs = tuple(rng.sample(range(len(source)), 2))
    layers = [0, 0] if component == "embedding" else [rng.randrange(world.layers) for _ in range(2)]
    heads = [rng.randrange(count) for _ in range(2)] if count else [None, None]
    width = HEAD_WIDTH.get(family, 8)
    features = [None if head is None else range(head * width, (head + 1) * width) for head in heads]
    points = [Point(layer, component) for layer in layers]
    patch = Patch(
        points[0],
        ours,
        (Source(Row(source), points[1], theirs, features[1]),),
        features=features[0],
    )
    spots: list[Place] = [
        place(world.model, family, component, layer, head)
        for layer, head in zip(layers, heads, strict=True)
    ]
    return Row(base, (patch,)), interchange(
        world.model, base, source, [Swap(spots[0], ours, spots[1], theirs)]
    )


@pytest.mark.slow_unless(family=["gpt2", "gpt_neox", "gemma2", "qwen2_moe", "phi3"])
@pytest.mark.parametrize(("family", "component"), CELLS)
def test_every_component_of_every_family_is_what_it_is_by_hand(family: str, component: str) -> None:
    """Also from another layer and another head, at other tokens: by the oracle and by replay."""
    world, rng = shared_world(family), random.Random(f"{family}.{component}")
    wanted = dict(asked_by_hand(world, family, component, rng) for _ in range(6))
    rows = list(wanted)
    for row, ours in zip(rows, logits_of(world.replayed(), rows), strict=True):
        assert (world.oracle(row) - wanted[row]).abs().max() <= 1e-4
        assert (ours - wanted[row]).abs().max() <= 1e-4
    assert any(
        (wanted[row] - world.plain(row.base)).abs().max() > 1e-2 for row in rows
    )  # else nothing was tested


@pytest.mark.parametrize("family", FIRST_TIER)
def test_components_together_are_what_they_are_by_hand(family: str) -> None:
    world, rng = shared_world(family), random.Random(family)
    for _ in range(3):
        base, source = texts(rng)
        patches, swaps = [], []
        for component in rng.sample([c for f, c in CELLS if f == family], 4):
            layer, count = (
                rng.randrange(world.layers) if component != "embedding" else 0,
                heads_of(family, component),
            )
            head = rng.randrange(count) if count else None
            ours, theirs, width = (
                rng.randrange(len(base)),
                rng.randrange(len(source)),
                HEAD_WIDTH.get(family, 8),
            )
            features = None if head is None else range(head * width, (head + 1) * width)
            point, spot = (
                Point(layer, component),
                place(world.model, family, component, layer, head),
            )
            patches.append(
                Patch(
                    point,
                    (ours,),
                    (Source(Row(source), point, (theirs,), features),),
                    features=features,
                )
            )
            swaps.append(Swap(spot, (ours,), spot, (theirs,)))
        row, wanted = Row(base, tuple(patches)), interchange(world.model, base, source, swaps)
        assert (world.oracle(row) - wanted).abs().max() <= 1e-4
        for path in world.fast():
            assert (logits_of(path, [row])[0] - wanted).abs().max() <= 1e-4


@pytest.mark.parametrize("family", FIRST_TIER)
def test_the_whole_of_a_component_with_heads_is_all_its_heads(family: str) -> None:
    world, rng = shared_world(family), random.Random(family)
    for component in PER_HEAD:
        (base, source), point = texts(rng), Point(1, component)
        tap = world.taps.at(point)
        assert (tap.heads, tap.width) == (
            heads_of(family, component),
            tap.heads * HEAD_WIDTH.get(family, 8),
        )
        by_head = [place(world.model, family, component, 1, head) for head in range(tap.heads)]
        wanted = interchange(
            world.model, base, source, [Swap(spot, (1, 2), spot, (0, 2)) for spot in by_head]
        )
        row = Row(base, (Patch(point, (1, 2), (Source(Row(source), point, (0, 2)),)),))
        assert (world.oracle(row) - wanted).abs().max() <= 1e-4


@pytest.mark.parametrize("family", MIXTURES)
def test_a_mixture_of_experts_has_no_one_mlp_activation_and_says_so_in_one_line(
    family: str,
) -> None:
    with pytest.raises(
        ModelError,
        match=r"has no mlp_activation: no block has mlp\.down_proj, .*; name a module by its path: "
        r"model\.layers",
    ) as refused:
        shared_world(family).taps.of("mlp_activation")
    assert "\n" not in str(refused.value)


# --- heads are the model's own heads
# ---------------------------------------------------------------------------------

SAY_THEIR_ATTENTION = tuple(f for f in CONFIGS if f not in ("deepseek_v3",))
"""deepseek_v3 has no value projection of its own to hold its heads against."""
NORMED_AS_ONE = ("olmo2",)
"""Normalise the queries of all heads as one vector: a change of one head reaches the others."""


def attentions(model: PreTrainedModel, ids: tuple[int, ...]) -> tuple[Tensor, ...]:
    """The model's own attention weights, of each layer (head, token, token)."""
    with torch.no_grad():
        return tuple(
            a[0]
            for a in model(input_ids=torch.tensor([list(ids)]), output_attentions=True).attentions
        )


def collected(world: World, ids: tuple[int, ...], component: str, layer: int) -> Tensor:
    """The component at all tokens, its heads apart: (token, head, d_head)."""
    point = Point(layer, component)
    (seen,) = collect(
        world.network, world.taps, Row(ids, (Patch(point, tuple(range(len(ids))), kind=Collect()),))
    )
    return seen.unflatten(-1, (world.taps.at(point).heads, -1))


@pytest.mark.parametrize("family", SAY_THEIR_ATTENTION)
def test_head_h_is_the_mix_of_values_by_the_hth_of_the_models_own_attention_weights(
    family: str,
) -> None:
    world = world_of(model_of(family, attention="eager"))
    ids = (5, 9, 12, 30, 7, 21)
    for layer, weights in enumerate(attentions(world.model, ids)):
        heads, values = (collected(world, ids, component, layer) for component in ("head", "value"))
        assert heads.shape[1] == len(weights) == 4
        for head in range(4):
            group = head * values.shape[1] // 4
            assert torch.allclose(weights[head] @ values[:, group], heads[:, head], atol=1e-4)


@pytest.mark.parametrize("component", ["query", "key"])
@pytest.mark.parametrize("family", [f for f in SAY_THEIR_ATTENTION if f not in NORMED_AS_ONE])
def test_a_query_or_key_head_moves_the_attention_of_its_own_heads_only(
    family: str, component: str
) -> None:
    world = world_of(model_of(family, attention="eager"))
    ids, layer = (5, 9, 12, 30, 7, 21), 1
    own = attentions(world.model, ids)[layer]
    tap = world.taps.at(Point(layer, component))
    width = tap.width // tap.heads
    for head in range(tap.heads):
        columns = torch.arange(head * width, (head + 1) * width)
        there = columns if tap.columns is None else tap.columns[columns]

        def double(module, args, out, there=there) -> Tensor:
            out = out.clone()
            out[:, 3, there] *= -2
            return out

        handle = tap.module.register_forward_hook(double)
        moved = (attentions(world.model, ids)[layer] - own).abs().amax(dim=(1, 2)) > 1e-5
        handle.remove()
        assert moved.tolist() == [h * tap.heads // 4 == head for h in range(4)]
