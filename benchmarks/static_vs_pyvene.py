"""A grid of plain interchanges, side by side with pyvene 0.1.8: the same model, pairs, threads and process.

    make install-bench && .venv/bin/python benchmarks/static_vs_pyvene.py [--half]

SmolLM2-135M, residual, all 30 layers x positions of a 24-token template, 64 pairs, float32. Ours is run whole, capturing
included; pyvene is timed on a seeded sample of cells, one from each stratum of layers and positions, and its grid
extrapolated; runs alternate. `--half`: positions in the second half only, and prompts that differ from their first token
on, so that no row is free. The last line is the ratio.
"""

import argparse
import random
import resource
import time
from pathlib import Path

import pyvene
import torch

from raysearch.engine.captures import Captures
from raysearch.engine.decide import NEAR_TIE
from raysearch.engine.interchange import Patch, Row
from raysearch.engine.load import Loaded, ModelSource, load
from raysearch.engine.paths import Replayed

MODEL = Path(__file__).parent.parent / "models" / "SmolLM2-135M-Instruct"
TOKENS, PAIRS, CELLS, ROWS = 24, 64, 24, 64
COUNTRIES = [
    "Spain",
    "Italy",
    "France",
    "Japan",
    "China",
    "India",
    "Egypt",
    "Greece",
    "Poland",
    "Norway",
    "Sweden",
    "Finland",
    "Denmark",
    "Austria",
    "Hungary",
    "Turkey",
]
SAME = "On the old map of the world that hangs in the hall, in the country of {}, the official capital is the"
OTHER = (
    "On the old map of the world that hangs in the hall, in the country of {}, the official capital is the",
    "In a new book about the lands that I read this year, in the country of {}, the official language is the",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--half", action="store_true", help="second half of the positions, prompts that share no prefix"
    )
    parser.add_argument("--threads", type=int, default=2)
    half = parser.parse_args().half
    torch.set_num_threads(parser.parse_args().threads)
    loaded = load(ModelSource(str(MODEL)))
    pairs = _pairs(loaded, half)
    layers = range(loaded.model.config.num_hidden_layers)
    tokens = range(TOKENS // 2 if half else 0, TOKENS)
    sample = _sample(list(layers), list(tokens))
    ours, theirs, logits = 0.0, 0.0, {}
    for part in range(3):  # alternating: a third of the sample, then the whole grid or the next third
        cells = sample[part::3]
        seconds, seen = _pyvene(loaded, pairs, cells, half)
        theirs += seconds
        logits.update(seen)
        if part == 1:
            ours, free, outputs = _ours(loaded, pairs, list(layers), list(tokens), set(sample))
    grid = len(layers) * len(tokens)
    extrapolated = theirs / len(sample) * grid
    worst = max(float((outputs[c] - logits[c]).abs().max()) for c in sample)
    agree = all(bool((outputs[c].argmax(-1) == logits[c].argmax(-1)).all()) for c in sample)
    print(f"grid            {len(layers)} layers x {len(tokens)} positions x {PAIRS} pairs = {grid * PAIRS} rows")
    print(
        f"ours            {ours:.1f} s for the whole grid, captures included; {free / (grid * PAIRS):.0%} of the rows free"
    )
    print(f"pyvene          {theirs:.1f} s for {len(sample)} cells, {extrapolated:.0f} s extrapolated")
    print(f"max |d logit|   {worst:.2g} on the sampled cells; argmax equal on every pair: {agree}")
    print(f"peak memory     {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB, both in one process")
    print(f"ratio: {extrapolated / ours:.1f}")


def _pairs(loaded: Loaded, half: bool) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """(base ids, source ids), TOKENS each."""
    rng = random.Random("0.pairs")
    pairs = []
    for _ in range(PAIRS):
        base, source = rng.sample(COUNTRIES, 2)
        templates = rng.sample(OTHER, 2) if half else (SAME, SAME)
        ids = [
            tuple(loaded.tokenizer(t.format(c))["input_ids"]) for t, c in zip(templates, (base, source), strict=True)
        ]
        assert {len(i) for i in ids} == {TOKENS}, [len(i) for i in ids]
        pairs.append((ids[0], ids[1]))
    return pairs


def _sample(layers: list[int], tokens: list[int]) -> list[tuple[int, int]]:
    """CELLS cells: one at random from each of 6 x 4 strata."""
    rng = random.Random("0.cells")
    cells = [(rng.choice(layers[i::6]), rng.choice(tokens[j::4])) for i in range(6) for j in range(4)]
    rng.shuffle(cells)
    assert len(cells) == CELLS
    return cells


@torch.inference_mode()
def _ours(loaded, pairs, layers, tokens, wanted):  # type: ignore[no-untyped-def]
    """(seconds, free rows, logits of the wanted cells)."""
    began = time.perf_counter()
    captures = Captures(loaded.model, ROWS, NEAR_TIE["float32"], 2**31, keys=True)
    path = Replayed(loaded.model, captures, ROWS)
    rows: dict[Row, list[tuple[int, int, int]]] = {}
    for layer in layers:
        for token in tokens:
            for at, (base, source) in enumerate(pairs):
                rows.setdefault(Row(base, source, (Patch(layer, (token,), (token,)),)), []).append((layer, token, at))
    free = [row for row in rows if path.is_free(row)]
    captures.decisions([row.base for row in free])
    found: dict[tuple[int, int, int], torch.Tensor] = {}
    owed = set(free)
    for batch in path.batches([row for row in rows if row not in owed]):
        logits = path.logits(batch)
        logits.argmax(-1)
        for row, line in zip(batch, logits, strict=True):
            for layer, token, at in rows[row]:
                if (layer, token) in wanted:
                    found[layer, token, at] = line.clone()
    seconds = time.perf_counter() - began
    for row in free:  # for the comparison only: what the base's run alone says
        for layer, token, at in rows[row]:
            if (layer, token) in wanted:
                found[layer, token, at] = loaded.model(torch.tensor([row.base])).logits[0, -1]
    return (
        seconds,
        sum(len(rows[row]) for row in free),
        {c: torch.stack([found[*c, at] for at in range(len(pairs))]) for c in wanted},
    )


def _pyvene(loaded, pairs, cells, half):  # type: ignore[no-untyped-def]
    """(seconds, logits by cell): as its documentation shows, in the batch size that is best for it (found once)."""
    bases = torch.tensor([b for b, _ in pairs])
    sources = torch.tensor([s for _, s in pairs])
    seconds, seen = 0.0, {}
    for layer, token in cells:
        config = pyvene.IntervenableConfig(
            [{"layer": layer, "component": "block_output", "intervention_type": pyvene.VanillaIntervention}]
        )
        intervenable = pyvene.IntervenableModel(config, loaded.model)
        intervenable.set_device("cpu")
        began = time.perf_counter()
        parts = []
        with torch.inference_mode():
            for at in range(0, len(pairs), _batch(loaded, pairs)):
                size = _batch(loaded, pairs)
                _, out = intervenable(
                    {"input_ids": bases[at : at + size]},
                    [{"input_ids": sources[at : at + size]}],
                    {"sources->base": token},
                )
                parts.append(out.logits[:, -1])
                parts[-1].argmax(-1)
        seconds += time.perf_counter() - began
        seen[layer, token] = torch.cat(parts).float()
    return seconds, seen


_BEST: dict[str, int] = {}


def _batch(loaded, pairs) -> int:  # type: ignore[no-untyped-def]
    """The batch size, of 8, 16, 32 and 64, at which a full forward pass is cheapest a row."""
    if "size" not in _BEST:
        times = {}
        with torch.inference_mode():
            for size in (8, 16, 32, 64):
                ids = torch.tensor([b for b, _ in pairs[:size]])
                loaded.model(ids)
                began = time.perf_counter()
                loaded.model(ids)
                times[size] = (time.perf_counter() - began) / size
        _BEST["size"] = min(times, key=lambda s: times[s])
    return _BEST["size"]


if __name__ == "__main__":
    main()
