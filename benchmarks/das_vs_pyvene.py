"""Training rotations, side by side with pyvene 0.1.8: the same model, pairs, batches, learning
rate, threads and process.

    make install && .venv/bin/python benchmarks/das_vs_pyvene.py [--half] [--tiny] [--one]

SmolLM2-135M, residual, 5 layers x 4 positions of a 24-token template x k = 1, 4, 16. Positions are
spread from the first token in which prompts differ to the last (`--half`: over the second half,
with prompts that differ from their first token on), so that no row is free. A step is one batch of
one hypothesis: forward, backward, Adam; validation is left out on both sides. Ours is the whole
grid in one company, and one hypothesis (the middle layer, the second position, k = 4) by itself,
captures included once in each. pyvene is timed on one cell of each layer, positions and sizes in
turn, as its documentation trains (model gradients disabled, cross entropy at the last token); its
cost hardly depends on position and size. Both take `--steps` steps after a warm-up and are
extrapolated to `--train`. Losses of the first step, from the same rotation on the same batch, are
compared. The last line is the ratio for the grid; with `--one`, that for the one hypothesis.
"""

import argparse
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from grid import MODEL, Grid, flags, half, spread, template_grid
from pyvene_rotation import around_low_rank, constant_recipe
from torch.nn import functional
from transformers import PreTrainedModel

import raysearch as rs
from raysearch.core.events import Encoded, Ids
from raysearch.core.fit_keys import FitKeys
from raysearch.core.model_source import ModelSource
from raysearch.engine.execution.activation_cache import ActivationCache
from raysearch.engine.execution.memory import RowLimit, capture_bytes
from raysearch.engine.execution.predict import NEAR_TIE
from raysearch.engine.execution.replay_executor import ReplayExecutor
from raysearch.engine.loading.load import load
from raysearch.engine.loading.loaded_model import LoadedModel
from raysearch.engine.networks.components import Components
from raysearch.engine.networks.network import LanguageModel
from raysearch.engine.training.batches import batch_of
from raysearch.engine.training.fit_request import FitOutcome, FitRequest
from raysearch.engine.training.trainer import Trainer

Hypothesis = tuple[int, int, int]
"""Layer, position, k."""

WARM = 2
"""Steps before the clock is started."""


@dataclass(frozen=True, slots=True)
class Took:
    """Seconds before the first step, and of a step; the losses of the first step, by hypothesis."""

    before: float
    step: float
    losses: dict[Hypothesis, float]

    def whole(self, steps: int) -> float:
        return self.before + steps * self.step


@dataclass(frozen=True, slots=True)
class Pairs:
    """The grid's pairs as a trainer takes them: what the model says of the source is to be said of
    the base."""

    encoded: tuple[Encoded, ...]
    targets: tuple[int, ...]


def main() -> None:
    asked = _asked()
    torch.set_num_threads(asked.threads)
    loaded = load(ModelSource(str(MODEL)))
    network, grid = LanguageModel(loaded.model), _grid(loaded, asked)
    pairs = pairs_of(network, grid)
    recipe = constant_recipe(asked.steps + WARM, asked.batch, evaluate=10**9)
    every = list(itertools.product(grid.layers, grid.tokens, asked.sizes))
    middle = grid.layers[len(grid.layers) // 2], grid.tokens[1], asked.sizes[len(asked.sizes) // 2]
    sample = [middle, *(h for h in _one_of_each_layer(grid, asked.sizes) if h[0] != middle[0])]
    one = train_ours(network, recipe, [middle], pairs, asked)
    theirs = {h: train_pyvene(loaded.model, recipe, h, grid, pairs, asked) for h in sample[:1]}
    if asked.one:
        print(f"a step, s       pyvene {theirs[middle].step:.3f}, ours {one.step:.3f}")
        print(f"ratio: {theirs[middle].whole(asked.train) / one.whole(asked.train):.1f}")
        return
    whole = train_ours(network, recipe, every, pairs, asked)
    theirs |= {h: train_pyvene(loaded.model, recipe, h, grid, pairs, asked) for h in sample[1:]}
    per_step = sum(took.step for took in theirs.values()) / len(theirs) * len(every)
    off = max(abs(whole.losses[h] - took.losses[h]) for h, took in theirs.items())
    extrapolated = asked.train * per_step
    print(
        f"grid            {len(grid.layers)} layers x {len(grid.tokens)} positions x "
        f"{len(asked.sizes)} sizes"
    )
    print(f"                tokens {grid.tokens} of 24, layers {grid.layers}, k {asked.sizes}")
    print(
        f"a step          batch {asked.batch} of {len(pairs.encoded)} pairs, {asked.threads} "
        f"threads"
    )
    print(f"first losses    differ by at most {off:.2g}")
    for (layer, token, k), took in theirs.items():
        print(
            f"pyvene          layer {layer:2}, token {token:2}, k {k:2}: {took.step:.3f} s a step"
        )
    print(
        f"ours, one       layer {middle[0]:2}, token {middle[1]:2}, k {middle[2]:2}: "
        f"{one.step:.3f} s a step"
    )
    print(
        f"ours, grid      {whole.step / len(every):.3f} s a step and hypothesis; "
        f"{whole.before:.1f} s before the first"
    )
    single = theirs[middle].whole(asked.train), one.whole(asked.train)
    print(
        f"one, {asked.train} steps   pyvene {single[0]:.0f} s, ours {single[1]:.0f} s "
        f"({one.before:.1f} s captures)"
    )
    print(
        f"grid, {asked.train} steps  pyvene {extrapolated:.0f} s, ours "
        f"{whole.whole(asked.train):.0f} s, extrapolated"
    )
    print(f"ratio for one hypothesis: {single[0] / single[1]:.1f}")
    print(f"ratio: {extrapolated / whole.whole(asked.train):.1f}")


def _asked() -> argparse.Namespace:
    parser = half(flags(__doc__, rows=64))
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=20, help="that are timed, after a warm-up")
    parser.add_argument("--train", type=int, default=400, help="steps that are extrapolated to")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument(
        "--tiny", action="store_true", help="few of everything, for a test of the script"
    )
    parser.add_argument("--one", action="store_true", help="the one hypothesis, not the grid")
    parser.set_defaults(layers=5, positions=4)
    asked = parser.parse_args()
    if asked.tiny:
        asked.layers, asked.positions, asked.sizes, asked.pairs, asked.batch, asked.steps = (
            2,
            2,
            [1, 4],
            8,
            4,
            2,
        )
    return asked


def _grid(loaded: LoadedModel, asked: argparse.Namespace) -> Grid:
    """The template's grid, without positions at which base and source cannot differ."""
    grid = template_grid(
        loaded, argparse.Namespace(**{**vars(asked), "positions": None}), asked.half
    )
    bases, sources = grid.ids(0), grid.ids(1)
    differing = [
        t for t in grid.tokens if bool((bases[:, : t + 1] != sources[:, : t + 1]).any(1).all())
    ]
    return replace(grid, tokens=spread(differing, asked.positions))


def _one_of_each_layer(grid: Grid, sizes: Sequence[int]) -> list[Hypothesis]:
    tokens, ks = itertools.cycle(grid.tokens), itertools.cycle(sizes)
    return [(layer, next(tokens), next(ks)) for layer in grid.layers]


@torch.inference_mode()
def pairs_of(network: LanguageModel, grid: Grid) -> Pairs:
    said = [
        int(line.argmax())
        for part in range(0, len(grid.pairs), 16)
        for line in network.batch([source for _, source in grid.pairs[part : part + 16]])
    ]
    positions = {str(token): (token,) for token in grid.tokens}
    encoded = tuple(
        Encoded(at, base, {"source": source}, positions, {"source": positions}, {"base": (0,)}, {})
        for at, (base, source) in enumerate(grid.pairs)
    )
    return Pairs(encoded, tuple(said))


def _intervention(hypothesis: Hypothesis) -> rs.Intervention:
    layer, token, k = hypothesis
    return rs.Intervention(
        (rs.Unit(rs.Site(layer, "residual", str(token)), rs.Subspace("das", k)),), variable="x"
    )


def train_ours(
    network: LanguageModel,
    recipe: FitKeys,
    hypotheses: Sequence[Hypothesis],
    pairs: Pairs,
    asked: argparse.Namespace,
    clock: Callable[[], float] = time.perf_counter,
) -> Took:
    began = clock()
    taps = Components(network)
    tolerance, limit = NEAR_TIE["float32"], RowLimit(asked.rows)
    captures = ActivationCache(
        network, taps, limit, tolerance, capture_bytes(network.device), keys=True
    )
    trainer = Trainer(
        network, taps, ReplayExecutor(network, taps, captures), captures, recipe, tolerance, limit
    )
    fits = [FitRequest(_intervention(h), 0) for h in hypotheses]
    answers: dict[int, Ids] = {at: (said,) for at, said in enumerate(pairs.targets)}
    targets = {fit.intervention.id: answers for fit in fits}
    trainer.fit(fits, pairs.encoded, targets, 0, 0)
    captured = clock()
    warm = trainer.fit(fits, pairs.encoded, targets, 0, WARM)
    warmed = clock()
    said = [fit for fit in warm if isinstance(fit, FitOutcome)]
    assert len(said) == len(fits), warm
    on = [FitRequest(a.intervention, a.seed, fit.state) for a, fit in zip(fits, said, strict=True)]
    trainer.fit(on, pairs.encoded, targets, WARM, recipe.steps)
    losses = {h: fit.points[0][1] for h, fit in zip(hypotheses, said, strict=True)}
    return Took(captured - began, (clock() - warmed) / asked.steps, losses)


def train_pyvene(
    model: PreTrainedModel,
    recipe: FitKeys,
    hypothesis: Hypothesis,
    grid: Grid,
    pairs: Pairs,
    asked: argparse.Namespace,
    clock: Callable[[], float] = time.perf_counter,
) -> Took:
    """As its documentation trains a low-rank rotation, from the rotation that ours begins with."""
    layer, token, k = hypothesis
    intervenable, _ = around_low_rank(model, layer, k, model.config.hidden_size, seed=0)
    optimizer = torch.optim.Adam(intervenable.get_trainable_parameters(), lr=recipe.learning_rate)
    bases, sources, wanted = grid.ids(0), grid.ids(1), torch.tensor(pairs.targets)
    losses, began = [], 0.0
    for step in range(recipe.steps):
        if step == WARM:
            began = clock()
        batch = batch_of(range(len(pairs.targets)), recipe.batch, 0, step)
        _, out = intervenable(
            {"input_ids": bases[batch]}, [{"input_ids": sources[batch]}], {"sources->base": token}
        )
        loss = functional.cross_entropy(out.logits[:, -1], wanted[batch])
        loss.backward()
        optimizer.step()
        intervenable.set_zero_grad()
        losses.append(loss.item())
    return Took(0.0, (clock() - began) / asked.steps, {hypothesis: losses[0]})


if __name__ == "__main__":
    main()
