"""The oracle against hooks written by hand, and the batched interchange against the oracle."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import PreTrainedModel

from raysearch.engine.captures import Captures
from raysearch.engine.decide import decide
from raysearch.engine.encode import encode
from raysearch.engine.forward import batch_logits, batches, plain_logits, width_of
from raysearch.engine.hooks import MisfiredHookError
from raysearch.engine.interchange import Row, interchange, oracle, row_of
from raysearch.engine.sites import layers_of, sizes_of
from raysearch.errors import JobError, ModelError, NotYetError, PositionError
from raysearch.search.events import Encoded
from raysearch.search.hypothesis import Intervention, Site, Subspace, Unit
from tests.engine.worlds import CONFIGS, POSITIONS, model_of, random_pairs, residual, shared_model, word_tokenizer

NAMED = (*POSITIONS, "last")


def encoded_pairs(seed: int, count: int, **lengths: int) -> tuple[Encoded, ...]:
    return encode(random_pairs(seed, count, **lengths), word_tokenizer(before=True), POSITIONS, ["x"])


def batched(model: PreTrainedModel, rows: list[Row], most: int = 64) -> list[Tensor]:
    """The logits of each row, in the order of `rows`."""
    captures = Captures(model, most, 0.0, 2**30)
    found: dict[int, Tensor] = {}
    for batch in batches(list(enumerate(rows)), lambda numbered: len(numbered[1].base), most):
        logits = interchange(model, [row for _, row in batch], captures.runs([row.source for _, row in batch]))
        found.update(zip((at for at, _ in batch), logits, strict=True))
    return [found[at] for at in range(len(rows))]


def by_hand(blocks: nn.ModuleList, model: PreTrainedModel, pair: Encoded, places: dict[int, str]) -> Tensor:
    """Interchange of residuals with hooks of its own, sharing nothing with the engine. `places`: layer -> position."""
    kept: dict[int, Tensor] = {}

    def keep(layer: int):
        return lambda module, inputs, out: kept.__setitem__(
            layer, (out[0] if isinstance(out, tuple) else out).detach().clone()
        )

    def put(layer: int):
        def hook(module, inputs, out):
            new = (out[0] if isinstance(out, tuple) else out).clone()
            for theirs, ours in zip(
                pair.source_positions["source"][places[layer]], pair.base_positions[places[layer]], strict=True
            ):
                new[:, ours, :] = kept[layer][:, theirs, :]
            return (new, *out[1:]) if isinstance(out, tuple) else new

        return hook

    with torch.no_grad():
        handles = [blocks[layer].register_forward_hook(keep(layer)) for layer in places]
        model(torch.tensor([pair.sources["source"]]))
        [h.remove() for h in handles]
        handles = [blocks[layer].register_forward_hook(put(layer)) for layer in places]
        logits = model(torch.tensor([pair.base])).logits[0, -1]
        [h.remove() for h in handles]
    return logits


@pytest.mark.parametrize(("family", "name"), [("llama", "model.layers"), ("gpt2", "transformer.h")])
def test_the_oracle_equals_hooks_written_by_hand(family: str, name: str) -> None:
    model = shared_model(family)
    sizes = sizes_of(model)
    moved = 0
    for pair in encoded_pairs(1, 12):
        for layer in range(sizes.layers):
            for position in NAMED:
                ours = oracle(model, row_of(pair, residual((layer, position)), sizes))
                assert torch.equal(ours, by_hand(model.get_submodule(name), model, pair, {layer: position}))
                moved += not torch.allclose(ours, plain_logits(model, pair.base), atol=1e-2)
    assert moved > 50  # else nothing was tested


def test_all_units_of_an_intervention_are_interchanged_at_once() -> None:
    model = shared_model("llama")
    for pair in encoded_pairs(2, 8, shortest=3):
        row = row_of(pair, residual((0, "first"), (2, "here")), sizes_of(model))
        expected = by_hand(model.model.layers, model, pair, {0: "first", 2: "here"})
        assert torch.equal(oracle(model, row), expected)
        assert torch.allclose(batched(model, [row])[0], expected, atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(
    family=st.sampled_from(["llama", "gpt2"]),
    seed=st.integers(0, 10**6),
    most=st.integers(1, 20),
    data=st.data(),
)
def test_batched_rows_equal_the_oracle(family: str, seed: int, most: int, data: st.DataObject) -> None:
    model = shared_model(family)
    sizes = sizes_of(model)
    places = st.lists(st.tuples(st.integers(0, sizes.layers - 1), st.sampled_from(NAMED)), min_size=1, max_size=2)
    rows = []
    for pair in encoded_pairs(seed, data.draw(st.integers(1, 12))):
        try:
            rows.append(row_of(pair, residual(*data.draw(places)), sizes))
        except PositionError:  # two units on one token, from two
            rows.append(Row(pair.base, pair.base))
    for row, logits in zip(rows, batched(model, rows, most), strict=True):
        reference = oracle(model, row)
        assert (logits - reference).abs().max() <= 1e-4
        assert decide(logits[None])[0].id == decide(reference[None])[0].id


@pytest.mark.parametrize("family", CONFIGS)
def test_batched_rows_equal_the_oracle_in_every_family(family: str) -> None:
    model = shared_model(family)
    sizes = sizes_of(model)
    pairs = encoded_pairs(3, 12)
    rows = [row_of(p, residual((p.index % sizes.layers, NAMED[p.index % 3])), sizes) for p in pairs]
    for row, logits in zip(rows, batched(model, rows), strict=True):
        assert torch.allclose(logits, oracle(model, row), atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_swap_of_an_input_with_itself_changes_nothing_bit_for_bit(family: str) -> None:
    model = shared_model(family)
    sizes = sizes_of(model)
    for pair in encoded_pairs(4, 5):
        itself = Encoded(
            0, pair.base, {"source": pair.base}, pair.base_positions, {"source": pair.base_positions}, {}, {}
        )
        for layer in range(sizes.layers):
            row = row_of(itself, residual((layer, "here"), (layer, "last")), sizes)
            assert torch.equal(oracle(model, row), plain_logits(model, pair.base))


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_last_layer_at_the_last_position_gives_the_sources_own_logits(family: str) -> None:
    model = shared_model(family)
    sizes = sizes_of(model)
    for pair in encoded_pairs(5, 5):
        row = row_of(pair, residual((sizes.layers - 1, "last")), sizes)
        assert torch.allclose(oracle(model, row), plain_logits(model, pair.sources["source"]), atol=1e-5)


def test_positions_do_not_move_with_padding_or_company() -> None:
    model = model_of("gpt2")  # absolute positions: a shift would show
    sizes = sizes_of(model)
    rows = [row_of(p, residual((1, "here")), sizes) for p in encoded_pairs(6, 40)]
    assert {width_of(len(r.base)) - len(r.base) for r in rows} == {0, 1, 2, 3}
    alone = [batched(model, [row])[0] for row in rows]
    for one, together in zip(alone, batched(model, rows), strict=True):
        assert torch.allclose(one, together, atol=1e-5)


def test_padding_is_to_a_width_that_depends_on_the_row_alone() -> None:
    seen: list[int] = []
    model = model_of("llama")
    model.get_input_embeddings().register_forward_hook(lambda m, i, o: seen.append(i[0].shape[1]))
    for batch in batches([(1,) * n for n in (3, 9, 4, 10, 1, 12, 5)], len, 64):
        batch_logits(model, batch)
    assert seen == [4, 12, 8]
    with pytest.raises(AssertionError, match="one padded width"):
        batch_logits(model, [(1,) * 4, (1,) * 5])


def test_only_the_last_tokens_logits_are_computed_where_the_model_can() -> None:
    seen: list[tuple[int, ...]] = []
    model = model_of("llama")
    model.lm_head.register_forward_hook(lambda m, i, o: seen.append(tuple(o.shape)))
    batch_logits(model, [(1,) * 7, (1,) * 8])
    assert seen == [(2, 1, 40)]


def test_a_block_that_runs_twice_in_a_pass_is_an_error_of_ours() -> None:
    model = model_of("llama")
    model.model.layers[1] = model.model.layers[0]
    (pair,) = encoded_pairs(7, 1)
    with pytest.raises(MisfiredHookError):
        oracle(model, row_of(pair, residual((0, "last")), sizes_of(model)))
    assert not layers_of(model)[0]._forward_hooks


def test_blocks_that_return_tuples_as_in_older_transformers_give_the_same() -> None:
    class Older(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, hidden, *args, **kwargs):
            return (self.inner(hidden[0] if isinstance(hidden, tuple) else hidden, *args, **kwargs), None)

    new, old = model_of("llama"), model_of("llama")
    for at in range(4):
        old.model.layers[at] = Older(old.model.layers[at])
    old.model.norm.register_forward_pre_hook(lambda m, args: (args[0][0],))
    sizes = sizes_of(new)
    rows = [row_of(p, residual((p.index % 4, "here")), sizes) for p in encoded_pairs(8, 8)]
    for row, theirs in zip(rows, batched(old, rows), strict=True):
        assert torch.equal(oracle(old, row), oracle(new, row))
        assert torch.allclose(theirs, oracle(new, row), atol=1e-4)


def test_two_units_that_write_one_token_from_two_places_are_refused() -> None:
    (pair,) = encoded_pairs(9, 1, shortest=1, longest=1)
    same = row_of(pair, residual((0, "first"), (0, "last")), sizes_of(shared_model("llama")))
    assert len(same.patches[0].base_tokens) == 1  # from one place: the same swap, said twice
    other = Encoded(5, pair.base, pair.sources, pair.base_positions, {"source": {"first": (0,), "last": (1,)}}, {}, {})
    with pytest.raises(PositionError, match="pair 5: two units write token 1 of layer 0, from source tokens 0 and 1"):
        row_of(other, residual((0, "first"), (0, "last")), sizes_of(shared_model("llama")))


HERE = Site(0, "residual", "here")


@pytest.mark.parametrize(
    ("intervention", "error", "text"),
    [
        (Intervention((Unit(HERE),), kind="zero"), NotYetError, "kind 'zero'"),
        (Intervention((Unit(HERE, Subspace("rotation", 4)),)), NotYetError, "featurizer 'rotation'"),
        (Intervention((Unit(HERE, Subspace("identity", 4)),)), NotYetError, "4 of 32 features"),
        (Intervention((Unit(HERE, source_site=Site(1, "residual", "here")),)), NotYetError, "another site"),
        (residual((0, "here"), component="query"), NotYetError, "component 'query'"),
        (Intervention(()), JobError, "without units"),
        (residual((4, "here")), ModelError, "4 is no layer"),
        (residual((0, "there")), PositionError, "no position 'there'; it has first, here, last"),
    ],
)
def test_what_cannot_be_interchanged_is_refused_in_one_line(intervention, error, text: str) -> None:
    (pair,) = encoded_pairs(0, 1)
    with pytest.raises(error, match=text) as refused:
        row_of(pair, intervention, sizes_of(shared_model("llama")))
    assert "\n" not in str(refused.value)


def test_all_features_may_be_named_by_their_number() -> None:
    (pair,) = encoded_pairs(0, 1)
    by_number = Intervention((Unit(HERE, Subspace("identity", 32)),))
    sizes = sizes_of(shared_model("llama"))
    assert row_of(pair, by_number, sizes) == row_of(pair, residual((0, "here")), sizes)


def test_ties_go_to_the_lowest_id_and_nothing_finite_is_no_output() -> None:
    inf, nan = float("inf"), float("nan")
    tied, ruled_out, broken, overflown = decide(
        torch.tensor([[1.0, 3.0, 3.0], [-inf, 0.0, 0.5], [nan, 0.0, 1.0], [0.0, inf, 1.0]])
    )
    assert (tied.id, tied.gap, tied.finite) == (1, 0.0, True)
    assert (ruled_out.id, ruled_out.finite) == (2, True)
    assert (broken.finite, overflown.finite) == (False, False)
