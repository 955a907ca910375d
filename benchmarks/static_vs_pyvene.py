"""A grid of plain interchanges, side by side with pyvene 0.1.8: the same model, pairs, threads and
process.

    make install && .venv/bin/python benchmarks/static_vs_pyvene.py [--half]

SmolLM2-135M, residual, all 30 layers x positions of a 24-token template, 64 pairs, float32. Ours is
run whole, capturing included; pyvene is timed on a seeded sample of cells, one from each stratum of
layers and positions, and its grid extrapolated; runs alternate. `--half`: positions in the second
half only, and prompts that differ from their first token on, so that no row is free. The last line
is the ratio.
"""

import resource
import time
from collections.abc import Sequence

import pyvene
import torch
from grid import Agreement, Cell, Engine, Grid, best_size, on_template
from torch import Tensor
from transformers import PreTrainedModel

from raysearch.engine.execution.predict import NEAR_TIE


@torch.inference_mode()
def main() -> None:
    asked, loaded, network, grid = on_template(__doc__)
    engine = Engine(network, grid, asked.rows, NEAR_TIE["float32"])
    bases = grid.ids(0)
    size = best_size(lambda s: [loaded.model(part) for part in bases[:s].split(s)], len(bases))
    sample, theirs, logits = grid.sample(), 0.0, {}
    kept: dict[Cell, list[tuple[int, Tensor]]] = {cell: [] for cell in sample}
    for part in range(
        3
    ):  # alternating: a third of the sample, then the whole grid or the next third
        seconds, seen = _pyvene(loaded.model, grid, sample[part::3], size)
        theirs += seconds
        logits.update(seen)
        if part == 1:
            _ours(engine, kept)
    agreement = Agreement(logits, NEAR_TIE["float32"])
    for cell, rows in kept.items():
        for at, line in rows:
            agreement.see(cell, at, line)
    for row, decision in engine.left_alone.items():
        agreement.see_free(row, engine.where[row], network, decision)
    assert agreement.rows == len(sample) * len(grid.pairs), "every row of the sample is looked at"
    extrapolated = theirs / len(sample) * grid.cells
    free = len(engine.left_alone) / grid.size
    print(f"grid            {grid}")
    print(
        f"ours            {engine.seconds:.1f} s for the whole grid, captures included; {free:.0%} "
        f"of the rows free"
    )
    print(
        f"pyvene          {theirs:.1f} s for {len(sample)} cells, {extrapolated:.0f} s extrapolated"
    )
    print(
        f"max |d logit|   {agreement.worst:.2g} on the sampled cells; "
        f"argmax equal on every pair: {agreement.equal == agreement.rows}"
    )
    print(
        f"peak memory     {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB, "
        f"both in one process"
    )
    print(f"ratio: {extrapolated / engine.seconds:.1f}")


def _ours(engine: Engine, kept: dict[Cell, list[tuple[int, Tensor]]]) -> None:
    """Runs the grid, and keeps the logits of the cells in `kept`."""
    engine.prepare()
    for wave, logits in engine.waves():
        for row, line in zip(wave, logits, strict=True):
            cell, at = engine.where[row]
            if cell in kept:
                kept[cell].append((at, line.clone()))


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
