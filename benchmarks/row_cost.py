"""What a row costs beside the model, waves of swaps against rows one by one, through the door that
a job uses: the same replica, tasks and process.

    make install && OMP_NUM_THREADS=1 .venv/bin/python benchmarks/row_cost.py [--tiny]

A Llama of 4 layers of 64 with random weights, where the model itself costs little: 64 pairs of 24
tokens, every layer and position, in waves of 64 and of 1,024 rows. Sides take turns, `--repeats`
times; medians of processor time are compared. `rows` is how the engine was before: `Replica.do`
with each row as an object. Logits are stretched a hundredfold, so that no near-tie is decided again
by itself. Outputs are compared. Then what a row costs, of waves of 1,024, where the job declares all
scores, and where the task is leased. The last line is the smaller ratio.
"""

import argparse
import statistics
import time
from collections.abc import Mapping
from typing import Any

import torch
from gpu_world import build, drawn, open_replica
from transformers import LlamaConfig

import raysearch as rs
from raysearch.core.events import Block, Event, Measured, Task
from raysearch.core.lease import Lease, LeasedTest
from raysearch.core.option_names import SCORES
from raysearch.core.runner_settings import RunnerSettings
from raysearch.engine.replica import Replica

SHAPE = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
AT = 0, 12, 20, 22, 23
"""The tokens of 24 that are patched."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--tiny", action="store_true", help="Only to see that it runs.")
    asked = parser.parse_args()
    pairs, repeats = (8, 1) if asked.tiny else (64, asked.repeats)
    ratios = []
    print("| rows a wave | rows | swaps, us a row | rows one by one, us | ratio |")
    print("|---|---|---|---|---|")
    for wave in (64, 1024):
        replica, task = _replica(wave, pairs)
        taken: dict[bool, list[float]] = {True: [], False: []}
        said = {by_swaps: _said(replica, task, by_swaps)[1] for by_swaps in taken}
        assert said[True] == said[False], "both give the same outputs"
        for _ in range(repeats):
            for by_swaps, seconds in taken.items():
                seconds.append(_said(replica, task, by_swaps)[0])
        swaps, rows = (statistics.median(taken[side]) for side in (True, False))
        count = len(task.interventions) * pairs
        ratios.append(rows / swaps)
        print(
            f"| {wave} | {count} | {1e6 * swaps / count:.0f} | {1e6 * rows / count:.0f} "
            f"| {rows / swaps:.2f} |"
        )
    of_each = {"nothing more": {}, "scores": {"scores": SCORES}, "a lease": {"is_leased": True}}
    for what, us in _further(of_each, pairs, repeats).items():
        print(f"with {what}: {us:.0f} us a row")
    print(f"ratio: {min(ratios):.2f}")


def _further(
    of_each: Mapping[str, Mapping[str, Any]], pairs: int, repeats: int
) -> dict[str, float]:
    """Median microseconds of a row of each kind of task, in turns."""
    made = {what: _replica(1024, pairs, **of) for what, of in of_each.items()}
    taken: dict[str, list[float]] = {what: [] for what in made}
    for turn in range(repeats + 1):  # the first captures
        for what, (replica, task) in made.items():
            seconds = _said(replica, task, True)[0]
            if turn:
                taken[what].append(1e6 * seconds / len(task.interventions) / pairs)
    return {what: statistics.median(of) for what, of in taken.items()}


class _Never:
    """The rule of a test that no count ends."""

    def ends(self, n: int, matches: int) -> bool:
        return False


def _replica(
    wave: int, pairs: int, scores: tuple[str, ...] = (), is_leased: bool = False
) -> tuple[Replica, Task]:
    model = build(LlamaConfig(**SHAPE), torch.device("cpu"), "float32")
    model.get_output_embeddings().weight.data *= 100
    encoded = drawn(SHAPE["vocab_size"], 24, pairs, AT, choices=())
    replica = open_replica(model, "float32", encoded, RunnerSettings(rows=wave, scores=scores))
    positions = tuple(encoded[0].base_positions)
    layers = range(SHAPE["num_hidden_layers"])
    sites = [rs.Site(layer, "residual", position) for layer in layers for position in positions]
    block = Block("test", 0, tuple(e.index for e in encoded))
    asked = tuple(rs.Intervention((rs.Unit(site),), variable="x") for site in sites)
    tests = ((LeasedTest("x", 0, 0, _Never()),),) * len(asked)
    lease = Lease(tests, False, 10**6, 10**6, 3600.0) if is_leased else None
    return replica, Task(0, "measure", asked, (block,), lease=lease)


def _said(replica: Replica, task: Task, by_swaps: bool) -> tuple[float, list[object]]:
    """Returns the processor time of a task and its outputs."""
    swaps = replica._runner.swaps
    if not by_swaps:
        replica._runner.swaps = None
    began = time.process_time()
    events: list[Event] = replica.do(task)
    seconds = time.process_time() - began
    replica._runner.swaps = swaps
    return seconds, [e.outputs for e in events if isinstance(e, Measured)]


if __name__ == "__main__":
    main()
