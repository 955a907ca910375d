"""The cells where the engine saves least, one by one, side by side with pyvene 0.1.8 and with a
hand-written run that resumes at the patched layer.

    OMP_NUM_THREADS=1 python benchmarks/weak_cases.py [--only swaps prefix das mlp] [--pairs 16]
        [--layers 0 15 29] [--tokens 10 128 512] [--steps 100]

SmolLM2-135M, float32, one thread, random prompts. Four groups:

- swaps: prompts that share no token, so that no row is free; one cell each, its layer, first
  patched token and component, on all pairs, as waves of swaps, which is how a job runs them.
  Captures are left out but where a cell says so; a cell of two tokens answers with two, after the
  rows on which a replica compares both ways of the second.
- prefix: prompts that share their first half, as those of one template do; each source is swapped
  into each of one or two bases, at the first token after that half or at the last. With captures,
  the bound runs the common half once.
- das: a step of a rotation at an early, a middle and a late token, captures given.
- mlp: swaps and steps of DAS on a network of three layers of 16, one fit and 40 together.

Processor seconds, the better of two rounds each, where they are long of one (of DAS on the language
model: the mean of three steps). `near`: rows that were too close to call, and so were run once more one by one; the others'
ways do not do that, and random prompts have more of them than texts. `bound`: multiply-adds of
pyvene's passes (logits of every token) over those that any method must do that runs whole blocks:
the base's captures are given, tokens from the patch on and layers above it are run, and one head;
with captures, also both runs; in DAS, also their gradients. (Within the first and the last block a
method could leave out a few products more.) That bound takes each multiply-add to cost the same,
which holds for big products alone. So `products` are the seconds that the matrix products of the
bound take by themselves, with the rows that a wave has.

The last line is the worst share of a bound (after each group stands the worst of its own), the one
before the worst share of the products, and the one before that the median against the resume, by
whether its multiply-adds are the needed ones, up to a fifth more.
"""

import argparse
import statistics
from collections.abc import Iterator, Sequence

import torch
from grid import MODEL
from weak_das import measure_das
from weak_mlp import measure_mlp
from weak_sides import Measured, figure
from weak_swaps import measure_swaps, prefix_cells, swap_cells

from raysearch.core.model_source import ModelSource
from raysearch.engine.loading.load import load

GROUPS = ("swaps", "prefix", "das", "mlp")


def main() -> None:
    asked = _asked()
    torch.set_num_threads(1)
    print(
        "length, token, layer, component: products s, ours s, resumed s, pyvene s | "
        "share of products, to resumed, to pyvene, bound, share of it, near"
    )
    found: list[Measured] = []
    for group, cells in _groups(asked).items():
        of_group = []
        for cell in cells:
            print(cell, flush=True)
            of_group.append(cell)
        print(f"{group}, worst share of a bound: {figure(min(c.share for c in of_group))}")
        found += of_group
    print(f"to the resume, median: {_to_resumed(found)}")
    print(f"share of products: {figure(min(cell.of_products for cell in found))}")
    print(f"share: {figure(min(cell.share for cell in found))}")


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=GROUPS, metavar="GROUP")
    parser.add_argument("--pairs", type=int, default=16, help="on the MLP, 128 times as many")
    parser.add_argument("--layers", type=int, nargs="+", default=[0, 15, 29])
    parser.add_argument("--tokens", type=int, nargs="+", default=[10, 128, 512])
    parser.add_argument("--steps", type=int, default=100, help="of a fit on the MLP")
    return parser.parse_args()


def _groups(asked: argparse.Namespace) -> dict[str, Iterator[Measured]]:
    """Returns the cells of each group that is asked for, which are measured one by one."""
    layers, tokens, pairs = asked.layers, asked.tokens, asked.pairs
    groups = {"mlp": measure_mlp(128 * pairs, asked.steps)}
    if {*asked.only} != {"mlp"}:
        model = load(ModelSource(str(MODEL))).model
        groups |= {
            "swaps": measure_swaps(model, swap_cells(layers, tokens), pairs),
            "prefix": measure_swaps(model, prefix_cells(layers, tokens), pairs),
            "das": measure_das(model, layers, tokens, pairs),
        }
    return {group: groups[group] for group in GROUPS if group in asked.only}


def _to_resumed(cells: Sequence[Measured]) -> str:
    """The medians against the resume."""
    said = []
    for same, where in ((True, "where its work is the same"), (False, "where it is more")):
        ratios = [cell.to_resumed for cell in cells if cell.is_same == same]
        if ratios:
            said.append(f"{figure(statistics.median(ratios))} {where} ({len(ratios)} cells)")
    return ", ".join(said)


if __name__ == "__main__":
    main()
