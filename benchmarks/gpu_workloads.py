"""The workloads of gpu.py, each a function that takes a replica's tasks and returns what came of
them. All go through `Replica.do`; single waves are run again by the replica's own parts."""

import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import numpy as np
import torch
from counted import Count, Watch
from gpu_results import AgainstOld, Sweep, Trained
from gpu_world import now

import raysearch as rs
from raysearch.core.events import Block, Encoded, Event, Failed, Fitted, Measured, Seed, Task
from raysearch.core.fit_keys import FitKeys
from raysearch.engine.execution.evaluate import Evaluator
from raysearch.engine.execution.predict import choices_of, predict
from raysearch.engine.execution.replay_executor import ReplayExecutor
from raysearch.engine.networks.network import LanguageModel, tokens_of
from raysearch.engine.replica import Replica

HELD = 24
"""Rows that are held against the plain path."""
OLD_ROWS = 64
"""Rows of a wave before waves were arrays."""
COUNTED_STEPS = 2
"""Steps of a training whose kernels are counted."""


def residual_tasks(replica: Replica) -> list[Task]:
    """The residual of every layer, a task for each position; in an order of which each beginning is
    spread over the positions, so that it is a fair sample."""
    pairs = replica.opened.encoded
    blocks = (Block("test", 0, tuple(e.index for e in pairs)),)
    positions = _spread(list(pairs[0].base_positions))
    layers = range(replica.opened.facts.layers)
    return [
        Task(
            number,
            "measure",
            tuple(rs.Intervention((rs.Unit(rs.Site(at, "residual", p)),)) for at in layers),
            blocks,
        )
        for number, p in enumerate(positions)
    ]


def head_tasks(replica: Replica, position: str, pairs_of_task: int) -> list[Task]:
    """Every head at one position, a task for each part of the pairs."""
    facts, pairs = replica.opened.facts, replica.opened.encoded
    heads = tuple(
        rs.Intervention((rs.Unit(rs.Site(layer, "head", position, head)),))
        for layer in range(facts.layers)
        for head in range(facts.heads)
    )
    indices = [pair.index for pair in pairs]
    parts = [indices[at : at + pairs_of_task] for at in range(0, len(indices), pairs_of_task)]
    return [
        Task(n, "measure", heads, (Block("test", n, tuple(part)),)) for n, part in enumerate(parts)
    ]


def _spread(items: list[str]) -> list[str]:
    """Items in an order of which each beginning is spread over all: by their numbers' bits in
    reverse."""
    bits = max(len(items) - 1, 1).bit_length()
    order = sorted(range(len(items)), key=lambda at: f"{at:0{bits}b}"[::-1])
    return [items[at] for at in order]


def sweep(
    name: str,
    replica: Replica,
    tasks: Sequence[Task],
    until: float,
    rate: float,
    captures_first: bool,
    counts: bool,
) -> Sweep:
    """Runs tasks up to the time `until`, at least one. `captures_first`: the runs that they share
    are made and timed before. `rate`: of a large product, in operations a second."""
    runner, device = replica._runner, replica._runner.network.device
    opening = replica.usage().seconds
    with Watch() as seen:
        first = now(device)
        if captures_first:  # the last layer of one position: hardly more than its captures
            last = tasks[0].interventions[-1:]
            _measured(replica, replace(tasks[0], interventions=last))
        replica.usage()
        began, waves_before = now(device), seen.waves
        done: list[tuple[Task, list[Measured]]] = []
        for task in tasks:
            done.append((task, _measured(replica, task)))
            if now(device) > until:
                break
        decided = [_matches(replica, event) for _, events in done for event in events]
        seconds, waves = now(device) - began, seen.waves - waves_before
        deciding = _deciding(replica)
        captures = seen.captures_per_input
    events = [event for _, of_task in done for event in of_task]
    assert len(decided) == len(events)
    held, equal = _held(replica, [(task, e) for task, of_task in done for e in of_task])
    fullest = max((task for task, _ in done), key=lambda task: _operations(replica, task))
    wave_rows, host, whole, share = _one_wave(replica, fullest, rate)
    return Sweep(
        *(name, replica.opened.facts.dtype, runner.executor.name, len(done), len(tasks)),
        *(sum(e.rows for e in events), opening, began - first, seconds, waves),
        *(sum(e.near_ties for e in events), deciding, captures, held, equal),
        *(sum(_operations(replica, task) for task, _ in done), rate),
        *(wave_rows, host, whole, share),
        wave_counts(replica, done[-1][0]) if counts else "",
    )


def _deciding(replica: Replica) -> float:
    """Seconds of the plain path since the usage was last read, where others are used."""
    return 0.0 if replica.opened.facts.path == "plain" else replica.usage().phases.get("plain", 0.0)


def _measured(replica: Replica, task: Task) -> list[Measured]:
    return [event for event in _checked(replica.do(task)) if isinstance(event, Measured)]


def _checked(events: Sequence[Event]) -> Sequence[Event]:
    """Raises: RuntimeError if one of the events is a failure."""
    failed = [event for event in events if isinstance(event, Failed)]
    for of in failed:
        raise RuntimeError(f"{of.intervention}: {of.error_type}: {of.message}")
    return events


def _matches(replica: Replica, event: Measured) -> int:
    """How many outputs are the counterfactual: what a verdict is made of."""
    pairs = zip(event.pairs, event.outputs, strict=True)
    return sum(out == replica._pairs[at].counterfactual["x"] for at, out in pairs)


def _held(replica: Replica, done: Sequence[tuple[Task, Measured]]) -> tuple[int, int]:
    """Holds some outputs against the plain path: (rows, those that are equal)."""
    rng, runner = random.Random("0.held"), replica._runner
    equal = 0
    with torch.inference_mode():
        for _ in range(HELD):
            task, event = rng.choice(done)
            by_key = {i.key: i for i in task.interventions}
            at = rng.randrange(len(event.pairs))
            pair = replica._pairs[event.pairs[at]]
            row = replica._row(runner, pair, by_key[event.intervention])
            (canonical,) = predict(runner.plain.logits([row]), [row.among])
            equal += event.outputs[at] == (canonical.id,)
    return HELD, equal


def _operations(replica: Replica, task: Task) -> float:
    """Operations that the rows of a task need."""
    total = 0.0
    for intervention in task.interventions:
        for block in task.blocks:
            pair = replica._pairs[block.pairs[0]]  # all have one length and the same positions
            total += len(block.pairs) * _of_row(replica, intervention.units[0].site, pair)
    return total


def _of_row(replica: Replica, site: rs.Site, pair: Encoded, whole_head: bool = False) -> float:
    """Operations of a row, two for each multiply-add: of the blocks above the patch on the tokens
    from the patch on, of their attention to all tokens before, and of the head, unless it answers
    among a few ids."""
    network = replica._runner.network
    assert isinstance(network, LanguageModel)
    block, attends, head = _products(network)
    length, start = tokens_of(pair.base), min(pair.base_positions[str(site.position)])
    blocks = len(network.layers) - site.layer - (site.component == "residual")
    keys = sum(range(start + 1, length + 1))
    row = blocks * ((length - start) * block + keys * attends)
    return 2.0 * (row + (head if whole_head or not pair.choices else 0))


def _products(network: LanguageModel) -> tuple[int, int, int]:
    """Multiply-adds of a block for a token, of attention for a token and key, of the head."""
    config = network.model.config.get_text_config()
    block = sum(p.numel() for p in network.layers[0].parameters() if p.ndim == 2)
    return block, 2 * config.hidden_size, config.vocab_size * config.hidden_size


def _one_wave(replica: Replica, task: Task, rate: float) -> tuple[int, float, float, float]:
    """Of the largest wave of a task, whose runs are made: its rows, seconds until the host is free,
    until the device is, and the share of the matrix rate. Zeros where no wave is run."""
    runner, device = replica._runner, replica._runner.network.device
    if runner.swaps is None or runner not in replica._builders:
        return 0, 0.0, 0.0, 0.0
    pairs = [replica._pairs[at] for block in task.blocks for at in block.pairs]
    swaps, _ = replica._builders[runner].swaps(task.interventions, pairs)
    assert swaps is not None, "a benchmark's interventions are swaps"
    assert isinstance(runner.executor, ReplayExecutor)
    rows = max(runner.executor.swap_waves(swaps), key=len)
    wave = swaps.take(rows)
    choices = choices_of([wave.choices[at] for at in wave.choice], device)
    with torch.inference_mode():
        runner.executor.swap_logits(wave, choices)
        began = now(device)
        runner.executor.swap_logits(wave, choices)
        host = time.perf_counter() - began
        whole = now(device) - began
    site = task.interventions[0].units[0].site
    of_layers = Counter(wave.places[at][0].point.layer for at in wave.place)
    operations = sum(
        count * _of_row(replica, replace(site, layer=layer), pairs[0])
        for layer, count in of_layers.items()
    )
    return len(rows), host, whole, operations / whole / rate


def wave_counts(replica: Replica, task: Task) -> str:
    """A further line, of counts of a task whose runs are made already."""
    with Watch() as seen, Count() as count:
        again = sum(event.near_ties for event in _measured(replica, task))
    waves, layers = max(seen.waves, 1), max(count.entered["layer"], 1)
    return (
        f"\n  counted on {seen.waves} waves of {len(replica._runner.network.blocks)} layers: "
        f"kernels {count.kernels['layer'] / layers:.1f} a layer ({len(count.shapes)} shapes in {layers} "
        f"calls) and "
        f"{count.kernels['wave'] / waves:.1f} beside them a wave; keys and values copied {count.bytes / waves:,.0f} bytes a wave; host "
        f"waits {(count.waits['wave'] + count.waits['layer']) / waves:.2f} a wave; captures again "
        f"{seen.captured}; rows decided again {again / waves:.2f} a wave"
    )


def das(
    name: str, replica: Replica, size: int, recipe: FitKeys, until: float, rate: float, counts: bool
) -> Trained:
    """One fit of a rotation for each layer, at the last position, all in one company, stretch by
    stretch as a job stores them; then as many to arbitrary labels. Up to the time `until`, at least
    one stretch."""
    device, facts = replica._runner.network.device, replica.opened.facts
    opening = replica.usage().seconds
    pairs = replica.opened.encoded
    position = list(pairs[0].base_positions)[-1]
    fits = tuple(
        rs.Intervention(
            (rs.Unit(rs.Site(layer, "residual", position), rs.Subspace("das", size)),), variable="x"
        )
        for layer in range(facts.layers)
    )
    with Watch() as seen:
        began = now(device)
        fitted, steps = _fit(replica, fits, recipe.ends, until)
        seconds, host = now(device) - began, seen.step_seconds / max(seen.steps, 1)
        captures = seen.captures_per_input
    controls = tuple(replace(fit, control="arbitrary_labels") for fit in fits)
    _fit(replica, controls, [end for end in recipe.ends if end <= steps], float("inf"))
    with_controls = now(device) - began
    first, last = (
        float(np.mean([loss for event in some for loss in event.losses]))
        for some in (fitted[0], fitted[-1])
    )
    held, equal = _held_fits(replica, fits, fitted[-1])
    operations = steps * sum(_of_a_step(replica, fit, recipe.batch) for fit in fits)
    return Trained(
        *(name, facts.dtype, facts.path, len(fits), opening, steps, recipe.steps, seconds),
        *(with_controls, host, seconds / steps, captures, held, equal),
        *(operations / seconds / rate, (first, last)),
        step_counts(replica, fits) if counts else "",
    )


def _fit(
    replica: Replica,
    fits: Sequence[rs.Intervention],
    ends: Sequence[int],
    until: float,
) -> tuple[list[list[Fitted]], int]:
    """Trains stretch by stretch: the events of each, and the steps that were taken."""
    pairs = Block("fit", 0, tuple(e.index for e in replica.opened.encoded))
    states: dict[str, str | None] = {fit.id: None for fit in fits}
    tensors: dict[str, bytes] = {}
    done: list[list[Fitted]] = []
    first = 0
    for end in ends:
        seeds = tuple(Seed(fit, 0, states[fit.id]) for fit in fits)
        task = Task(len(done), "fit", tuple(fits), (pairs,), seeds=seeds, steps=(first, end))
        events = _checked(replica.do(task, tensors))
        done.append([event for event in events if isinstance(event, Fitted)])
        states = {event.intervention: event.state for event in done[-1]}
        tensors = {digest: of for event in done[-1] for digest, of in event.tensors.items()}
        first = end
        if now(replica._runner.network.device) > until:
            break
    return done, first


def _held_fits(
    replica: Replica, fits: Sequence[rs.Intervention], fitted: Sequence[Fitted]
) -> tuple[int, int]:
    """Measures some fits, and holds outputs against the plain path."""
    by_id = {event.intervention: event for event in fitted}
    tensors = {digest: of for event in fitted for digest, of in event.tensors.items()}
    found = tuple(replace(fit, fit=by_id[fit.id].fit) for fit in fits)
    block = Block("test", 0, tuple(e.index for e in replica.opened.encoded[:4]))
    task = Task(0, "measure", found, (block,))
    events = [e for e in _checked(replica.do(task, tensors)) if isinstance(e, Measured)]
    return _held(replica, [(task, event) for event in events])


def _of_a_step(replica: Replica, fit: rs.Intervention, batch: int) -> float:
    """Operations of a step: as of rows, forward and backward by the activations; with the whole
    head, since a loss is over the vocabulary."""
    pair = replica.opened.encoded[0]
    return 2 * batch * _of_row(replica, fit.units[0].site, pair, whole_head=True)


def step_counts(replica: Replica, fits: Sequence[rs.Intervention]) -> str:
    """A further line, of counts of the first steps of a training whose runs are made already."""
    with Watch() as seen, Count() as count:
        _fit(replica, fits, (COUNTED_STEPS,), float("inf"))
    steps = max(seen.steps, 1)
    layers = max(count.entered["layer"], 1)
    waits = count.waits["step"] + count.waits["layer"]
    return (
        f"\n  counted on {seen.steps} steps of {len(fits)} fits: kernels "
        f"{count.kernels['layer'] / layers:.1f} a layer forward ({len(count.shapes)} shapes in "
        f"{layers} calls) and "
        f"{count.kernels['step'] / steps:.1f} beside them a step, the backward pass among these; "
        f"host waits {waits / steps:.2f} a step; captures again {seen.captured}"
    )


def against_old(
    name: str, replica: Replica, tasks: Sequence[Task], until: float
) -> AgainstOld | None:
    """Runs tasks by both ways, in turns, up to the time `until`, at least one; None where the
    replica runs no waves."""
    if replica._runner.swaps is None:
        return None
    runner, device = replica._runner, replica._runner.network.device
    assert isinstance(runner.network, LanguageModel)
    old = ReplayExecutor(runner.network, runner.hook_points, runner.cache, shares_prefix=False)
    taken, deciding = {False: 0.0, True: 0.0}, {False: 0.0, True: 0.0}
    rows = equal = count = 0
    for task in tasks:
        outputs = {}
        for is_old in (False, True):
            with _old_waves(replica, old) if is_old else nullcontext():
                one = task.interventions[-1:]
                _measured(replica, replace(task, interventions=one))  # makes runs and templates
                replica.usage()
                began = now(device)
                events = _measured(replica, task)
                taken[is_old] += now(device) - began
                deciding[is_old] += _deciding(replica)
            outputs[is_old] = [out for event in events for out in event.outputs]
        count, rows = count + 1, rows + len(outputs[True])
        equal += sum(a == b for a, b in zip(outputs[False], outputs[True], strict=True))
        if now(device) > until:
            break
    return AgainstOld(
        *(name, replica.opened.facts.dtype, count, len(tasks), rows, equal),
        *(taken[False], taken[True], deciding[False], deciding[True]),
    )


@contextmanager
def _old_waves(replica: Replica, executor: ReplayExecutor) -> Iterator[None]:
    """Makes the replica run rows as it did before they were arrays: each is an object, has its own
    copy of the keys and values before its patch, and shares a wave with at most 63 others.
    `executor`: whose rows share no prefix."""
    runner = replica._runner
    limit, kept = runner._limit, (runner.swaps, runner.evaluator)
    most = limit.rows, limit.tokens
    limit.rows, limit.tokens = OLD_ROWS, 0
    runner.swaps = None
    runner.evaluator = Evaluator(executor, runner.plain, runner.cache, limit, runner.near_tie)
    try:
        yield
    finally:
        runner.swaps, runner.evaluator = kept
        limit.rows, limit.tokens = most
