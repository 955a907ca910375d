"""Swaps and DAS on a small MLP: the group `mlp` of `weak_cases.py`.

The network of `weak_training.py`, where products cost next to nothing. Swaps exchange the first
half of the residual of each pair, by what a replica has for networks without tokens; captures and
rows are made before, and not timed. In DAS a step of one fit by itself, and of each of many in one
call, is compared with a step of one fit on the other sides.
"""

import argparse
import functools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyvene
import torch
from pyvene_rotation import around, around_low_rank, constant_recipe
from torch import Tensor, nn
from torch.nn import functional
from weak_sides import (
    Measured,
    Product,
    Way,
    Work,
    best,
    measured,
    same_answers,
    through,
)
from weak_training import (
    LAYERS,
    ONE,
    SIZES,
    WIDTH,
    Hypothesis,
    OnTensors,
    mlp,
    modelings,
    train_pyvene,
    trainer,
)

from raysearch.causal import Stimulus
from raysearch.core.fit_keys import FitKeys
from raysearch.engine.execution.activation_cache import ActivationCache
from raysearch.engine.execution.evaluate import Evaluator
from raysearch.engine.execution.evaluate_swaps import SwapEvaluator
from raysearch.engine.execution.executors import PlainExecutor
from raysearch.engine.execution.memory import RowLimit, capture_bytes
from raysearch.engine.execution.predict import NEAR_TIE
from raysearch.engine.execution.tensor_executor import TensorExecutor
from raysearch.engine.networks.components import Components
from raysearch.engine.networks.point import Point
from raysearch.engine.networks.tensor_network import TensorNetwork
from raysearch.engine.patching.build_swaps import swaps_of
from raysearch.engine.patching.rows import Patch, Row, Source
from raysearch.engine.training.batches import batch_of

ROWS, BATCH, FITS, HALF = 1024, 128, 40, WIDTH // 2
"""Rows in a forward pass, pairs in a batch of training, fits in one call, coordinates that are
swapped."""
GAIN = 1000
"""What weights of the last layer are multiplied by: the two logits then differ by 1 (median)."""

Train = Callable[[Sequence[Hypothesis]], tuple[float, dict[Hypothesis, float]]]
"""Ours: seconds of a step of all fits, and the first loss of each."""


@dataclass(frozen=True, slots=True)
class Mlp:
    """One network as pyvene takes it and as ours does, with pairs and what it says of sources."""

    theirs: nn.Module
    ours: nn.Module
    bases: Tensor
    sources: Tensor
    wanted: Tensor

    @staticmethod
    def of(pairs: int) -> "Mlp":
        """Draws pairs. The last layer is so large that the two logits differ as in a trained
        network, and few rows are too close to call."""
        ours, theirs = mlp(OnTensors), mlp(modelings.MLPForClassification)
        with torch.no_grad():
            for parameter in (*ours.score.parameters(), *theirs.score.parameters()):
                parameter.mul_(GAIN)
        draw = torch.Generator().manual_seed(0)
        bases, sources = torch.randn(2, pairs, 1, WIDTH, generator=draw)
        with torch.inference_mode():
            wanted = ours(sources)[0].argmax(-1)
        return Mlp(theirs, ours, bases, sources, wanted.clone())


def measure_mlp(pairs: int, steps: int) -> Iterator[Measured]:
    """Yields what swaps of so many pairs cost in each layer, and a step of one fit and of 40."""
    network = Mlp.of(pairs)
    for layer in range(LAYERS):
        near = [0]
        sides = _swaps(network, layer, near), _resumed_swaps(network, layer)
        taken, answers = zip(*map(best, (*sides, _pyvene_swaps(network, layer))), strict=True)
        name = f"MLP, layer {layer}, swap of {HALF} of {WIDTH}, {pairs} pairs"
        same_answers(name, answers)
        yield measured(name, _work(network, [layer], pairs, False), taken, near=near[-1])
    yield from _fits(network, steps)


def _swaps(network: Mlp, layer: int, near: list[int]) -> Way:
    """By a replica's swaps; adds to `near` how many rows were too close to call."""
    on = TensorNetwork(network.ours, torch.zeros(1, WIDTH), blocks="mlp.h")
    points, limit, tolerance = Components(on), RowLimit(ROWS), NEAR_TIE["float32"]
    cache = ActivationCache(on, points, limit, tolerance, capture_bytes(on.device))
    executor, plain = TensorExecutor(on, points, cache), PlainExecutor(on, points)
    evaluator = Evaluator(executor, plain, cache, limit, tolerance)
    waves, at, rows = SwapEvaluator(evaluator, executor, tolerance), Point(layer, "residual"), []
    for base, source in zip(network.bases, network.sources, strict=True):
        read = Source(Row(Stimulus.of(source)), at, (0,), range(HALF))
        patch = Patch(at, (0,), (read,), features=range(HALF))
        rows.append(Row(Stimulus.of(base), (patch,)))
    swaps = swaps_of(rows)
    waves.measure(swaps)  # captures

    def run(_given: object) -> Tensor:
        found = waves.measure(swaps)
        assert not found.failed.any()
        near.append(int(found.near.sum()))
        return torch.from_numpy(found.ids[:, 0])

    return (lambda: None), run


def _resumed_swaps(network: Mlp, layer: int) -> Way:
    model = network.theirs

    @torch.inference_mode()
    def captured() -> tuple[Tensor, Tensor]:
        return _after(model, layer, network.bases), _after(model, layer, network.sources)

    @torch.inference_mode()
    def run(given: object) -> Tensor:
        assert isinstance(given, tuple)
        answers = []
        for base, source in zip(*(of.split(ROWS) for of in given), strict=True):
            hidden = torch.cat((source[..., :HALF], base[..., HALF:]), -1)
            answers.append(_above(model, layer, hidden).argmax(-1))
        return torch.cat(answers)

    return functools.cache(captured), run


def _pyvene_swaps(network: Mlp, layer: int) -> Way:
    intervenable, intervention = around(network.theirs, layer, pyvene.VanillaIntervention)
    intervention.set_interchange_dim(HALF)

    @torch.inference_mode()
    def run(_given: object) -> Tensor:
        answers = []
        for base, source in zip(
            network.bases.split(ROWS), network.sources.split(ROWS), strict=True
        ):
            given = {"inputs_embeds": base}, [{"inputs_embeds": source}], {"sources->base": 0}
            answers.append(intervenable(*given)[1][0].argmax(-1))
        return torch.cat(answers)

    return (lambda: None), run


def _fits(network: Mlp, steps: int) -> Iterator[Measured]:
    """Yields the cost of a step of one fit by itself, and of each of many."""
    recipe = constant_recipe(steps, min(BATCH, len(network.wanted)), evaluate=1)
    given = network.bases, network.sources, network.wanted
    train = trainer(network.ours, *given, recipe, argparse.Namespace(rows=ROWS))
    every = [(at, k, s) for s in range(FITS) for k in SIZES for at in (1, 0, 2)][:FITS]
    for hypotheses in ([ONE], every):
        rounds = [_step(network, recipe, train, hypotheses) for _ in range(2)]
        sides = tuple(map(min, zip(*rounds, strict=True)))
        work = _work(network, [layer for layer, _, _ in hypotheses], recipe.batch, True)
        fits = f"{len(hypotheses)} fit{'s' * (len(hypotheses) > 1)}"
        name = f"MLP, DAS, {fits}, a step of each, batch {recipe.batch}"
        yield measured(name, work, sides, len(hypotheses))


def _step(
    network: Mlp, recipe: FitKeys, train: Train, hypotheses: Sequence[Hypothesis]
) -> tuple[float, float, float]:
    """Seconds of a step of one fit: ours among all, the mean of the resume and of pyvene over the
    first of each layer and size. Raises: AssertionError if first losses differ."""
    taken, losses = train(hypotheses)
    resumed, theirs = [], []
    for one in hypotheses[: LAYERS * len(SIZES)]:
        by_hand, first = _resumed_fit(network, recipe, one)
        by_pyvene, other = train_pyvene(
            *(network.theirs, recipe, one, network.bases, network.sources, network.wanted)
        )
        off = max(abs(losses[one] - first), abs(losses[one] - other))
        assert off < 1e-4, f"{one}: first losses differ by {off}"
        resumed.append(by_hand)
        theirs.append(by_pyvene)
    return taken / len(hypotheses), statistics.mean(resumed), statistics.mean(theirs)


def _resumed_fit(network: Mlp, recipe: FitKeys, one: Hypothesis) -> tuple[float, float]:
    """By hand: pyvene's own rotation, trained on what lies above it. Returns seconds of a step, and
    the first loss."""
    (layer, k, seed), model, losses = one, network.theirs, []
    _, rotation = around_low_rank(model, layer, k, WIDTH, seed)
    optimizer = torch.optim.Adam(rotation.parameters(), lr=recipe.learning_rate)
    with torch.no_grad():
        bases, sources = (_after(model, layer, of) for of in (network.bases, network.sources))
    began = time.process_time()
    for step in range(recipe.steps):
        batch = batch_of(range(len(network.wanted)), recipe.batch, seed, step)
        logits = _above(model, layer, rotation(bases[batch], sources[batch]))
        loss = functional.cross_entropy(logits, network.wanted[batch])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return (time.process_time() - began) / recipe.steps, losses[0]


def _after(model: nn.Module, layer: int, given: Tensor) -> Tensor:
    """The residual after a block."""
    for block in model.mlp.h[: layer + 1]:
        given = block(given)
    return given


def _above(model: nn.Module, layer: int, hidden: Tensor) -> Tensor:
    """The logits from the residual after a block."""
    for block in model.mlp.h[layer + 1 :]:
        hidden = block(hidden)
    return model.score(hidden).squeeze(1)


def _work(network: Mlp, layers: Sequence[int], rows: int, trains: bool) -> Work:
    """The work of one fit, or of swaps, in each of `layers`: captures are given."""
    blocks, head = network.theirs.mlp.h, network.theirs.score
    back, needed, theirs = rows * trains, list[Product](), list[Product]()
    for layer in layers:
        above = through([*blocks[layer + 1 :], head], rows, back)
        needed += above
        theirs += [
            *through(blocks[: layer + 1], 2 * rows),
            *through([*blocks[layer + 1 :], head], 2 * rows, back),
        ]
    return Work(needed, needed, theirs)
