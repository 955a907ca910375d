"""One copy of a prefix for all rows of a base against a copy for each row, on the same waves.

    OMP_NUM_THREADS=1 python benchmarks/shared_prefix.py [--dtype bfloat16]

SmolLM2-135M, rows of one base that enter at eight layers, by tokens of the prompt and the first
patched one. Processor time of the third of three waves each; the last line is the largest ratio.
"""

import argparse
import random
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from raysearch.engine.execution.activation_cache import ActivationCache
from raysearch.engine.execution.memory import RowLimit
from raysearch.engine.execution.replay_executor import ReplayExecutor
from raysearch.engine.networks.components import Components
from raysearch.engine.networks.network import LanguageModel
from raysearch.engine.patching.rows import Row, swap

MODEL = Path(__file__).parents[1] / "models" / "SmolLM2-135M-Instruct"
CASES = (
    (10, 9, 64, 10),
    (10, 1, 64, 0),
    (24, 20, 64, 10),
    (24, 1, 32, 15),
    (128, 64, 32, 15),
    (256, 255, 64, 10),
    (1024, 1016, 32, 10),
    (1024, 1023, 64, 20),
)
"""Tokens, first patched token, rows, first layer."""


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    network = LanguageModel(
        AutoModelForCausalLM.from_pretrained(MODEL, dtype=getattr(torch, asked.dtype)).eval()
    )
    ratios = []
    print("tokens, first patched, rows, from layer: shared s, copies s, ratio, max |d logit|")
    for tokens, first, count, layer in CASES:
        rows = _rows(tokens, first, count, layer, len(network.layers))
        (shared, ours), (copies, theirs) = (_timed(network, rows, how) for how in (True, False))
        ratios.append(copies / shared)
        far = (ours - theirs).abs().max().item()
        print(
            f"{tokens}, {first}, {count}, {layer}: {shared:.3f}, {copies:.3f}, {ratios[-1]:.2f}, "
            f"{far:.2g}",
            flush=True,
        )
    print(f"ratio: {max(ratios):.2f}")


def _rows(tokens: int, first: int, count: int, layer: int, layers: int) -> list[Row]:
    rng = random.Random(0)
    base, *sources = (tuple(rng.randrange(5000, 40000) for _ in range(tokens)) for _ in range(3))
    return [
        swap(base, sources[at % 2], min(layers - 1, layer + at % 8), (first,))
        for at in range(count)
    ]


def _timed(network: LanguageModel, rows: list[Row], shares: bool) -> tuple[float, torch.Tensor]:
    hook_points = Components(network)
    cache = ActivationCache(network, hook_points, RowLimit(len(rows)), 0.0, 2**31, keys=True)
    executor = ReplayExecutor(network, hook_points, cache, shares)
    for _ in range(3):
        began = time.process_time()
        logits = executor.logits(rows)
        spent = time.process_time() - began
    return spent, logits


if __name__ == "__main__":
    main()
