"""Choices that the engine makes on a CPU, each beside the other way, on random tensors.

    OMP_NUM_THREADS=1 python benchmarks/cpu_kernels.py

- The heads that share keys attend to a row's own tokens in one kernel under a mask, or in one each
  (`partial_attention.AT_ONCE`): 16 rows of 9 heads in 3 groups, 5 tokens after a prefix of 19.
- In bfloat16 rows attend to the prefix of their base in products of equally many rows, which give
  a row the same bits in every batch, or in one product for each base (`RowsByBase.of`): 12 heads,
  the last of 300 tokens, 64 rows of one base and 16 rows of 16 bases.
- A linear layer in bfloat16 multiplies 512 vectors in blocks (`half_precision.BLOCK`), or at once,
  which is faster but gives a vector other bits in another batch, or is one in float32. Blocks are
  for processors with AMX; on others they are timed all the same.

Processor time of a call: the median of five rounds, in which the ways take turns. The last line is
the worst ratio of the other way to the engine's.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import nn

from raysearch.engine.execution import partial_attention
from raysearch.engine.execution.partial_attention import RowsByBase, attend
from raysearch.engine.networks.half_precision import PLAN, speed_up

ROUNDS = 5
Ways = Mapping[str, Callable[[], object]]
"""The engine's way first."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tiny", action="store_true", help="one call, for a test of the script")
    calls = 1 if parser.parse_args().tiny else 300
    torch.set_num_threads(1)
    torch.manual_seed(0)
    ratios = []
    for what, ways in {
        "attention of a layer": _attention(backward=False),
        "attention of a layer, there and back": _attention(backward=True),
        "bfloat16, 64 rows of one base": _prefix([0] * 64),
        "bfloat16, 16 rows of 16 bases": _prefix(list(range(16))),
        "512 vectors, 1,536 x 576": _products(),
    }.items():
        took = _timed(ways, calls)
        ours = next(iter(took.values()))
        print(f"{what}: " + ", ".join(f"{way} {1e3 * s:.2f} ms" for way, s in took.items()))
        ratios.append(min(s for s in list(took.values())[1:]) / ours)
    print(f"ratio: {min(ratios):.2f}")


def _attention(backward: bool) -> Ways:
    query, key, value = (torch.randn(16, heads, 5, 64) for heads in (9, 3, 3))
    prefix = torch.randn(16, 3, 19, 64), torch.randn(16, 3, 19, 64)
    rows = RowsByBase.of(np.arange(16), 16)
    given = [tensor.requires_grad_(backward) for tensor in (query, key, value)]

    def attended(at_once: int) -> None:
        partial_attention.AT_ONCE = at_once
        out = attend(*given, prefix, rows, 0.125)
        if backward:
            torch.autograd.grad(out.sum(), given)

    most = partial_attention.AT_ONCE
    return {"at once": lambda: attended(most), "one by one": lambda: attended(0)}


def _prefix(bases: list[int]) -> Ways:
    count = max(bases) + 1
    given = [torch.randn(len(bases), 12, 1, 64).bfloat16() for _ in range(3)]
    prefix = torch.randn(count, 12, 299, 64).bfloat16(), torch.randn(count, 12, 299, 64).bfloat16()
    equal = RowsByBase.of(np.array(bases), count, given[0], 12)
    whole = RowsByBase.of(np.array(bases), count)
    return {
        "in equal products": lambda: attend(*given, prefix, equal, 0.125),
        "in one for each base": lambda: attend(*given, prefix, whole, 0.125),
    }


def _products() -> Ways:
    vectors, layer = torch.randn(512, 576), nn.Linear(576, 1536).requires_grad_(False)
    halves, half = vectors.bfloat16(), nn.Linear(576, 1536).bfloat16().requires_grad_(False)
    blocks = nn.Linear(576, 1536).bfloat16().requires_grad_(False)
    speed_up(blocks)
    vars(blocks)[PLAN].in_blocks = True
    return {
        "in blocks": lambda: blocks(halves),
        "at once": lambda: half(halves),
        "float32": lambda: layer(vectors),
    }


def _timed(ways: Ways, calls: int) -> dict[str, float]:
    """Seconds of a call, by way."""
    took: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(ROUNDS):
        for way, call in ways.items():
            call()
            began = time.process_time()
            for _ in range(calls):
                call()
            took[way].append((time.process_time() - began) / calls)
    return {way: statistics.median(of) for way, of in took.items()}


if __name__ == "__main__":
    main()
