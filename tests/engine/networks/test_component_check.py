"""Heads, queries, keys and values held against the attention: right on all families, and each wrong
layout that is planted is told."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import permutations

import pytest
import torch

from raysearch.engine.networks import fused_projections as projections
from raysearch.engine.networks.component_check import wrong_heads
from raysearch.engine.networks.components import Components
from raysearch.engine.networks.hook_point import HookPoint
from raysearch.engine.replica import Replica
from raysearch.errors import ModelError
from tests.engine.more_worlds import HYBRID, MORE, WITHOUT_HEADS
from tests.engine.worlds import (
    CONFIGS,
    LAYOUTS,
    POSITIONS,
    World,
    loaded,
    model_from,
    random_pairs,
    world_of,
)

PARTS = ("query", "key", "value")
ALL = {**CONFIGS, **MORE}
HEADED = [family for family in ALL if family not in WITHOUT_HEADS]
PAIRS = random_pairs(11, 4)

_Taps = dict[str, dict[int, HookPoint]]


@cache
def shared(family: str) -> World:
    return world_of(model_from(ALL[family]()))


@pytest.mark.slow_unless(dtype=[torch.float32])
@pytest.mark.slow_unless(family=LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", HEADED)
def test_heads_queries_keys_and_values_of_a_family_are_its_own(
    family: str, dtype: torch.dtype
) -> None:
    world = (
        shared(family) if dtype == torch.float32 else world_of(model_from(ALL[family]()).to(dtype))
    )
    layers = HYBRID.get(family, tuple(range(len(world.network.blocks))))
    for part in ("head", "query", "value") if "deepseek" in family else ("head", *PARTS):
        assert tuple(world.taps.of(part)) == layers
    assert wrong_heads(world.network, taps_of(world)) == ""


@pytest.mark.parametrize("size", [0.0, 1e-4, 30.0])
def test_it_does_not_hang_on_the_weights(size: float) -> None:
    """Those of a planted model may be zero; those of a trained one may bring all attention to one
    token, by a norm's too."""
    for family in ("llama", "gpt2", "bloom", "gpt_oss", "qwen3", "olmo2"):
        world = world_of(model_from(ALL[family]()))
        for name, parameter in world.model.named_parameters():
            if "attn" in name or "attention" in name:
                parameter.mul_(1.0 if "norm" in name and size < 1 else size)
        world.taps.of("head")


def test_of_one_head_of_one_layer_of_two_tokens_at_most() -> None:
    small = {
        "n_embd": 8,
        "n_head": 1,
        "n_layer": 1,
        "vocab_size": 3,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    for positions in (1, 2, 3, 64):
        world = world_of(model_from(type(CONFIGS["gpt2"]())(**small, n_positions=positions)))
        assert world.network.example() == (0, 1, 2)[:positions]
        assert [world.taps.of(part)[0].heads for part in ("head", *PARTS)] == [1] * 4


# --- planted: what was found is put wrong
# ---------------------------------------------------------------------------

PLANTED = ("llama", "gpt2", "gpt_neox", "bloom", "olmo2", "falcon", "falcon_grouped", "gpt_oss", "codegen", "bigcode_heads", "bitnet",
           "afmoe", "qwen3_next", "gemma4", "minimax")  # fmt: skip


def taps_of(world: World) -> _Taps:
    found: _Taps = {}
    for part in ("head", *PARTS):
        try:
            found[part] = dict(world.taps.of(part))
        except ModelError:
            assert part == "key"  # of latent attention
    return found


def edited(taps: _Taps, parts: tuple[str, ...], edit) -> _Taps:
    """With the columns of each head (head, width) of these parts as `edit` makes them."""
    return {
        part: {at: tap_with(tap, edit) if part in parts else tap for at, tap in of.items()}
        for part, of in taps.items()
    }


def tap_with(tap: HookPoint, edit) -> HookPoint:
    columns = torch.arange(tap.width) if tap.columns is None else tap.columns
    new = edit(columns.reshape(tap.heads, -1))
    return replace(tap, columns=new.flatten(), heads=len(new), width=new.numel())


def plants(taps: _Taps) -> Iterator[tuple[str, _Taps]]:
    """Wrong layouts, by what is wrong with them."""
    for order in permutations(PARTS):
        if order != PARTS:
            yield (
                f"{order} for {PARTS}",
                {"head": taps["head"], **dict(zip(PARTS, (taps[p] for p in order), strict=True))},
            )
    for part in ("head", *PARTS):
        heads = min(tap.heads for tap in taps[part].values())
        if heads > 1:
            yield (
                f"heads of the {part} in another order",
                edited(taps, (part,), lambda c: c.roll(1, 0)),
            )
            yield (
                f"two heads of the {part} for each other",
                edited(taps, (part,), lambda c: c[[1, 0, *range(2, len(c))]]),
            )
            yield f"{part} interleaved", edited(taps, (part,), lambda c: c.T.reshape(c.shape))
            yield (
                f"two heads of the {part} as one",
                edited(taps, (part,), lambda c: c.reshape(len(c) // 2, -1)),
            )
        yield (
            f"half a head of the {part}",
            edited(taps, (part,), lambda c: c.reshape(len(c) * 2, -1)),
        )
        if heads > 1 or part == "value":
            yield (
                f"{part} by one column off",
                edited(taps, (part,), lambda c: c.flatten().roll(1).reshape(c.shape)),
            )
    yield (
        "keys and values in another order",
        edited(taps, ("key", "value"), lambda c: c.flip(0)) if heads > 1 else swapped(taps),
    )
    yield "values turned around", edited(taps, ("value",), lambda c: c.flip(1))
    yield "half heads", edited(taps, ("head", *PARTS), lambda c: c.reshape(len(c) * 2, -1))
    if heads > 1:
        yield "double heads", edited(taps, ("head", *PARTS), lambda c: c.reshape(len(c) // 2, -1))


def swapped(taps: _Taps) -> _Taps:
    return {**taps, "key": taps["value"], "value": taps["key"]}


@pytest.mark.slow_unless(family=PLANTED[::2])
@pytest.mark.parametrize("family", PLANTED)
def test_a_wrong_layout_is_told_in_one_line(family: str) -> None:
    world = shared(family)
    taps = taps_of(world)
    passed = []
    for what, planted in plants(taps):
        said = wrong_heads(world.network, planted)
        assert "\n" not in said
        assert not said or (
            said.startswith(world.network.name) and "name a module by its dotted path" in said
        )
        passed += [what] * (not said)
    assert passed == []


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_wrong_layout_is_told_in_half_precision_too(dtype: torch.dtype) -> None:
    for family in ("llama", "gpt_neox", "gpt_oss"):
        world = world_of(model_from(ALL[family]()).to(dtype))
        assert [
            what
            for what, planted in plants(taps_of(world))
            if not wrong_heads(world.network, planted)
        ] == []


def test_one_layer_that_is_wrong_among_many_is_told_by_its_number() -> None:
    world = shared("llama")
    taps = taps_of(world)
    taps["query"][2] = tap_with(taps["query"][2], lambda c: c.roll(1, 0))
    assert "in layer 2 a query moves other heads than its own" in wrong_heads(world.network, taps)


def test_what_looks_ahead_is_told() -> None:
    """An attention that is not causal: a key moves tokens before it."""
    world = world_of(model_from(CONFIGS["llama"](), attention="eager"))
    for block in world.model.model.layers:
        block.self_attn.register_forward_pre_hook(
            lambda module, args, kwargs: (args, {**kwargs, "attention_mask": None}),
            with_kwargs=True,
        )
    with pytest.raises(ModelError, match="in layer 0 a key moves other tokens than it can"):
        world.taps.of("head")


# --- planted: another order in the table
# -----------------------------------------------------------------------------

LAYOUTS = (
    projections.one_after_the_other,
    projections.head_by_head,
    projections.group_by_group,
    projections._codegen,
)
FUSED = ("gpt2", "gpt_neox", "bloom", "falcon", "falcon_heads", "falcon_grouped", "mpt", "phi3", "codegen", "bigcode", "bigcode_heads",
         "openai", "neox_japanese", "persimmon", "fuyu", "dbrx")  # fmt: skip


def laid_out(monkeypatch: pytest.MonkeyPatch, layout) -> None:
    table = {name: dict.fromkeys(of, layout) for name, of in projections.FUSED.items()}
    monkeypatch.setattr(projections, "FUSED", table)


@pytest.mark.parametrize("family", FUSED)
def test_of_the_layouts_the_only_one_that_passes_is_the_familys_own(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = shared(family)
    own = {part: tap.columns.tolist() for part in PARTS for tap in [world.taps.of(part)[1]]}
    passed = []
    for layout in LAYOUTS:
        laid_out(monkeypatch, layout)
        found = columns_found(Components(world.network))
        passed += [found] if found else []
    assert passed
    assert all(found == own for found in passed)


def columns_found(taps: Components) -> dict[str, list[int]] | None:
    """None where they are refused."""
    try:
        return {part: taps.of(part)[1].columns.tolist() for part in PARTS}
    except ModelError:
        return None


@pytest.mark.parametrize("component", ["head", *PARTS])
def test_a_replica_refuses_a_wrong_layout_whichever_part_the_job_names(
    component: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it was: a GPT-BigCode with a key and value for each head, read in the order of GPT-2."""
    laid_out(monkeypatch, projections.one_after_the_other)
    with pytest.raises(
        ModelError,
        match=r"^GPTBigCodeForCausalLM \(gpt_bigcode\): in layer 0 a .* written at the only token",
    ) as refused:
        Replica(
            loaded(shared("bigcode_heads").model),
            PAIRS,
            POSITIONS,
            ["x"],
            "w",
            components=("residual", component),
        )
    assert "\n" not in str(refused.value)
    Replica(
        loaded(shared("bigcode_heads").model),
        PAIRS,
        POSITIONS,
        ["x"],
        "w",
        components=("residual", "attention_output"),
    )


def test_what_was_refused_once_is_refused_again(monkeypatch: pytest.MonkeyPatch) -> None:
    laid_out(monkeypatch, projections.one_after_the_other)
    taps = Components(shared("bigcode_heads").network)
    for part in ("head", *PARTS, "head"):
        with pytest.raises(ModelError, match="in layer 0 a"):
            taps.of(part)


def test_an_order_that_is_not_known_is_not_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    world = world_of(model_from(CONFIGS["gpt2"]()))
    world.model.config.model_type = "gpt2_of_another_kind"
    for part in PARTS:
        with pytest.raises(ModelError) as refused:
            world.taps.of(part)
        assert str(refused.value) == (
            "GPT2LMHeadModel (gpt2_of_another_kind): the order of queries, keys and values in its "
            "attn.c_attn is not known, and none is "
            "guessed; name that module by its dotted path, transformer.h.{layer}.attn.c_attn, and "
            "coordinates of it"
        )
    assert world.taps.of("transformer.h.{layer}.attn.c_attn")[1].width == 96


def test_a_key_that_is_shared_in_part_is_no_key_of_a_head() -> None:
    with pytest.raises(
        ModelError,
        match=r"has no key of each head: .*model\.layers\.\{layer\}\.self_attn\.kv_b_proj$",
    ):
        shared("deepseek_v2").taps.of("key")


@pytest.mark.parametrize("family", WITHOUT_HEADS)
def test_a_model_without_heads_of_attention_says_so_in_one_line(family: str) -> None:
    for part in ("head", *PARTS):
        with pytest.raises(ModelError, match=r"has no|does not come out") as refused:
            shared(family).taps.of(part)
        assert "\n" not in str(refused.value)
