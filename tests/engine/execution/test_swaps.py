"""Swaps as arrays: the rows of `build_row`, the outputs of rows by themselves, and no Python for a
row."""

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raysearch.core.events import Event, Failed, Measured
from raysearch.core.hypothesis import Intervention, Site, Subspace, Unit
from raysearch.engine.execution.executors import ReplayExecutor, parts_of_runs
from raysearch.engine.replica import Replica
from tests.engine.test_replica import BLOCKS, PLACES, measure, replica_of
from tests.engine.worlds import POSITIONS, blocks_of, model_of, random_pairs

COMPONENTS = ("residual", "mlp_output", "attention_output", "head", "query")
KINDS = ("interchange", "interchange", "interchange", "zero", "resample")
WORLDS = (
    ("llama", "float32", 64, None),
    ("llama", "bfloat16", 5, 60_000),
    ("gpt2", "bfloat16", 64, None),
    ("gpt2", "float32", 5, 60_000),
    ("mistral", "float32", 64, 60_000),
    ("mistral", "bfloat16", 5, None),
    ("gemma2", "bfloat16", 64, 60_000),
    ("gemma2", "float32", 5, None),
)
"""Family, type, rows of a batch and bytes of the cache: each with each other once, for a replica
costs more than an example."""
CONTROLS = (None, None, "self_swap", "random_source", "placebo", "random_subspace")


@lru_cache
def replica_in(family: str, dtype: str, rows: int, capture_bytes: int | None) -> Replica:
    model = model_of(family).to(getattr(torch, dtype))
    more: dict[str, Any] = {} if capture_bytes is None else {"capture_bytes": capture_bytes}
    replica = replica_of(model, random_pairs(1, 24), rows=rows, **more)
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
    if rng.random() < 0.1:
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


@settings(max_examples=40, deadline=None)
@given(
    world=st.sampled_from(WORLDS),
    seed=st.integers(0, 2**20),
    size=st.sampled_from((3, 8, 24)),
)
def test_events_are_those_of_rows_by_themselves(
    world: tuple[str, str, int, int | None], seed: int, size: int
) -> None:
    rng = random.Random(seed)
    replica = replica_in(*world)
    asked = {i.key: i for i in (some_intervention(rng) for _ in range(rng.randint(1, 20)))}
    blocks = blocks_of(tuple(rng.sample(random_pairs(1, 24), 24)), size)[: rng.randint(1, 3)]
    found = told(measure(replica, asked.values(), blocks))
    with row_by_row(replica):
        assert found == told(measure(replica, asked.values(), blocks))


def test_most_rows_are_swaps_and_each_is_that_of_build_row() -> None:
    replica = replica_of(model_of("llama"))
    seen = []
    evaluator = replica._runner.swaps
    assert evaluator is not None
    run = evaluator.measure
    evaluator.measure = lambda swaps: (seen.append(swaps), run(swaps))[1]  # type: ignore[method-assign]
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


def calls_of(pairs: int, subspaces: int) -> tuple[int, int]:
    """How many rows a task has, and how many functions of ours are called for it."""
    every = random_pairs(0, pairs, shortest=7, longest=8)
    replica = replica_of(model_of("llama"), every, rows=100_000)
    assert replica._runner.swaps is not None
    replica._runner.swaps._tolerance = 0.0  # near-ties are decided one by one
    asked = [
        Intervention((Unit(place.units[0].site, Subspace("identity", 2, (0, 1 + at))),))
        for at in range(subspaces)
        for place in PLACES
    ]
    blocks = blocks_of(every, pairs)
    measure(replica, asked, blocks)  # captures, templates and tokens of positions
    count = 0

    def counted(frame: FrameType, event: str, _: object) -> None:
        nonlocal count
        count += event == "call" and "/raysearch/" in frame.f_code.co_filename

    sys.setprofile(counted)
    try:
        events = measure(replica, asked, blocks)
    finally:
        sys.setprofile(None)
    return sum(event.rows for event in events if isinstance(event, Measured)), count


def test_python_calls_do_not_grow_with_rows() -> None:
    """They grow with pairs and with interventions, and not with both: each row took some 400."""
    (few, base), (_, more_pairs), (_, more_places), (many, both) = (
        calls_of(*size) for size in ((20, 1), (60, 1), (20, 4), (60, 4))
    )
    assert many == 12 * few
    assert both - more_pairs - more_places + base < 0.5 * (many - few)
    assert both < 30 * many


@settings(max_examples=60, deadline=None)
@given(
    runs=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=40),
    room=st.integers(1, 9),
)
def test_parts_are_all_rows_in_order_and_fit(runs: list[tuple[int, int]], room: int) -> None:
    base, source = np.array(runs, dtype=np.int64).reshape(-1, 2).T
    parts = list(parts_of_runs(base, source, room))
    assert np.concatenate([*parts, np.zeros(0, int)]).tolist() == list(range(len(runs)))
    for at, part in enumerate(parts):
        held = {*base[part].tolist(), *source[part].tolist()}
        assert len(held) <= room or len(part) == 1
        if at + 1 < len(parts):
            after = int(parts[at + 1][0])
            assert len(held | {int(base[after]), int(source[after])}) > room


@pytest.mark.parametrize("rows", [4, 64])
def test_no_run_is_captured_twice_while_twice_what_a_wave_needs_fits(rows: int) -> None:
    model = model_of("llama")
    pairs = random_pairs(3, 24, shortest=6, longest=7)
    replica = replica_of(model, pairs, rows=rows, capture_bytes=2**28)
    distinct = {given for e in replica.opened.encoded for given in (e.base, *e.sources.values())}
    runner = replica._runner
    per_run = runner.cache._last_bytes
    runner.cache._max_bytes = 8 * per_run  # room for 8 runs of 48
    runner.cache._runs.clear()
    runner.cache._held.clear()
    runner.cache._bytes = 0
    made = []
    run = runner.cache._run

    def counted(batch: Any, blocks: int | None = None) -> Any:
        made.extend(row.base for row in batch)
        return run(batch, blocks)

    runner.cache._run = counted  # type: ignore[method-assign]
    measure(replica, PLACES, blocks_of(pairs, 24))
    again = len(made) - len(set(made))
    assert set(made) <= distinct
    assert again <= len(distinct) / 4
