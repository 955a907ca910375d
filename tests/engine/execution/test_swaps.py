"""Swaps as arrays: the rows of `build_row`, the outputs of rows by themselves, and no Python for a
row."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from raysearch import Pair
from raysearch.core.events import Block, Event, Failed, Ids, Measured, Task
from raysearch.core.hypothesis import Intervention, Site, Subspace, Unit
from raysearch.core.lease import Lease, LeasedTest
from raysearch.core.prompt_format import PromptFormat
from raysearch.core.runner_settings import RunnerSettings
from raysearch.engine.execution.replay_executor import ReplayExecutor
from raysearch.engine.execution.wave_executor import parts_of_runs
from raysearch.engine.loading.loaded_model import LoadedModel
from raysearch.engine.networks.blocks import layers_of
from raysearch.engine.replica import Replica
from tests.engine.bytecodes import bytecodes
from tests.engine.test_replica import BLOCKS, PLACES, Counter, measure, replica_of
from tests.engine.worlds import (
    POSITIONS,
    blocks_of,
    digest_of,
    model_of,
    random_pairs,
    word_tokenizer,
)

pytestmark = pytest.mark.usefixtures("checked_once")

COMPONENTS = ("residual", "mlp_output", "attention_output", "head", "query")
NAMES = ("kl", "logit_difference", "probability", "squared_error")
KINDS = (*("interchange",) * 7, "zero", "resample", "mean")
WORLDS = (
    ("llama", "float32", "as it is"),
    ("llama", "bfloat16", "a small cache"),
    ("gpt2", "bfloat16", "as it is"),
    ("gpt2", "float32", "three tokens"),
    ("mistral", "float32", "a small cache"),
    ("mistral", "bfloat16", "one layer planned"),
    ("gemma2", "bfloat16", "three tokens"),
    ("gemma2", "float32", "one layer planned"),
    ("llama", "float16", "three tokens"),
)
"""Family, type and name in SETTINGS: each setting in both types, for a replica costs more than an
example."""
CONTROLS = (None, None, "self_swap", "random_source", "placebo", "random_subspace")


SETTINGS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "a small cache": {"rows": 5, "capture_bytes": 60_000},
    "one layer planned": {"layers": (1,)},
    "three tokens": {},
}


def replica_on(
    model: PreTrainedModel, pairs: tuple[Pair, ...], answer: int = 1, **settings: Any
) -> Replica:
    """A replica in the model's dtype, whose answers have so many tokens."""
    pairs = tuple(replace(p, counterfactual={"x": p.counterfactual["x"] * answer}) for p in pairs)
    wording = PromptFormat(compare="sequence") if answer > 1 else PromptFormat()
    dtype = str(model.dtype).removeprefix("torch.")
    drawn = LoadedModel(model, word_tokenizer(), digest_of(model), dtype, wording)
    where = (*POSITIONS, "last"), ["x"], "worker-1", "node-1"
    replica = Replica(drawn, pairs, *where, RunnerSettings(**settings))
    assert replica._tokens == answer
    return replica


@lru_cache
def replica_in(family: str, dtype: str, name: str) -> Replica:
    model = model_of(family).to(getattr(torch, dtype))
    answer = 3 if name == "three tokens" else 1
    replica = replica_on(model, random_pairs(1, 24), answer, **SETTINGS[name])
    assert isinstance(replica._runner.executor, ReplayExecutor)
    return replica


@contextmanager
def row_by_row(replica: Replica) -> Iterator[None]:
    swaps, replica._runner.swaps = replica._runner.swaps, None
    try:
        yield
    finally:
        replica._runner.swaps = swaps


def some_intervention(rng: random.Random) -> Intervention:
    """Any that a search may make, some of which no pair, or not every pair, allows."""
    component = rng.choice(COMPONENTS)
    head = rng.randrange(2) if component in ("head", "query") else None
    position = rng.choice([*POSITIONS, "last", "nowhere"] if rng.random() < 0.1 else POSITIONS)
    site = Site(rng.randrange(3), component, position, head)
    width = 8 if head is not None else 32
    subspace = rng.choice(
        [
            Subspace(),
            Subspace(),
            Subspace("identity", None, tuple(rng.sample(range(width), 3))),
            Subspace("random", 2),
        ]
    )
    kind = rng.choice(KINDS) if subspace.featurizer == "identity" else "interchange"
    other = replace(site, layer=rng.randrange(3)) if rng.random() < 0.3 else None
    units = (Unit(site, subspace, source_site=other),)
    if rng.random() < 0.3:
        units += (Unit(Site(rng.randrange(3), "mlp_output", "last")),)
    control = rng.choice(CONTROLS) if kind == "interchange" and len(units) == 1 else None
    if control == "random_subspace" and subspace.featurizer == "identity":
        control = None
    return Intervention(units, kind=kind, control=control)


def told(events: list[Event]) -> list[tuple[Any, ...]]:
    """What events say of results."""
    return [
        (e.intervention, e.split, e.block, e.pairs, e.outputs, e.near_ties, e.rows)
        if isinstance(e, Measured)
        else (e.intervention, e.error_type, e.message, e.split)
        for e in events
        if isinstance(e, Measured | Failed)
    ]


@settings(max_examples=4, deadline=None)
@given(
    world=st.sampled_from(WORLDS),
    seed=st.integers(0, 2**20),
    size=st.sampled_from((3, 8, 24)),
)
def test_events_are_those_of_rows_by_themselves(
    world: tuple[str, str, str], seed: int, size: int
) -> None:
    rng = random.Random(seed)
    replica = replica_in(*world)
    asked = {i.key: i for i in (some_intervention(rng) for _ in range(rng.randint(1, 20)))}
    blocks = blocks_of(tuple(rng.sample(random_pairs(1, 24), 24)), size)[: rng.randint(1, 3)]
    found = told(measure(replica, asked.values(), blocks))
    assert "AssertionError" not in {of[1] for of in found}, "a fault of ours"
    with row_by_row(replica):
        assert found == told(measure(replica, asked.values(), blocks))


def test_a_source_is_read_outside_of_the_blocks() -> None:
    """Its run goes on behind the first block, although nothing in a block is read of it."""
    replica = replica_of(model_of("llama"))
    unit = Unit(Site(1, "residual", "here"), source_site=Site(None, "embedding", "here"))
    for event in measure(replica, [Intervention((unit,))]):
        assert isinstance(event, Measured), event


def test_most_rows_are_swaps_and_each_is_that_of_build_row() -> None:
    replica = replica_of(model_of("llama"))
    seen = []
    evaluator = replica._runner.swaps
    assert evaluator is not None
    run = evaluator.measure
    evaluator.measure = lambda swaps, tokens: (seen.append(swaps), run(swaps, tokens))[1]  # type: ignore[method-assign]
    measure(replica)
    (swaps,) = seen
    pairs = [replica._pairs[index] for block in BLOCKS for index in block.pairs]
    rows = [replica._row(replica._runner, pair, place) for pair in pairs for place in PLACES]
    assert [swaps.row(at) for at in range(len(swaps))] == rows
    first, which = swaps.distinct()
    assert len(first) == len(set(rows))
    assert [rows[at] for at in first[which]] == rows
    free = [replica._runner.executor.is_free(row) for row in rows]
    assert swaps.unchanged().tolist() == free
    assert any(free)


class Never:
    """A test that no count ends."""

    def ends(self, n: int, matches: int) -> bool:
        return False


def bytecodes_of(
    pairs: int,
    subspaces: int,
    choices: Ids = (),
    scores: tuple[str, ...] = (),
    is_leased: bool = False,
) -> tuple[int, int]:
    """How many rows a task has, and how many bytecodes of ours run for it."""
    every = random_pairs(0, pairs, shortest=7, longest=8)
    replica = replica_of(model_of("llama"), every, rows=100_000, scores=scores)
    assert replica._runner.swaps is not None
    if choices:  # every second pair has fewer
        replica._pairs = {
            at: replace(pair, choices=choices[at % 2 :]) for at, pair in replica._pairs.items()
        }
    asked = [
        Intervention((Unit(place.units[0].site, Subspace("identity", 2, (0, 1 + at))),))
        for at in range(subspaces)
        for place in PLACES
        if place.units[0].site.position != "here"  # waves are by token: here, more with more pairs
    ]
    blocks = blocks_of(every, pairs)
    test = LeasedTest("x", 0, 0, Never())
    leased = Lease(((test,),) * len(asked), False, 10_000, 10_000, 600.0) if is_leased else None
    measure(replica, asked, blocks)  # captures, templates and tokens of positions
    events, count = bytecodes(lambda: measure(replica, asked, blocks, lease=leased))
    return sum(event.rows for event in events if isinstance(event, Measured)), count


@pytest.mark.slow_unless(dtype=["bfloat16"], count=[18])
@pytest.mark.slow_unless(family=["gemma2"], count=[6])
@pytest.mark.parametrize(
    ("family", "dtype"),
    [("llama", "float32"), ("gemma2", "float32"), ("llama", "bfloat16"), ("gpt2", "float16")],
)
@pytest.mark.parametrize("count", [6, 18])
def test_further_tokens_of_an_answer_run_one_token_of_each_row(
    family: str, dtype: str, count: int
) -> None:
    """They go on from the wave's keys and values: a block runs once for each layer and token, and
    no longer text is run, but for the rows that are tried and for those that are nearly a tie."""
    model = model_of(family).to(getattr(torch, dtype))
    pairs = random_pairs(5, count, shortest=6, longest=7)
    one, three = replica_on(model, pairs), replica_on(model, pairs, answer=3)
    blocks, layers = blocks_of(pairs, count), len(layers_of(model))
    counter, ran = Counter(model), []
    for replica in (one, three):
        swaps = replica._runner.swaps
        assert swaps is not None
        swaps._tolerance = 9.0  # whatever the trial finds: what follows it is counted here
        replica.do(Task(1, "screen", (), blocks))
        for _ in range(3):
            measure(replica, PLACES, blocks)
        assert swaps._goes_on
        assert (swaps._untried <= 0) is (replica is three), "one token is not tried"
        swaps._tolerance = replica._runner.evaluator.near_tie = 0.0
        replica._runner.cache.set_tolerance(0.0)
        measure(replica, PLACES, blocks)
        counter.since()
        measure(replica, PLACES, blocks)
        ran.append(counter.since())
    pairs_of_rows = [three._pairs[i] for b in blocks for i in b.pairs]
    rows = {three._row(three._runner, pair, place) for pair in pairs_of_rows for place in PLACES}
    moving = [row for row in rows if not three._runner.executor.is_free(row)]
    assert len(moving) > 2 * count
    assert ran[1] - ran[0] == 2 * layers * len(moving)


@pytest.mark.slow_unless(asked=[{}, {"scores": NAMES}, {"is_leased": True}])
@pytest.mark.parametrize(
    "asked",
    [{}, {"choices": (1, 2, 3)}, {"scores": NAMES}, {"is_leased": True}],
    ids=["free", "choices", "scores", "leased"],
)
def test_python_does_not_grow_with_rows(
    asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It grows with pairs and with interventions, and not with both."""
    monkeypatch.setenv("RAYSEARCH_CACHE", "off")  # all replicas begin alike: each by its check
    bytecodes_of(16, 3, **asked)  # what is done once in a process is done: checks of shapes
    (few, base), (_, more_pairs), (_, more_places), (many, both) = (
        bytecodes_of(*size, **asked) for size in ((8, 1), (16, 1), (8, 3), (16, 3))
    )
    assert many == 6 * few
    assert both - more_pairs - more_places + base < 0.5 * (many - few)


@settings(max_examples=60, deadline=None)
@given(
    runs=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=40),
    room=st.integers(1, 9),
)
def test_parts_are_all_rows_in_order_and_fit(runs: list[tuple[int, int]], room: int) -> None:
    base, source = np.array(runs, dtype=np.int64).reshape(-1, 2).T
    parts = list(parts_of_runs(np.column_stack((base, source)), room))
    assert np.concatenate([*parts, np.zeros(0, int)]).tolist() == list(range(len(runs)))
    for at, part in enumerate(parts):
        held = {*base[part].tolist(), *source[part].tolist()}
        assert len(held) <= room or len(part) == 1
        if at + 1 < len(parts):
            after = int(parts[at + 1][0])
            assert len(held | {int(base[after]), int(source[after])}) > room


@pytest.mark.parametrize("room", [4, 24])
@pytest.mark.parametrize("rows", [4, 64])
def test_no_run_is_captured_twice_however_few_fit(rows: int, room: int) -> None:
    model = model_of("llama")
    pairs = random_pairs(3, 24, shortest=6, longest=7)
    replica = replica_of(model, pairs, rows=rows, capture_bytes=2**28)
    distinct = {given for e in replica.opened.encoded for given in (e.base, *e.sources.values())}
    runner, blocks = replica._runner, blocks_of(pairs, 24)
    measure(replica, PLACES, blocks)
    per_run = runner.cache._bytes // len(runner.cache._runs)
    runner.cache._max_bytes = room * per_run  # there are 48 runs
    runner.cache._runs.clear()
    runner.cache._shallow.clear()  # as if no source had run
    runner.cache._held.clear()
    runner.cache._bytes = 0
    made = []
    run = runner.cache._run

    def counted(batch: Any, blocks: int | None = None) -> Any:
        made.extend(row.base for row in batch)
        return run(batch, blocks)

    runner.cache._run = counted  # type: ignore[method-assign]
    measure(replica, PLACES, blocks)
    assert len(made) == len(set(made))
    assert set(made) <= distinct


def test_rows_that_run_as_objects_read_as_deep_as_they_need_after_swaps_of_lower_layers() -> None:
    """An intervention whose position has one token on some pairs and two on others is no swap."""

    def measured(plain: bool) -> list[tuple[Ids, ...]]:
        replica = replica_on(model_of("llama"), random_pairs(1, 24, shortest=3), plain=plain)
        for index, pair in replica._pairs.items():
            at = {"name": (0, 1) if index % 2 else (0,)}
            replica._pairs[index] = replace(
                pair,
                base_positions={**pair.base_positions, **at},
                source_positions={n: {**of, **at} for n, of in pair.source_positions.items()},
            )
        replica._every_pair = tuple(replica._pairs.values())
        low, high = (
            Intervention((Unit(Site(layer, "residual", position)),))
            for layer, position in ((0, "first"), (2, "name"))
        )
        events = replica.do(Task(0, "measure", (low, high), (Block("test", 0, tuple(range(8))),)))
        assert all(isinstance(event, Measured) for event in events), events
        return [event.outputs for event in events if isinstance(event, Measured)]

    assert measured(plain=False) == measured(plain=True)
