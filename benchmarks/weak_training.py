"""DAS on a small network, side by side with pyvene 0.1.8: the same weights, pairs, batches,
learning rate, threads and process.

    make install && .venv/bin/python benchmarks/weak_training.py [--tiny]

pyvene's own MLP, three layers of 16, two classes; directions of the residual (k = 1, 2, 4, 8, of
all layers, and as many seeds as are needed) are trained on batches of 128 of 2,048 pairs. Here
nothing of the network costs much: what is measured is what a step costs beside it. A step is one
batch of one fit: forward, backward, Adam; validation is left out on both sides. Ours is one fit by
itself (the middle layer, k = 4) and `--fits` in one call, by the trainer that a replica has; pyvene
trains the one and the first of each layer and size in turn, as its documentation does. Sides take
turns, `--repeats` times; medians are compared. Losses of the first step, from the same rotation on
the same batch, are compared too. The last line is the ratio for a fit among `--fits`.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Sequence

import pyvene
import torch
from pyvene_rotation import around_low_rank, constant_recipe
from torch import Tensor
from torch.nn import functional

import raysearch as rs
from raysearch.causal import Stimulus
from raysearch.core.events import Encoded
from raysearch.core.fit_keys import FitKeys
from raysearch.engine.execution.activation_cache import ActivationCache
from raysearch.engine.execution.executors import BatchedExecutor
from raysearch.engine.execution.memory import RowLimit, capture_bytes
from raysearch.engine.execution.predict import NEAR_TIE
from raysearch.engine.networks.components import Components
from raysearch.engine.networks.tensor_network import TensorNetwork
from raysearch.engine.training.batches import batch_of
from raysearch.engine.training.fit_request import FitOutcome, FitRequest
from raysearch.engine.training.trainer import Trainer

WIDTH, LAYERS, CLASSES = 16, 3, 2
SIZES = (4, 1, 2, 8)
ONE = 1, 4, 0
"""Layer, number of directions and seed of the fit that is trained by itself."""

Hypothesis = tuple[int, int, int]
modelings = pyvene.models.mlp.modelings_mlp


class OnTensors(modelings.MLPForClassification):  # type: ignore[misc, name-defined]
    """pyvene's, which takes the tensor first in line."""

    def forward(self, given: Tensor) -> object:
        return super().forward(inputs_embeds=given)


def main() -> None:
    asked = _asked()
    torch.set_num_threads(asked.threads)
    recipe = constant_recipe(asked.steps, asked.batch, evaluate=1)
    theirs, ours = mlp(modelings.MLPForClassification), mlp(OnTensors)
    inputs = torch.randn(2 * asked.pairs, 1, WIDTH, generator=torch.Generator().manual_seed(0))
    bases, sources = inputs.chunk(2)
    with torch.inference_mode():
        wanted = ours(sources)[0].argmax(-1)
    every = [(at, k, s) for s in range(asked.fits) for k in SIZES for at in (1, 0, 2)][: asked.fits]
    some = list(itertools.islice(every, LAYERS * len(SIZES)))
    train = trainer(ours, bases, sources, wanted, recipe, asked)
    times: dict[str, list[float]] = {"theirs": [], "one": [], "many": []}
    for _ in range(asked.repeats):
        their_losses = {}
        for hypothesis in some:
            took, loss = train_pyvene(theirs, recipe, hypothesis, bases, sources, wanted)
            times["theirs"].append(took)
            their_losses[hypothesis] = loss
        times["one"].append(train([ONE])[0])
        took, losses = train(every)
        times["many"].append(took / len(every))
    off = max(abs(losses[h] - their_losses[h]) for h in some)
    pyvene_step, one, many = (statistics.median(found) for found in times.values())
    print(f"a step             batch {asked.batch} of {asked.pairs} pairs, {asked.threads} threads")
    print(f"first losses       differ by at most {off:.2g}")
    print(f"pyvene             {1e3 * pyvene_step:.2f} ms a step")
    print(f"ours, one fit      {1e3 * one:.2f} ms a step")
    print(f"ours, {len(every):3} fits     {1e3 * many:.3f} ms a step and fit")
    print(f"ratio for one fit: {pyvene_step / one:.1f}")
    print(f"ratio: {pyvene_step / many:.1f}")


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=2048)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--fits", type=int, default=40)
    parser.add_argument("--rows", type=int, default=1024, help="in a forward pass, ours")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--tiny", action="store_true", help="few of everything, for a test of the script"
    )
    asked = parser.parse_args()
    if asked.tiny:
        asked.pairs, asked.batch, asked.steps, asked.fits, asked.repeats = 16, 8, 3, 4, 1
    return asked


def mlp(kind: type) -> torch.nn.Module:
    """Random weights, three times as large as usual, so that outputs differ."""
    config = modelings.MLPConfig(
        h_dim=WIDTH, n_layer=LAYERS, num_classes=CLASSES, pdrop=0.0, activation_function="relu"
    )
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model = kind(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    return model.eval().requires_grad_(False)


def trainer(
    model: torch.nn.Module,
    bases: Tensor,
    sources: Tensor,
    wanted: Tensor,
    recipe: FitKeys,
    asked: argparse.Namespace,
) -> Callable[[Sequence[Hypothesis]], tuple[float, dict[Hypothesis, float]]]:
    """Returns what trains hypotheses, and says how long a step of all takes (captures are made
    before) and what the first loss of each is."""
    network = TensorNetwork(model, torch.zeros(1, WIDTH), blocks="mlp.h")
    points, limit = Components(network), RowLimit(asked.rows)
    tolerance = NEAR_TIE["float32"]
    cache = ActivationCache(network, points, limit, tolerance, capture_bytes(network.device))
    executor = BatchedExecutor(network, points, cache)
    pairs = [
        Encoded(at, Stimulus.of(base), {"s": Stimulus.of(source)}, {"all": (0,)}, {"s": {"all": (0,)}},
                {"base": (0,)}, {"x": (answer,)})
        for at, (base, source, answer) in enumerate(zip(bases, sources, wanted.tolist(), strict=True))
    ]  # fmt: skip
    answers = {pair.index: pair.counterfactual["x"] for pair in pairs}

    def train(hypotheses: Sequence[Hypothesis]) -> tuple[float, dict[Hypothesis, float]]:
        requests = [FitRequest(_intervention(h), h[2]) for h in hypotheses]
        targets = {one.intervention.id: answers for one in requests}
        first = recipe.model_copy(update={"evaluate": recipe.steps})
        losses = {}
        trainers = [
            Trainer(network, points, executor, cache, keys, tolerance, limit)
            for keys in (first, recipe)
        ]
        for h, fit in zip(hypotheses, trainers[0].fit(requests, pairs, targets, 0, 1), strict=True):
            assert isinstance(fit, FitOutcome), fit
            losses[h] = fit.points[0][1]
        trainers[1].fit(requests, pairs, targets, 0, 0)  # captures
        began = time.process_time()
        done = trainers[1].fit(requests, pairs, targets, 0, recipe.steps)
        took = time.process_time() - began
        assert all(isinstance(fit, FitOutcome) for fit in done), done
        return took / recipe.steps, losses

    return train


def _intervention(hypothesis: Hypothesis) -> rs.Intervention:
    layer, k, _ = hypothesis
    return rs.Intervention(
        (rs.Unit(rs.Site(layer, "residual", "all"), rs.Subspace("das", k)),), variable="x"
    )


def train_pyvene(
    model: torch.nn.Module,
    recipe: FitKeys,
    hypothesis: Hypothesis,
    bases: Tensor,
    sources: Tensor,
    wanted: Tensor,
) -> tuple[float, float]:
    """As its documentation trains a low-rank rotation, from the one that ours begins with. Returns
    seconds of a step, and the first loss."""
    layer, k, seed = hypothesis
    intervenable, _ = around_low_rank(model, layer, k, WIDTH, seed)
    optimizer = torch.optim.Adam(intervenable.get_trainable_parameters(), lr=recipe.learning_rate)
    losses = []
    began = time.process_time()
    for step in range(recipe.steps):
        batch = batch_of(range(len(wanted)), recipe.batch, seed, step)
        _, out = intervenable(
            {"inputs_embeds": bases[batch]},
            [{"inputs_embeds": sources[batch]}],
            {"sources->base": 0},
        )
        loss = functional.cross_entropy(out[0], wanted[batch])
        loss.backward()
        optimizer.step()
        intervenable.set_zero_grad()
        losses.append(loss.item())
    return (time.process_time() - began) / recipe.steps, losses[0]


if __name__ == "__main__":
    main()
