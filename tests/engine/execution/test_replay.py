"""Suffix replay against the oracle, in every family; and that it leaves a model as it was."""

import random
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import PreTrainedModel

from raysearch.core.events import Ids, Measured, Task
from raysearch.engine.execution.predict import NEAR_TIE, predict
from raysearch.engine.execution.replay import TEMPLATES
from raysearch.engine.execution.replay_executor import ReplayExecutor
from raysearch.engine.loading.loaded_model import LoadedModel
from raysearch.engine.networks.blocks import layers_of
from raysearch.engine.networks.point import Point
from raysearch.engine.patching.rows import Patch, Row, Source
from raysearch.engine.replica import Replica
from tests.engine.worlds import (
    LAYOUTS,
    POSITIONS,
    REPLAYED,
    TOLD_ATTENTION,
    VOCAB,
    blocks_of,
    loaded,
    model_of,
    random_pairs,
    residual,
    shared_model,
    shared_world,
    word_tokenizer,
    world_of,
)

Place = tuple[int, Ids, Ids]
"""Layer, the base's tokens, the source's."""


def row_of(base: Ids, source: Ids, *places: Place) -> Row:
    """A plain interchange of the residual at each of the places."""
    points = [(Point(layer, "residual"), ours, theirs) for layer, ours, theirs in places]
    return Row(
        base, tuple(Patch(p, ours, (Source(Row(source), p, theirs),)) for p, ours, theirs in points)
    )


def runs_of(path: ReplayExecutor, rows: Sequence[Row]) -> None:
    """Makes all the runs that the rows need."""
    path.want_rows(rows)
    path._cache.runs(
        [
            run
            for row in rows
            for run in (Row(row.base), *(s.run for p in row.patches for s in p.sources))
        ]
    )


@st.composite
def rows(draw: st.DrawFn, layers: int, most: int = 12) -> list[Row]:
    """Rows of several units in several layers; few texts, that share prefixes, so that waves and
    identities come about."""
    rng = random.Random(draw(st.integers(0, 10**6)))
    prefix = [rng.randrange(3, VOCAB) for _ in range(8)]

    lengths = [rng.randint(1, 9) for _ in range(2)]

    def text() -> Ids:
        length = rng.choice(lengths)
        shared = rng.randint(0, min(5, length))
        return tuple(prefix[:shared] + [rng.randrange(3, VOCAB) for _ in range(length - shared)])

    texts = [text() for _ in range(5)]
    found = []
    for _ in range(draw(st.integers(1, most))):
        base, source = rng.choice(texts), rng.choice(texts)
        patches = []
        for layer in sorted(rng.sample(range(layers), rng.randint(1, min(3, layers)))):
            ours = rng.sample(range(len(base)), rng.randint(1, min(3, len(base))))
            same = rng.random() < 0.4  # the same places, where the source has them
            theirs = [t if same and t < len(source) else rng.randrange(len(source)) for t in ours]
            patches.append((layer, tuple(ours), tuple(theirs)))
        found.append(row_of(base, source, *patches))
    return found


def replaying(model: PreTrainedModel, most: int = 64, max_bytes: int = 2**30) -> ReplayExecutor:
    return world_of(model).replayed(most, max_bytes)


def replayed(model: PreTrainedModel, asked: Sequence[Row], most: int = 64) -> list[Tensor]:
    """The logits of each row, in the order of `asked`."""
    path = replaying(model, most)
    found: dict[Row, Tensor] = {}
    for batch in path.batches(asked):
        found.update(zip(batch, path.logits(batch), strict=True))
    return [found[row] for row in asked]


@settings(max_examples=25, deadline=None)
@given(data=st.data(), family=st.sampled_from(REPLAYED), most=st.integers(1, 20))
def test_replayed_rows_equal_the_oracle(data: st.DataObject, family: str, most: int) -> None:
    model = shared_model(family)
    asked = data.draw(rows(len(layers_of(model))))
    for row, ours in zip(asked, replayed(model, asked, most), strict=True):
        wanted = world_of(model).oracle(row)
        assert (ours - wanted).abs().max() <= 1e-4
        (our,), (theirs,) = predict(ours[None]), predict(wanted[None])
        assert our.id == theirs.id or theirs.gap < 2e-4


@settings(max_examples=20, deadline=None)
@given(data=st.data(), family=st.sampled_from(REPLAYED))
def test_an_identity_gives_the_bases_own_output(data: st.DataObject, family: str) -> None:
    model = shared_model(family)
    path = replaying(model)
    for row in data.draw(rows(len(layers_of(model)))):
        same = all(
            o == t and row.base[: o + 1] == p.sources[0].run.base[: o + 1]
            for p in row.patches
            for o, t in zip(p.tokens, p.sources[0].tokens, strict=True)
        )
        assert path.is_free(row) == same
        if same:
            wanted = world_of(model).oracle(row)
            assert (wanted - world_of(model).plain(row.base)).abs().max() <= 1e-4
            assert path._cache.predictions([row.unpatched])[0].id == predict(wanted[None])[0].id


def test_an_identity_needs_the_same_prefix_at_the_same_place() -> None:
    path = replaying(shared_model("llama"))

    def free(base: Ids, source: Ids, *places: Place) -> bool:
        return path.is_free(row_of(base, source, *places))

    assert free((5, 6, 7), (5, 6, 9), (0, (0, 1), (0, 1)), (2, (1,), (1,)))
    assert not free((5, 6, 7), (5, 6, 9), (0, (0,), (0,)), (2, (2,), (2,)))
    assert not free((5, 6, 7), (4, 6, 7), (0, (1,), (1,)))  # the same token, after another
    assert not free((5, 5, 7), (5, 5, 7), (0, (0,), (1,)))  # the same token, elsewhere
    assert not free((5, 6, 7), (5, 6, 7), (0, (0, 1), (1, 0)))


def test_a_wave_walks_up_once_each_row_joining_at_its_layer() -> None:
    model, seen = model_of("llama"), []
    for layer, block in enumerate(model.model.layers):
        block.register_forward_hook(
            lambda m, i, o, layer=layer: seen.append((layer, tuple(o.shape[:2])))
        )
    base, source, path = (5, 6, 7, 8, 9), (5, 10, 11), replaying(model)
    asked = [row_of(base, source, (layer, (2,), (1,))) for layer in (3, 1, 0, 2, 1)]
    runs_of(path, asked)
    path.logits(asked[:1])  # to have the template
    seen.clear()
    (wave,) = path.batches(asked)
    logits = path.logits(wave)
    assert seen == [(1, (1, 3)), (2, (3, 3)), (3, (4, 3))]  # rows, tokens 2..4
    assert [row.patches[0].point.layer for row in wave] == [0, 1, 1, 2, 3]
    for row, ours in zip(wave, logits, strict=True):
        assert torch.allclose(ours, world_of(model).oracle(row), atol=1e-4)
    # Logits come in the order in which rows are given, whatever the order of their layers.
    for row, ours in zip(asked, path.logits(asked), strict=True):
        assert torch.allclose(ours, world_of(model).oracle(row), atol=1e-4)


def test_rows_of_two_shapes_are_no_wave() -> None:
    path = replaying(shared_model("llama"))
    asked = [row_of((5, 6, 7), (8, 9), (0, (at,), (0,))) for at in (1, 2, 1)]
    assert [len(wave) for wave in path.batches(asked)] == [2, 1]
    assert [len(wave) for wave in replaying(shared_model("llama"), most=1).batches(asked)] == [
        1,
        1,
        1,
    ]
    with pytest.raises(AssertionError, match="one token and have one length"):
        path.logits(asked)


def test_templates_are_kept_for_the_last_shapes_only_and_hold_no_keys() -> None:
    model = model_of("llama")
    path, tokens = replaying(model), tuple(range(3, 32))
    asked = [
        row_of(tokens[:length], tokens[1:3], (3, (at,), (0,)))
        for length in range(20, 24)
        for at in range(length)
    ]
    assert len({path.shape_of(row) for row in asked}) > TEMPLATES
    for row in asked:
        path.logits([row])
    templates = path._replay._templates
    assert list(templates) == [path.shape_of(row) for row in asked[-TEMPLATES:]]
    assert not any(template._cache.layers for template in templates.values())
    first = next(iter(templates))
    path.logits([row for row in asked if path.shape_of(row) == first])
    assert list(templates)[-1] == first  # used last


EXPERTS = ("mixtral", "qwen2_moe", "gpt_oss", "deepseek_v3")
"""Choose among experts, which in coarse numbers goes either way in a batch: their rows are run one
by one."""


@pytest.mark.slow_unless(family=["gpt2"])
@pytest.mark.slow_unless(family=LAYOUTS, dtype=["float32"], attention=["sdpa"])
@pytest.mark.parametrize(
    ("dtype", "attention"), [("float32", "eager"), ("float32", "sdpa"), ("bfloat16", None)]
)
@pytest.mark.parametrize("family", REPLAYED)
def test_every_family_is_measured_as_by_the_oracle(
    family: str, dtype: str, attention: str | None, record_property
) -> None:
    if attention == "sdpa" and family in TOLD_ATTENTION:
        pytest.skip("transformers has no such attention for it")
    pairs = random_pairs(3, 8)
    model = model_of(family, attention=attention).to(getattr(torch, dtype))
    tokenizer = word_tokenizer(before=True)
    replica = Replica(LoadedModel(model, tokenizer, "", dtype), pairs, POSITIONS, ["x"], "w")
    record_property("path", replica.opened.facts.path)
    print(f"{family}, {dtype}, {attention or 'its own attention'}: {replica.opened.facts.path}")
    routed = dtype != "float32" and family in EXPERTS
    assert replica.opened.facts.path == ("plain" if routed else "replay")
    path = replica._runner.executor
    places = [
        residual((layer, at))
        for layer in range(len(layers_of(model)))
        for at in (*POSITIONS, "last")
    ]
    items, _ = replica._requests(
        replica._runner, Task(1, "measure", tuple(places), blocks_of(pairs, 8))
    )
    asked = list(dict.fromkeys(item.row for item in items if not path.is_free(item.row)))
    allowed = 1e-4 if dtype == "float32" else NEAR_TIE[dtype] / 2
    wanted = {row: world_of(model).oracle(row) for row in asked}
    for batch in path.batches(asked):
        for row, ours in zip(batch, path.logits(batch), strict=True):
            assert (ours - wanted[row]).abs().max() <= allowed
    decided = replica._runner.evaluator.measure(items)
    assert not decided.faults
    for item, decision in decided.predictions.items():
        if replica._runner.near_tie == 0 and item.row in wanted:  # it defines the answer itself
            (reference,) = predict(path.logits([item.row]))
        else:
            logits = wanted.get(item.row, world_of(model).plain(item.row.base))
            (reference,) = predict(logits[None])
        assert [d.id for d in decision] == [reference.id]


def test_blocks_that_return_tuples_as_in_older_transformers_are_replayed() -> None:
    class Older(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, hidden, *args, **kwargs):
            return (
                self.inner(hidden[0] if isinstance(hidden, tuple) else hidden, *args, **kwargs),
                None,
            )

    old, new = model_of("llama"), model_of("llama")
    for at in range(4):
        old.model.layers[at] = Older(old.model.layers[at])
    old.model.norm.register_forward_pre_hook(lambda m, args: (args[0][0],))
    assert (
        Replica(loaded(old), random_pairs(0, 8), POSITIONS, ["x"], "w").opened.facts.path
        == "replay"
    )
    asked = [row_of((5, 6, 7, 8), (9, 10, 11), (layer, (2,), (1,))) for layer in range(4)]
    for row, ours in zip(asked, replayed(old, asked), strict=True):
        assert torch.allclose(ours, world_of(new).oracle(row), atol=1e-4)


ASKED = [row_of((5, 6, 7, 8), (9, 10, 11), (layer, (2,), (1,))) for layer in (0, 2)]
FAMILIES = ["llama", "gpt2"]


def state(model: PreTrainedModel) -> list[object]:
    """What there is to change by mistake: which blocks there are, what their instances hold, and
    hooks."""
    blocks = layers_of(model)
    held = [{k: id(v) for k, v in block.__dict__.items()} for block in blocks]
    return [
        [id(b) for b in blocks],
        held,
        [list(m._forward_hooks) for m in model.modules()],
        list(model.state_dict()),
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_is_as_it_was_after_a_wave(family: str) -> None:
    model = model_of(family)
    before, own = state(model), world_of(model).plain(ASKED[0].base)
    replayed(model, ASKED)
    assert state(model) == before
    assert not any("forward" in module.__dict__ for module in model.modules())
    assert torch.equal(world_of(model).plain(ASKED[0].base), own)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("where", ["embedding", "block", "head"])
def test_a_model_is_as_it_was_after_an_error_anywhere_in_a_wave(family: str, where: str) -> None:
    model = model_of(family)
    before, own = state(model), world_of(model).plain(ASKED[0].base)
    path = replaying(model)
    runs_of(path, ASKED)
    broken = {
        "embedding": model.get_input_embeddings(),  # while a template is made
        "block": layers_of(model)[2],  # while the wave walks
        "head": model.get_output_embeddings(),  # in the head, or the template
    }[where]

    def raise_it(*_) -> None:
        raise ZeroDivisionError

    theirs = broken.register_forward_hook(raise_it)
    with pytest.raises(ZeroDivisionError):
        path.logits(ASKED)
    theirs.remove()
    assert state(model) == before
    assert torch.equal(world_of(model).plain(ASKED[0].base), own)
    for row, ours in zip(ASKED, path.logits(ASKED), strict=True):  # nothing half-made is used
        assert torch.allclose(ours, world_of(model).oracle(row), atol=1e-4)


def test_hooks_of_others_fire_on_what_is_run_and_see_no_dummies() -> None:
    model, seen = model_of("llama"), []
    path = replaying(model)
    runs_of(path, ASKED)
    path._network.tuples  # noqa: B018  it runs one token
    for layer, block in enumerate(model.model.layers):
        block.register_forward_hook(lambda m, i, o, layer=layer: seen.append((layer, len(o))))
        block.register_forward_pre_hook(lambda m, i, layer=layer: seen.append((layer, "before")))
    path.logits(ASKED)
    assert seen == [(1, "before"), (1, 1), (2, "before"), (2, 1), (3, "before"), (3, 2)]


@pytest.mark.parametrize("layer", range(4))
def test_what_others_do_to_a_block_is_done_once(layer: int) -> None:
    """A hook that edits (steering, say), or a `forward` of the instance's own (as accelerate's
    hooks put there)."""
    hooked, covered = model_of("llama"), model_of("llama")
    hooked.model.layers[layer].register_forward_hook(lambda m, i, o: o * 1.5 + 0.25)
    block = covered.model.layers[layer]
    forward = block.forward
    block.forward = cover = lambda *args, **kwargs: forward(*args, **kwargs) * 1.5 + 0.25
    asked = [row_of((5, 6, 7, 8), (9, 10, 11), (at, (2,), (1,))) for at in range(4)]
    for model in (hooked, covered):
        for row, ours in zip(asked, replayed(model, asked), strict=True):
            assert torch.allclose(ours, world_of(hooked).oracle(row), atol=1e-4)
            assert not torch.allclose(ours, shared_world("llama").oracle(row), atol=1e-2)
    assert block.__dict__["forward"] is cover


def test_a_cache_without_room_gives_the_same() -> None:
    model = shared_model("llama")
    pairs = random_pairs(1, 6)
    blocks = blocks_of(pairs, 6)
    places = tuple(residual((layer, "here")) for layer in range(4))
    task = Task(1, "measure", places, blocks)
    events = Replica(loaded(model), pairs, POSITIONS, ["x"], "w").do(task)
    assert all(isinstance(e, Measured) for e in events)
    path = replaying(model, max_bytes=0)
    for row, ours in zip(ASKED, path.logits(ASKED), strict=True):
        assert torch.allclose(ours, world_of(model).oracle(row), atol=1e-4)


def test_a_run_without_keys_is_not_replayed_on() -> None:
    with pytest.raises(AssertionError, match="on the keys and values"):
        ReplayExecutor(*(world := shared_world("llama")).__dict__.values(), world.captures())
