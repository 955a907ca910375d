"""Sources end at their deepest site; screening keeps what is measured later; choices are decided by
their own logits."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from raysearch.core.events import Task
from raysearch.engine.execution.predict import predict
from raysearch.engine.networks.answer_head import AnswerHead
from raysearch.engine.networks.point import Point
from raysearch.engine.patching.rows import Row, swap
from tests.engine.test_replica import BLOCKS, Counter, measure, replica_of
from tests.engine.worlds import VOCAB, model_of, shared_world, world_of

BASE, SOURCE = (5, 6, 7, 8, 9), (5, 6, 20, 21, 22)


def test_a_source_is_run_to_its_deepest_site_and_as_a_whole_if_more_is_asked_for() -> None:
    model = model_of("llama")
    world, counter = world_of(model), Counter(model)
    path = world.replayed()
    path.logits([swap(BASE[::-1], SOURCE[::-1], 1, (2,))])  # finds the component, makes a template
    counter.since()

    def blocks(layer: int, source: tuple[int, ...] = SOURCE) -> int:
        row = swap(BASE, source, layer, (2,))
        logits, ran = path.logits([row])[0], counter.since()
        assert (logits - world.oracle(row)).abs().max() <= 1e-4
        counter.since()
        return ran

    assert blocks(1) == 4 + 2 + 2  # the base; the source's blocks 0 and 1; the row's 2 and 3
    assert blocks(0) == 3
    assert blocks(2) == 4 + 1  # it is run again, now as a whole
    assert blocks(3) == 0
    assert blocks(3, BASE) == 0  # the base itself has run as a whole


def test_what_is_screened_is_not_run_again_when_it_is_measured() -> None:
    model = model_of("llama")
    replica, counter = replica_of(model), Counter(model)
    replica.do(Task(1, "screen", (), BLOCKS))
    counter.since()
    events = measure(replica)
    executor = replica._runner.executor
    rows = {
        replica._row(replica._runner, replica._pairs[index], place)
        for place in (p for p in _places(events))
        for block in BLOCKS
        for index in block.pairs
    }
    patched = {row for row in rows if not executor.is_free(row)}
    assert counter.since() == sum(4 - 1 - row.patches[0].point.layer for row in patched)


def _places(events: list) -> list:  # type: ignore[type-arg]
    from tests.engine.test_replica import PLACES

    keys = {event.intervention for event in events}
    return [place for place in PLACES if place.key in keys]


@settings(max_examples=25, deadline=None)
@given(
    family=st.sampled_from(("llama", "gpt2", "gptj", "mistral", "olmo2")),
    among=st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=2, unique=True),
    layers=st.lists(st.integers(0, 1), min_size=1, max_size=5),
)
def test_choices_are_decided_as_by_the_whole_head(
    family: str, among: list[int], layers: list[int]
) -> None:
    world = shared_world(family)
    rows = [
        replace(swap(BASE, SOURCE, layer, (2 + at % 3,)), among=tuple(among))
        for at, layer in enumerate(layers)
    ]
    path = world.replayed()
    assert path._replay._answers.serves(len(among))
    for row, logits in zip(rows, _by_wave(path, rows, choices_only=True), strict=True):
        (whole,) = _by_wave(path, [row], choices_only=False)
        assert (logits[among] - whole[among]).abs().max() <= 1e-4
        (ours,), (theirs,) = (predict(one[None], [row.among]) for one in (logits, whole))
        assert ours.id == theirs.id or theirs.gap < 2e-4
        assert len(among) == 1 or abs(ours.gap - theirs.gap) <= 2e-4


def _by_wave(path, rows, choices_only):  # type: ignore[no-untyped-def]
    found = {}
    for batch in path.batches(rows):
        found.update(zip(batch, path.logits(batch, None, choices_only), strict=True))
    return [found[row] for row in rows]


@settings(max_examples=50, deadline=None)
@given(data=st.data(), rows=st.integers(1, 5), size=st.integers(1, 4))
def test_a_prediction_among_choices_is_that_of_the_masked_logits(
    data: st.DataObject, rows: int, size: int
) -> None:
    ids = st.lists(st.integers(0, 9), min_size=size, max_size=size, unique=True)
    among = [tuple(data.draw(ids)) for _ in range(rows)]
    logits = torch.tensor(
        [data.draw(st.lists(st.integers(-2, 2), min_size=10, max_size=10)) for _ in among]
    ).float()
    for row, of, found in zip(logits, among, predict(logits, among), strict=True):
        best = max(float(row[id]) for id in of)
        assert found.id == min(id for id in of if float(row[id]) == best)
        rest = sorted((float(row[id]) for id in of), reverse=True)
        assert found.gap == (rest[0] - rest[1] if len(rest) > 1 else 0.0)


class _Products(TorchDispatchMode):
    """Records products that are as wide as the vocabulary."""

    def __init__(self, vocab: int) -> None:
        super().__init__()
        self.vocab, self.seen = vocab, list[tuple[str, tuple[int, ...]]]()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        if func.name() in ("aten::mm", "aten::bmm") and out.shape[-1] == self.vocab:
            self.seen.append((func.name(), tuple(out.shape)))
        return out


class _WholeHeads(TorchDispatchMode):
    """Counts products that give a number for each id of the vocabulary."""

    def __init__(self, vocab: int) -> None:
        super().__init__()
        self.vocab, self.count = vocab, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        if func.name().startswith(("aten::mm", "aten::addmm", "aten::linear", "aten::bmm")):
            self.count += out.shape[-1] == self.vocab
        return out


def test_a_source_that_ends_early_computes_no_head() -> None:
    world = shared_world("llama")
    cache = world.replayed()._cache
    cache.wanted.points([Point(1, "residual")])
    with torch.inference_mode(), _WholeHeads(VOCAB) as heads:
        cache.runs([Row(BASE)])
        assert heads.count == 1
        cache.runs([], {Row(SOURCE): [Point(1, "residual")]})
        assert heads.count == 1


def test_a_hook_of_ones_own_may_write_into_the_logits_in_place() -> None:
    """Those of a source that ends early, which nobody reads, among them."""
    model = model_of("llama")

    def write(_module: object, _given: object, logits: torch.Tensor) -> None:
        logits[..., 3] = -9.0

    model.lm_head.register_forward_hook(write)
    world, rows = world_of(model), [swap(BASE, of, 1, (2,)) for of in (SOURCE, SOURCE[::-1])]
    with torch.inference_mode():
        for row, logits in zip(rows, world.replayed().logits(rows), strict=True):
            assert (logits - world.oracle(row)).abs().max() <= 1e-4


@pytest.mark.parametrize("rows", [2, 9])
def test_the_head_of_a_batch_is_one_product(rows: int) -> None:
    """On a CPU torch multiplies the rows of a view with gaps one by one, which takes five times as
    long for 16."""
    world = shared_world("llama")
    with torch.no_grad(), _Products(VOCAB) as heads:
        world.network.batch([(5, 6, at) for at in range(rows)])
    assert heads.seen == [("aten::mm", (rows, VOCAB))]


@pytest.mark.parametrize("choices_only", [True, False])
def test_the_whole_head_is_computed_only_where_the_answer_is_free(choices_only: bool) -> None:
    world = shared_world("llama")
    path, row = world.replayed(), replace(swap(BASE, SOURCE, 1, (2,)), among=(4, 7))
    with torch.inference_mode():
        path.logits([row])
        with _WholeHeads(VOCAB) as heads:
            path.logits([row], None, choices_only)
    assert heads.count == (0 if choices_only else 1)


def test_a_head_that_adds_to_all_logits_is_computed_as_a_whole() -> None:
    model = model_of("llama")
    model.lm_head.register_forward_hook(lambda _m, _i, out: out + torch.zeros(VOCAB))
    world = world_of(model)
    assert not AnswerHead(world.network).serves(2)
    path, row = world.replayed(), Row(BASE, swap(BASE, SOURCE, 1, (2,)).patches, (4, 7))
    (ours,) = predict(path.logits([row], None, True), [row.among])
    assert ours.id == predict(world.oracle(row)[None], [row.among])[0].id
