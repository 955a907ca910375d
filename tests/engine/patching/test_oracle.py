"""The oracle against hooks written by hand, and the batched interchange against the oracle."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from raysearch.core.events import Encoded
from raysearch.engine.execution.predict import predict
from raysearch.engine.networks.hooks import MisfiredHookError
from raysearch.engine.networks.network import batches
from raysearch.engine.networks.point import Point
from raysearch.engine.patching.build import build_row
from raysearch.engine.patching.operations import (
    Collect,
    Interchange,
    Operation,
    Zero,
)
from raysearch.engine.patching.oracle import collect
from raysearch.engine.patching.rows import Patch, Row, Source, swap
from raysearch.errors import PositionError
from tests.engine import by_hand
from tests.engine.worlds import (
    CONFIGS,
    POSITIONS,
    World,
    encoded_pairs,
    itself,
    logits_of,
    model_of,
    older,
    residual,
    shared_world,
    world_of,
)

NAMED = (*POSITIONS, "last")


def asked_by_hand(world: World, family: str, pair: Encoded, *places: tuple[int, str]) -> Tensor:
    """Interchange of residuals with hooks that share nothing with the engine. `places`: layer,
    position."""
    swaps = []
    for layer, position in places:
        spot = by_hand.place(world.model, family, "residual", layer)
        swaps.append(
            by_hand.Swap(
                spot, pair.base_positions[position], spot, pair.source_positions["source"][position]
            )
        )
    return by_hand.interchange(world.model, pair.base, pair.sources["source"], swaps)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_oracle_equals_hooks_written_by_hand(family: str) -> None:
    world, moved = shared_world(family), 0
    for pair in encoded_pairs(1, 12):
        for layer in range(world.layers):
            for position in NAMED:
                ours = world.oracle(build_row(pair, residual((layer, position)), world.taps))
                assert torch.equal(ours, asked_by_hand(world, family, pair, (layer, position)))
                moved += not torch.allclose(ours, world.plain(pair.base), atol=1e-2)
    assert moved > 50  # else nothing was tested


def test_all_units_of_an_intervention_are_interchanged_at_once() -> None:
    world = shared_world("llama")
    for pair in encoded_pairs(2, 8, shortest=3):
        row = build_row(pair, residual((0, "first"), (2, "here")), world.taps)
        expected = asked_by_hand(world, "llama", pair, (0, "first"), (2, "here"))
        assert torch.equal(world.oracle(row), expected)
        assert torch.allclose(logits_of(world.batched(), [row])[0], expected, atol=1e-4)


@settings(max_examples=12, deadline=None)
@given(
    family=st.sampled_from(["llama", "gpt2"]),
    seed=st.integers(0, 10**6),
    most=st.integers(1, 20),
    data=st.data(),
)
def test_batched_rows_equal_the_oracle(
    family: str, seed: int, most: int, data: st.DataObject
) -> None:
    world = shared_world(family)
    places = st.lists(
        st.tuples(st.integers(0, world.layers - 1), st.sampled_from(NAMED)), min_size=1, max_size=2
    )
    rows = []
    for pair in encoded_pairs(seed, data.draw(st.integers(1, 12))):
        try:
            rows.append(build_row(pair, residual(*data.draw(places)), world.taps))
        except PositionError:  # two units on one token, from two
            rows.append(Row(pair.base))
    for row, logits in zip(rows, logits_of(world.batched(most), rows), strict=True):
        reference = world.oracle(row)
        assert (logits - reference).abs().max() <= 1e-4
        assert predict(logits[None])[0].id == predict(reference[None])[0].id


@pytest.mark.parametrize("family", CONFIGS)
def test_batched_rows_equal_the_oracle_in_every_family(family: str) -> None:
    world = shared_world(family)
    pairs = encoded_pairs(3, 12)
    rows = [
        build_row(p, residual((p.index % world.layers, NAMED[p.index % 3])), world.taps)
        for p in pairs
    ]
    for row, logits in zip(rows, logits_of(world.batched(), rows), strict=True):
        assert torch.allclose(logits, world.oracle(row), atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_pair_of_an_input_with_itself_changes_nothing_bit_for_bit(family: str) -> None:
    world = shared_world(family)
    for pair in map(itself, encoded_pairs(4, 5)):
        for layer in range(world.layers):
            row = build_row(pair, residual((layer, "here"), (layer, "last")), world.taps)
            assert torch.equal(world.oracle(row), world.plain(pair.base))


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_last_layer_at_the_last_position_gives_the_sources_own_logits(family: str) -> None:
    world = shared_world(family)
    for pair in encoded_pairs(5, 5):
        row = build_row(pair, residual((world.layers - 1, "last")), world.taps)
        assert torch.allclose(world.oracle(row), world.plain(pair.sources["source"]), atol=1e-5)


def test_positions_do_not_move_in_company() -> None:
    world = shared_world("gpt2")  # absolute positions: a shift would show
    rows = [build_row(p, residual((1, "here")), world.taps) for p in encoded_pairs(6, 40)]
    assert len({len(row.base) for row in rows}) > 3
    alone = [logits_of(world.batched(), [row])[0] for row in rows]
    for one, together in zip(alone, logits_of(world.batched(), rows), strict=True):
        assert torch.allclose(one, together, atol=1e-5)


def test_only_inputs_of_one_length_share_a_batch_and_nothing_is_padded() -> None:
    seen: list[tuple[int, ...]] = []
    world = world_of(model_of("llama"))
    world.model.get_input_embeddings().register_forward_hook(
        lambda m, i, o: seen.append(tuple(i[0].shape))
    )
    texts = [(1,) * n for n in (3, 9, 4, 9, 1, 9, 4)]
    for batch in batches(texts, world.network.batch_key, 2):
        world.network.batch(batch)
    assert seen == [(1, 3), (2, 9), (1, 9), (2, 4), (1, 1)]
    with pytest.raises(AssertionError, match="one length"):
        world.network.batch([(1,) * 4, (1,) * 5])


def test_only_the_last_tokens_logits_are_computed_where_the_model_can() -> None:
    seen: list[tuple[int, ...]] = []
    world = world_of(model_of("llama"))
    world.model.lm_head.register_forward_hook(lambda m, i, o: seen.append(tuple(o.shape)))
    world.network.batch([(1,) * 7, (2,) * 7])
    assert seen == [(2, 1, 40)]


def test_a_block_that_runs_twice_in_a_pass_is_an_error_of_ours() -> None:
    world = world_of(model_of("llama"))
    (pair,) = encoded_pairs(7, 1)
    row = build_row(pair, residual((0, "last")), world.taps)
    world.model.model.layers[1] = world.model.model.layers[0]  # after it was looked at
    with pytest.raises(MisfiredHookError):
        world.oracle(row)
    with pytest.raises(MisfiredHookError):
        logits_of(world.batched(), [row])
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in world.model.modules())


def test_blocks_that_return_tuples_as_in_older_transformers_give_the_same() -> None:
    new, old = shared_world("llama"), world_of(older(model_of("llama")))
    pairs = encoded_pairs(8, 8)
    rows, theirs = (
        [build_row(p, residual((p.index % 4, "here")), world.taps) for p in pairs]
        for world in (new, old)
    )
    assert rows == theirs
    for row, batched in zip(rows, logits_of(old.batched(), rows), strict=True):
        assert torch.equal(old.oracle(row), new.oracle(row))
        assert torch.allclose(batched, new.oracle(row), atol=1e-4)


BASE, SOURCE, OTHER = (5, 6, 7, 8, 9), (10, 11, 12, 13), (14, 15, 16)


def seen_at(world: World, row: Row, point: Point, token: int) -> Tensor:
    *_, vector = collect(
        world.network,
        world.taps,
        Row(row.base, (*row.patches, Patch(point, (token,), kind=Collect()))),
    )
    return vector[0]


@pytest.mark.parametrize("features", [None, range(8, 16), (3, 30, 4)])
@pytest.mark.parametrize(
    ("kind", "count"), [(Interchange(), 1), (Interchange(), 2), (Zero(), 0), (Collect(), 0)]
)
def test_each_kind_is_its_formula_at_its_features_and_nothing_elsewhere(
    kind: Operation, count: int, features
) -> None:
    world, point = shared_world("llama"), Point(1, "residual")
    sources = tuple(
        Source(Row(given), point, (at,), features) for given, at in ((SOURCE, 1), (OTHER, 2))
    )
    row = Row(BASE, (Patch(point, (3,), sources[:count], kind, features),))
    x, y, z = (seen_at(world, Row(g), point, t) for g, t in ((BASE, 3), (SOURCE, 1), (OTHER, 2)))
    mean = (y + z) / 2
    wanted = {Interchange(): mean if count == 2 else y, Zero(): 0 * x, Collect(): x}[kind]
    chosen = list(range(32)) if features is None else list(features)
    expected = x.clone()
    expected[chosen] = wanted[chosen]
    assert torch.allclose(seen_at(world, row, point, 3), expected, atol=1e-6)
    assert torch.equal(
        seen_at(world, row, point, 2), seen_at(world, Row(BASE), point, 2)
    )  # the token beside
    if kind == Collect():
        assert torch.equal(world.oracle(row), world.plain(BASE))


def test_a_source_may_be_a_run_intervened_upon_itself() -> None:
    """Serial: the base takes from SOURCE what SOURCE has there after it took from OTHER."""
    world, low, high = (
        shared_world("llama"),
        Point(0, "residual"),
        Point(2, "residual"),
    )
    inner = swap(SOURCE, OTHER, 0, (1,))
    row = Row(BASE, (Patch(high, (4,), (Source(inner, high, (3,)),)),))
    lent = seen_at(world, inner, high, 3)
    assert not torch.allclose(lent, seen_at(world, Row(SOURCE), high, 3), atol=1e-2)
    assert torch.equal(lent, seen_at(world, row, high, 4))
    assert torch.equal(seen_at(world, inner, low, 1), seen_at(world, Row(OTHER), low, 1))
    for path in world.fast():
        assert torch.allclose(logits_of(path, [row])[0], world.oracle(row), atol=1e-4)


def test_what_is_collected_is_what_the_models_own_hidden_states_are() -> None:
    world = shared_world("llama")
    states = world.model(input_ids=torch.tensor([BASE]), output_hidden_states=True).hidden_states
    for layer in range(world.layers):
        for token in range(len(BASE)):
            assert torch.equal(
                seen_at(world, Row(BASE), Point(layer, "block_input"), token),
                states[layer][0, token],
            )
    assert torch.equal(seen_at(world, Row(BASE), Point(0, "embedding"), 2), states[0][0, 2])


@pytest.mark.parametrize("token", [5, 7])
def test_a_token_that_the_base_or_the_source_lacks_is_named(token: int) -> None:
    world = shared_world("llama")
    point = Point(1, "residual")
    lends_too_late = Row(BASE, (Patch(point, (0,), (Source(Row(BASE), point, (token,)),)),))
    with pytest.raises(PositionError, match=rf"has 5 tokens; token {token} \(from 0\)"):
        world.oracle(lends_too_late)
    with pytest.raises(PositionError, match=f"5 tokens has no token {token}"):
        world.oracle(swap(BASE, SOURCE + SOURCE, 1, (token,)))
    for path in world.fast():
        with pytest.raises(PositionError):
            logits_of(path, [lends_too_late])
    with pytest.raises(PositionError):
        logits_of(world.batched(), [swap(BASE, SOURCE + SOURCE, 1, (token,))])


def test_a_token_that_the_base_lacks_is_named_in_a_wave_too() -> None:
    with pytest.raises(PositionError):
        logits_of(shared_world("llama").replayed(), [swap(BASE, SOURCE + SOURCE, 1, (7,))])


def test_ties_go_to_the_lowest_id_and_nothing_finite_is_no_output() -> None:
    inf, nan = float("inf"), float("nan")
    tied, ruled_out, broken, overflown = predict(
        torch.tensor([[1.0, 3.0, 3.0], [-inf, 0.0, 0.5], [nan, 0.0, 1.0], [0.0, inf, 1.0]])
    )
    assert (tied.id, tied.gap, tied.finite) == (1, 0.0, True)
    assert (ruled_out.id, ruled_out.finite) == (2, True)
    assert (broken.finite, overflown.finite) == (False, False)
