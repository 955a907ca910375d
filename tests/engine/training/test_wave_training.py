"""Training on language models runs in waves: a step has no Python for a row and waits for no device;
its gradients are those of plain autograd, in half precision too."""

from collections import Counter
from collections.abc import Sequence

import pytest
import torch

from raysearch.core.hypothesis import Intervention, Site, Subspace, Unit
from raysearch.engine.execution.memory import RowLimit
from raysearch.engine.execution.replay_executor import ReplayExecutor
from raysearch.engine.featurizers.construction import make_untrained
from raysearch.engine.training.fit_request import FitOutcome, FitRequest
from raysearch.engine.training.trainer import Trainer
from tests.engine.bytecodes import bytecodes
from tests.engine.training.test_step_costs import RECIPE, STEPS, Kernels, counted_waits, per_step
from tests.engine.training.test_trainer import gradient_by_hooks, raw
from tests.engine.worlds import (
    World,
    encoded_pairs,
    model_of,
    shared_world,
    world_of,
)

ENCODED = encoded_pairs(2, 32, shortest=7, longest=7)


def das(size: int, seeds: int, layers: Sequence[int], position: str = "last") -> list[FitRequest]:
    sites = [Site(layer, "residual", position) for layer in layers]
    return [
        FitRequest(Intervention((Unit(site, Subspace("das", size)),), variable="x"), seed)
        for site in sites
        for seed in range(seeds)
    ]


def trainer(world: World, max_bytes: int = 2**30, **recipe: object) -> Trainer:
    cache = world.captures(10_000, max_bytes, keys=True)
    executor = ReplayExecutor(world.network, world.taps, cache)
    own = RECIPE.model_copy(update=recipe)
    return Trainer(world.network, world.taps, executor, cache, own, 0.0, RowLimit(10_000))


def fit(made: Trainer, asked: Sequence[FitRequest], steps: int, pairs: int = 32) -> None:
    some = ENCODED[:pairs]
    targets = {a.intervention.id: {p.index: p.counterfactual["x"] for p in some} for a in asked}
    for found in made.fit(asked, some, targets, 0, steps):
        assert isinstance(found, FitOutcome), found.error


def test_python_of_a_step_grows_with_neither_rows_nor_fits() -> None:
    """Batches are of all pairs, so that no order is drawn."""

    def of_a_step(fits: int, pairs: int) -> int:
        def count(steps: int) -> Counter[str]:
            made = trainer(shared_world("llama"), batch=pairs)
            fit(made, das(2, fits, (1, 3)), 1, pairs)  # captures and templates
            _, found = bytecodes(lambda: fit(made, das(2, fits, (1, 3)), steps, pairs))
            return Counter(bytecodes=found)

        short, long = (count(steps)["bytecodes"] for steps in STEPS)
        return (long - short) // (STEPS[1] - STEPS[0])

    of_a_step(1, 8)
    one = of_a_step(1, 8)
    assert of_a_step(1, 32) <= 1.02 * one
    assert of_a_step(6, 8) <= 1.1 * one


@pytest.mark.slow_unless(family=["gemma2"])
@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_a_step_waits_for_no_device(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = trainer(shared_world(family), batch=32)
    head = Unit(Site(1, "head", "last", 1), Subspace("das", 2))
    asked = das(2, 2, (0, 2)) + das(3, 1, (1,), "here")
    asked.append(FitRequest(Intervention((head,), variable="x"), 0))  # of some columns alone
    fit(made, asked, 1)
    seen = counted_waits(monkeypatch)

    def count(steps: int) -> Counter[str]:
        seen.clear()
        with Kernels() as found:
            fit(made, asked, steps)
        waits = {n: found.counts[n] for n in ("_local_scalar_dense", "nonzero", "masked_select")}
        return seen + Counter(waits)

    assert not per_step(count)


@pytest.mark.parametrize("room", [2**30, 40_000])
@pytest.mark.parametrize(
    ("family", "dtype"),
    [("llama", "float32"), ("gemma2", "float32"), ("gpt2", "bfloat16"), ("llama", "float16")],
)
def test_gradients_are_those_by_plain_hooks_whether_the_runs_fit_into_the_cache_or_not(
    family: str, dtype: str, room: int
) -> None:
    half = dtype != "float32"
    world = world_of(model_of(family).to(getattr(torch, dtype)))
    changes = {"optimizer": "sgd", "learning_rate": 0.1, "schedule": "constant", "warmup": 0.0}
    made = trainer(world, room, batch=16, steps=1, **changes)
    asked, pairs = das(3, 1, (1,), "here")[0], ENCODED[:16]
    wanted = {p.index: p.counterfactual["x"] for p in pairs}
    (found,) = made.fit([asked], pairs, {asked.intervention.id: wanted}, 0, 1)
    assert isinstance(found, FitOutcome), found
    featurizer = make_untrained(Subspace("das", 3), 32, torch.Generator().manual_seed(0))
    gradient = gradient_by_hooks(world, asked, featurizer, pairs, wanted)
    got = (featurizer.raw.detach() - raw(found)) / 0.1
    assert (got - gradient).norm() <= (0.05 if half else 2e-5) * gradient.norm()
