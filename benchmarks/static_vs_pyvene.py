"""A grid of plain interchanges, side by side with pyvene 0.1.8: the same model, pairs, threads and
process.

    make install && .venv/bin/python benchmarks/static_vs_pyvene.py [--half]

SmolLM2-135M, residual, all 30 layers x positions of a 24-token template, 64 pairs, float32. Ours is
the whole grid through the door that a job uses: a replica, opened as a worker opens it, does a task
for each position; captures, the second decision of near-ties and events are part of its time, the
opening (self-check, once for a model and machine) is printed beside it. pyvene is timed on a seeded
sample of cells, one from each stratum of layers and positions, and its grid extrapolated; sides
alternate. Outputs are compared on every pair of the sample. `--half`: positions in the second half
only, and prompts that differ from their first token on, so that no row is free. The last line is
the ratio.
"""

import resource
import time
from collections.abc import Sequence

import pyvene
import torch
from gpu_world import open_replica
from grid import Cell, Grid, best_size, on_template
from torch import Tensor
from transformers import PreTrainedModel

import raysearch as rs
from raysearch.causal import ONE_SOURCE
from raysearch.core.events import Block, Encoded, Measured, Task
from raysearch.core.runner_settings import RunnerSettings
from raysearch.engine.execution.predict import NEAR_TIE
from raysearch.engine.replica import Replica


def main() -> None:
    asked, loaded, _, grid = on_template(__doc__)
    began = time.perf_counter()
    replica = _replica(loaded.model, grid, asked.rows)
    opening = time.perf_counter() - began
    size = _best_size(loaded.model, grid)
    sample, theirs, ours = grid.sample(), 0.0, 0.0
    logits: dict[Cell, Tensor] = {}
    outputs: dict[Cell, tuple[int, ...]] = {}
    for part in range(3):  # a third of the sample, a third, the whole grid, the last third
        seconds, seen = _pyvene(loaded.model, grid, sample[part::3], size)
        theirs, logits = theirs + seconds, logits | seen
        if part == 1:
            ours, outputs = _ours(replica, grid)
    rows = equal = near = 0
    for cell, seen_there in logits.items():
        best = seen_there.topk(2)
        gaps = (best.values[:, 0] - best.values[:, 1]).tolist()
        for said, right, gap in zip(outputs[cell], best.indices[:, 0].tolist(), gaps, strict=True):
            rows, equal = rows + 1, equal + (said == right)
            near += said != right and gap < NEAR_TIE["float32"]
    assert rows == len(sample) * len(grid.pairs), "every row of the sample is looked at"
    assert equal + near == rows, f"{rows - equal - near} outputs differ, and are no near-ties"
    extrapolated = theirs / len(sample) * grid.cells
    print(f"grid            {grid}")
    print(
        f"ours            {ours:.1f} s for the whole grid through a replica, captures included; "
        f"opening {opening:.1f} s"
    )
    print(
        f"pyvene          {theirs:.1f} s for {len(sample)} cells, {extrapolated:.0f} s extrapolated"
    )
    print(f"outputs         equal on {equal} of {rows} sampled rows, {near} others are near-ties")
    print(
        f"peak memory     {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB, "
        f"both in one process"
    )
    print(f"ratio: {extrapolated / ours:.1f}")


def _replica(model: PreTrainedModel, grid: Grid, rows: int) -> Replica:
    """Opens a replica of the pairs of a grid, whose positions are tokens."""
    positions = {f"token_{token}": (token,) for token in grid.tokens}
    encoded = tuple(
        Encoded(
            *(index, base, {ONE_SOURCE: source}, positions, {ONE_SOURCE: positions}),
            *({"base": (0,)}, {"x": (1,)}),
        )
        for index, (base, source) in enumerate(grid.pairs)
    )
    return open_replica(model, "float32", encoded, RunnerSettings(rows=rows))


def _ours(replica: Replica, grid: Grid) -> tuple[float, dict[Cell, tuple[int, ...]]]:
    """Runs the grid, a task for each position; returns seconds, and the outputs of each cell."""
    block = Block("test", 0, tuple(range(len(grid.pairs))))
    outputs: dict[Cell, tuple[int, ...]] = {}
    began = time.perf_counter()
    for number, token in enumerate(grid.tokens):
        sites = [rs.Site(layer, "residual", f"token_{token}") for layer in grid.layers]
        asked = tuple(rs.Intervention((rs.Unit(site),)) for site in sites)
        for layer, event in zip(
            grid.layers, replica.do(Task(number, "measure", asked, (block,))), strict=True
        ):
            assert isinstance(event, Measured), event
            outputs[layer, token] = tuple(id_ for (id_,) in event.outputs)
    return time.perf_counter() - began, outputs


@torch.inference_mode()
def _best_size(model: PreTrainedModel, grid: Grid) -> int:
    bases = grid.ids(0)
    return best_size(lambda size: [model(part) for part in bases[:size].split(size)], len(bases))


@torch.inference_mode()
def _pyvene(
    model: PreTrainedModel, grid: Grid, cells: Sequence[Cell], size: int
) -> tuple[float, dict[Cell, Tensor]]:
    """(seconds, logits by cell): as its documentation shows, in the batch size that is best for it
    (found once)."""
    bases, sources = grid.ids(0), grid.ids(1)
    seconds, seen = 0.0, {}
    for layer, token in cells:
        config = pyvene.IntervenableConfig(
            [
                {
                    "layer": layer,
                    "component": "block_output",
                    "intervention_type": pyvene.VanillaIntervention,
                }
            ]
        )
        intervenable = pyvene.IntervenableModel(config, model)
        intervenable.set_device("cpu")
        began = time.perf_counter()
        parts = []
        for base, source in zip(bases.split(size), sources.split(size), strict=True):
            _, out = intervenable(
                {"input_ids": base}, [{"input_ids": source}], {"sources->base": token}
            )
            parts.append(out.logits[:, -1])
            parts[-1].argmax(-1)
        seconds += time.perf_counter() - began
        seen[layer, token] = torch.cat(parts).float()
    return seconds, seen


if __name__ == "__main__":
    main()
