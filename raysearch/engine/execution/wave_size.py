"""The size of waves in tokens (rows x tokens that each computes), measured when a replica opens.

A device computes many tokens at once at a better rate than few, up to some size that depends on the
device and the model; from there on a larger wave takes memory and gains nothing.

Invariants: no output depends on the size; where nothing can be measured, or no size is clearly as
good as larger ones, there is no limit but that of rows.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from raysearch.engine.execution.memory import RowLimit
from raysearch.engine.execution.replay_executor import ReplayExecutor
from raysearch.engine.execution.wave import EntryPoint
from raysearch.engine.networks.network import LanguageModel, tokens_of
from raysearch.engine.patching.build_swaps import swaps_of
from raysearch.engine.patching.rows import Patch, Row, Source
from raysearch.engine.patching.swaps import Swaps
from raysearch.errors import is_out_of_memory
from raysearch.visible_text import one_line

log = logging.getLogger(__name__)

NO_LIMIT = 0
"""Number of tokens that stands for no limit: `RowLimit.rows` alone limits a wave."""
GOOD = 0.93
"""Rates that differ by less count as equal: a wave is as small as that allows."""
SECONDS = 0.4
"""Time of the whole measurement after which no larger size is tried."""
SURE = 0.01
"""A size is run again until its runs have taken this time together, at most `RUNS` times."""
FEWEST = 16
"""Number of tokens of the first size, about."""
RUNS = 3
"""Most runs of a size."""
BLOCKS = 2
"""Number of last blocks that a measured wave runs through; a whole wave would take too long."""
TOKENS = 32
"""Most tokens of a measured row, so that the sizes begin small."""
BASES = 8
"""Most bases of a measured wave."""


@dataclass(frozen=True, slots=True)
class Timing:
    """The time of a wave of so many tokens."""

    tokens: int
    seconds: float

    @property
    def rate(self) -> float:
        """Tokens in a second."""
        return self.tokens / max(self.seconds, 1e-9)


def smallest_good(timings: Sequence[Timing]) -> int:
    """Returns the fewest tokens whose rate is close to the best one."""
    best = max(timing.rate for timing in timings)
    return min(timing.tokens for timing in timings if timing.rate >= GOOD * best)


def levels_off(timings: Sequence[Timing]) -> bool:
    """Returns whether the last two sizes are no faster than those before, so that larger ones need
    not be tried."""
    *before, last_but_one, last = (timing.rate for timing in timings)
    return bool(before) and max(before) >= GOOD * max(last_but_one, last)


def size_of(
    seconds_of: Callable[[int], float],
    tokens: int,
    most_rows: int,
    clock: Callable[[], float] = time.perf_counter,
) -> int:
    """Returns the size of waves, by the time that `seconds_of` measures for a number of rows of so
    many `tokens` each; `NO_LIMIT` if the rate still rises at `most_rows`, or after `SECONDS` of
    `clock`. A wave that does not fit into memory ends the measurement."""
    timings: list[Timing] = []
    rows, began = min(most_rows, max(1, FEWEST // tokens)), clock()
    while rows <= most_rows and clock() - began < SECONDS:
        try:
            timings.append(Timing(rows * tokens, seconds_of(rows)))
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            is_full = True
        else:
            is_full = False
        if is_full:  # outside of the except clause, so that nothing refers to partial results
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            return smallest_good(timings) if timings else NO_LIMIT
        if len(timings) > 1 and levels_off(timings):
            return smallest_good(timings)
        rows *= 2
    return NO_LIMIT


def measured_size(
    network: LanguageModel, executor: ReplayExecutor, rows: Sequence[Row], limit: RowLimit
) -> int:
    """Returns the size of waves on this device; `NO_LIMIT`, with a warning, if a wave fails.
    `rows`: those of the self-check, whose runs are in the cache."""
    try:
        return _measured(network, executor, rows, limit)
    except Exception as error:  # noqa: BLE001  a search needs no size, and its own rows say more
        log.warning(
            "%s: the size of waves cannot be measured (%s: %s), so only resources.rows limits them;"
            " answers stay the same",
            *(network.name, type(error).__name__, one_line(error)),
        )
        return NO_LIMIT


@torch.inference_mode()
def _measured(
    network: LanguageModel, executor: ReplayExecutor, rows: Sequence[Row], limit: RowLimit
) -> int:
    found, device = _trial(executor, rows, len(network.blocks)), network.device
    if found is None:
        return NO_LIMIT
    swaps, tokens = found
    choices = torch.tensor([[0, 1]], device=device)
    devices = {parameter.device for parameter in network.module.parameters()}

    def seconds_of(count: int) -> float:
        some = swaps.take(np.sort(np.resize(np.arange(len(swaps)), count)))
        return _seconds(partial(executor.swap_logits, some, choices.expand(count, 2)), devices)

    seconds_of(1)  # makes the template
    return size_of(seconds_of, tokens, limit.rows)


def _trial(executor: ReplayExecutor, rows: Sequence[Row], blocks: int) -> tuple[Swaps, int] | None:
    """Returns rows that run through the last blocks, each from the cached run of a base, and the
    tokens that each computes; None if no row runs through a block."""
    shapes = {row: shape for row in rows if (shape := executor.shape_of(row)) is not None}
    entries = {executor.entry(row) for row in shapes}
    left = {number: blocks - (number + 1) // 2 for number in entries}
    deep = {number: count for number, count in left.items() if count}
    if not deep:
        return None
    entry = min(deep, key=lambda number: (deep[number] < BLOCKS, abs(deep[number] - BLOCKS)))
    point = EntryPoint(entry // 2, entry % 2 == 1).point
    length, _ = Counter(shape.length for shape in shapes.values()).most_common(1)[0]
    tokens = min(TOKENS, length, max(shape.length - shape.start for shape in shapes.values()))
    bases = dict.fromkeys(row.base for row in rows if tokens_of(row.base) == length)
    at = (length - tokens,)
    trial = [
        Row(base, (Patch(point, at, (Source(Row(base), point, at),)),))
        for base in list(bases)[:BASES]
    ]
    executor.want_rows(trial)
    return swaps_of(trial), tokens


def _seconds(run: Callable[[], object], devices: Collection[torch.device]) -> float:
    """Returns the shortest time of some runs on `devices`: of the thread's own where only it
    computes, which other processes disturb least."""
    gpus = [device for device in devices if device.type == "cuda"]
    alone = not gpus and torch.get_num_threads() == 1
    clock = time.thread_time if alone else time.perf_counter
    if gpus:
        run()  # a first product of a shape looks for its kernel
        _wait(gpus)
    taken: list[float] = []
    while len(taken) < RUNS and sum(taken) < SURE:
        began = clock()
        run()
        _wait(gpus)
        taken.append(clock() - began)
    return min(taken)


def _wait(gpus: Collection[torch.device]) -> None:
    """Waits until each of the GPUs has done what it was given."""
    for gpu in gpus:
        torch.cuda.synchronize(gpu)
