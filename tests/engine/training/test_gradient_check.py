"""Gradients of training are held against plain autograd on the model at hand: a model whose
gradients are wrong on the fast path alone trains as plain autograd does, and says so."""

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from raysearch.core.events import Fitted, Seed, Task
from raysearch.core.hypothesis import Subspace
from raysearch.core.runner_settings import RunnerSettings
from raysearch.engine.execution.activation_cache import ActivationCache
from raysearch.engine.execution.executors import BatchedExecutor
from raysearch.engine.execution.memory import RowLimit, memory_in_use
from raysearch.engine.featurizers.construction import make_untrained
from raysearch.engine.networks.components import Components
from raysearch.engine.networks.point import Point
from raysearch.engine.networks.tensor_network import TensorNetwork
from raysearch.engine.replica import Replica
from raysearch.engine.training.fit_request import FitFault, FitOutcome, FitRequest
from raysearch.engine.training.gradient_check import Compared, GradientCheck, RowKind
from raysearch.engine.training.trainer import Trainer
from tests.engine.training.test_step_costs import (
    CLASSES,
    RECIPE,
    WIDTH,
    Block,
    pairs,
    request,
    tensor,
)
from tests.engine.training.test_trainer import gradient_by_hooks, raw
from tests.engine.training.test_wave_training import ENCODED, das, trainer
from tests.engine.worlds import POSITIONS, blocks_of, loaded, model_of, random_pairs, world_of

LENGTH = 8
"""Tokens of each base of ENCODED."""
ONE_STEP = {
    "optimizer": "sgd",
    "learning_rate": 0.1,
    "schedule": "constant",
    "warmup": 0.0,
    "batch": 16,
    "steps": 1,
}
Faulty = Callable[[Tensor], bool]


class Doubled(torch.autograd.Function):
    """Passes numbers on, and twice their gradient back."""

    @staticmethod
    def forward(ctx: Any, given: Tensor) -> Tensor:
        return given.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 2 * gradient


def in_company(out: Tensor) -> bool:
    return len(out) > 1


def after_a_prefix(out: Tensor) -> bool:
    return out.shape[1] < LENGTH


class DoubledOfLast(Doubled):
    """As `Doubled`, of the last row of a batch alone."""

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return torch.cat((gradient[:-1], gradient[-1:] * (1 + (len(gradient) > 1))))


def doubling(faulty: Faulty) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    """A hook with a gradient that is wrong for some outputs, which stay as they are."""
    return lambda _module, _given, out: Doubled.apply(out) if faulty(out) else out


def detaching(_module: nn.Module, _given: Any, out: Tensor) -> Tensor:
    return out.detach() if in_company(out) else out


def raising_alone(_module: nn.Module, given: tuple[Tensor, ...]) -> None:
    if torch.is_grad_enabled() and not in_company(given[0]):
        raise RuntimeError("no such\nluck")


def faulty_llama(faulty: Faulty, layer: int = 2) -> PreTrainedModel:
    model = model_of("llama")
    model.model.layers[layer].mlp.register_forward_hook(doubling(faulty))
    return model


def fit(made: Trainer, asked: Sequence[FitRequest]) -> list[FitOutcome | FitFault]:
    some = ENCODED[:16]
    wanted = {a.intervention.id: {p.index: p.counterfactual["x"] for p in some} for a in asked}
    return made.fit(asked, some, wanted, 0, 1)


def step_of(model: PreTrainedModel, made: Trainer, asked: FitRequest) -> tuple[Tensor, Tensor]:
    """The gradient that a step followed, and the one by plain autograd."""
    (found,) = fit(made, [asked])
    assert isinstance(found, FitOutcome), found
    featurizer = make_untrained(Subspace("das", 3), 32, torch.Generator().manual_seed(asked.seed))
    wanted = {p.index: p.counterfactual["x"] for p in ENCODED[:16]}
    gradient = gradient_by_hooks(world_of(model), asked, featurizer, ENCODED[:16], wanted)
    return (featurizer.raw.detach() - raw(found)) / 0.1, gradient


def said_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name.startswith("raysearch")]


class WholeRuns:
    """Counts runs of one whole text with gradients."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._seen = 0
        model.get_input_embeddings().register_forward_hook(self._count)

    def _count(self, _module: nn.Module, given: tuple[Tensor, ...], _out: Tensor) -> None:
        self._seen += torch.is_grad_enabled() and given[0].shape == (1, LENGTH)

    def since(self) -> int:
        seen, self._seen = self._seen, 0
        return seen


@pytest.mark.parametrize("position", ["here", "last"])
@pytest.mark.parametrize("faulty", [in_company, after_a_prefix])
def test_a_gradient_that_is_wrong_in_a_wave_alone_trains_nothing(
    faulty: Faulty, position: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = faulty_llama(faulty)
    made = trainer(world_of(model), **ONE_STEP)
    asked = das(3, 2, (1,), position)
    with caplog.at_level(logging.WARNING, "raysearch"):
        for one in asked:
            got, wanted = step_of(model, made, one)
            assert (got - wanted).norm() <= 2e-5 * wanted.norm()
    (said,) = said_in(caplog)
    assert "gradients of training on the replay path are not those of one run at a time" in said
    assert "of their size, allowed 0.00069, at residual of layer 1): rows are trained" in said
    assert made._cache.meter.take(memory_in_use()).failed_rows == 2 * 16


def test_so_does_one_that_there_is_none_of(caplog: pytest.LogCaptureFixture) -> None:
    model = model_of("llama")
    model.model.norm.register_forward_hook(detaching)
    with caplog.at_level(logging.WARNING, "raysearch"):
        got, wanted = step_of(model, trainer(world_of(model), **ONE_STEP), das(3, 1, (1,))[0])
    assert (got - wanted).norm() <= 2e-5 * wanted.norm()
    (said,) = said_in(caplog)
    assert "at a time (RuntimeError: element 0 of tensors does not require grad" in said


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_right_gradients_are_taken_from_waves_and_checked_once(
    dtype: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Of each component and number of computed tokens two rows of the lowest layer are tried, and
    again where a lower one comes."""
    model = model_of("llama").to(getattr(torch, dtype))
    made, runs = trainer(world_of(model), **ONE_STEP), WholeRuns(model)
    tried = []
    with caplog.at_level(logging.WARNING, "raysearch"):
        for asked in (
            das(3, 2, (1, 2, 3), "last"),
            das(2, 1, (1, 2), "last"),
            das(2, 1, (1,), "here"),
            das(2, 1, (0, 1), "last"),
            das(2, 1, (0, 3), "last") + das(2, 1, (1,), "here"),
        ):
            assert all(isinstance(one, FitOutcome) for one in fit(made, asked))
            tried.append(runs.since())
    assert tried == [2, 0, 2, 2, 0]
    assert not said_in(caplog)
    assert made._cache.meter.take(memory_in_use()).failed_rows == 0


def test_a_fault_below_what_was_trained_first_is_found_when_it_matters(
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = trainer(world_of(faulty_llama(in_company, layer=2)), **ONE_STEP)
    with caplog.at_level(logging.WARNING, "raysearch"):
        fit(made, das(3, 1, (3,)))
        assert not said_in(caplog)
        fit(made, das(3, 1, (1, 3)))
    assert len(said_in(caplog)) == 1


def test_what_plain_autograd_cannot_do_is_not_compared_and_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = model_of("llama")
    model.lm_head.register_forward_pre_hook(raising_alone)
    with caplog.at_level(logging.WARNING, "raysearch"):
        made = trainer(world_of(model), **ONE_STEP)
        for _ in range(2):
            assert isinstance(fit(made, das(3, 1, (1,)))[0], FitOutcome)
    (said,) = said_in(caplog)
    assert "which fails (RuntimeError: no such luck); they are used as they are" in said


def test_what_no_way_can_do_fails_the_fit_as_ever(caplog: pytest.LogCaptureFixture) -> None:
    model = model_of("llama")
    model.model.norm.register_forward_hook(lambda _module, _given, out: out.detach())
    with caplog.at_level(logging.WARNING, "raysearch"):
        (found,) = fit(trainer(world_of(model), **ONE_STEP), das(3, 1, (1,)))
    assert isinstance(found, FitFault)
    assert "does not require grad" in str(found.error)
    assert not said_in(caplog)


class FaultyBlock(Block):
    """A block of an MLP whose gradient is wrong where several inputs share a batch."""

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        return Doubled.apply(out) if in_company(out) else out


@pytest.mark.parametrize("kind", [Block, FaultyBlock])
def test_networks_on_tensors_are_checked_too(
    kind: type[Block], caplog: pytest.LogCaptureFixture
) -> None:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        blocks = nn.Sequential(Block(), kind(), Block())
        model = nn.Sequential(blocks, nn.Linear(WIDTH, CLASSES)).requires_grad_(False)
    network = TensorNetwork(model, torch.zeros(WIDTH), blocks="0")
    points, given, asked = Components(network), pairs(), request(Subspace("das", 3))
    cache = ActivationCache(network, points, RowLimit(64), 0.0, 2**20)
    executor, recipe = BatchedExecutor(network, points, cache), RECIPE.model_copy(update=ONE_STEP)
    made = Trainer(
        *(network, points, executor, cache, recipe.model_copy(update={"batch": 99})),
        *(0.0, RowLimit(512)),
    )
    wanted = {p.index: p.counterfactual["x"] for p in given}
    with caplog.at_level(logging.WARNING, "raysearch"):
        (found,) = made.fit([asked], given, {asked.intervention.id: wanted}, 0, 1)
    assert isinstance(found, FitOutcome), found
    featurizer = make_untrained(Subspace("das", 3), WIDTH, torch.Generator().manual_seed(0))
    losses = []
    for pair in given:
        base, source = (blocks[0](tensor(t)[None]) for t in (pair.base, pair.sources["s"]))
        logits = model[1](blocks[1:](featurizer.interchange(base, source)))
        losses.append(functional.cross_entropy(logits, torch.tensor(pair.counterfactual["x"])))
    (gradient,) = torch.autograd.grad(torch.stack(losses).mean(), [featurizer.raw])
    got = (featurizer.raw.detach() - raw(found)) / 0.1
    assert (got - gradient).norm() <= 1e-4 * gradient.norm()
    said = said_in(caplog)
    assert len(said) == (kind is FaultyBlock)
    assert all("gradients of training on the batched path" in one for one in said)


@pytest.mark.parametrize("faulty", [True, False])
def test_a_replica_with_wrong_gradients_trains_as_one_that_is_plain(
    faulty: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Its outputs are right, so that it is on the fast path all the same."""
    given = random_pairs(3, 24)
    places = [one.intervention for one in das(3, 1, (1, 2), "here")]
    seeds = tuple(Seed(place, 0) for place in places)
    recipe = RECIPE.model_copy(update={"steps": 3, "batch": 8, "optimizer": "sgd"})

    def fitted(plain: bool) -> tuple[Replica, list[Fitted]]:
        model = faulty_llama(in_company) if faulty else model_of("llama")
        settings = RunnerSettings(recipe=recipe, plain=plain)
        replica = Replica(loaded(model), given, POSITIONS, ["x"], "w", settings=settings)
        task = Task(1, "fit", tuple(places), tuple(blocks_of(given, 24)), seeds=seeds, steps=(0, 3))
        events = replica.do(task)
        assert all(isinstance(event, Fitted) for event in events), events
        return replica, [event for event in events if isinstance(event, Fitted)]

    with caplog.at_level(logging.WARNING, "raysearch"):
        (fast, got), (_, wanted) = fitted(plain=False), fitted(plain=True)
    assert fast.opened.facts.path == "replay"
    assert len(said_in(caplog)) == faulty
    assert (fast.usage().failed_rows > 0) is faulty
    for one, other in zip(got, wanted, strict=True):
        assert one.losses == pytest.approx(other.losses, rel=1e-5)


@pytest.mark.parametrize(
    ("point", "said"),
    [
        (Point(1, "layers.{layer}.0.output"), "at layers.1.0.output)"),
        (Point(1, "residual"), "at residual of layer 1)"),
        (Point(None, "embed.output"), "at embed.output)"),
    ],
)
def test_a_warning_names_the_module_of_its_layer(
    point: Point, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    check = GradientCheck("a network", "replay", torch.float32)
    check.settle(RowKind(point, is_last=False), [Compared(1.0, 1.0)])
    (line,) = said_in(caplog)
    assert said in line


@pytest.mark.parametrize("order", [1, -1])
def test_a_gradient_that_is_no_number_is_wrong_whichever_row_has_it(order: int) -> None:
    check = GradientCheck("a network", "replay", torch.float32)
    check.settle(
        RowKind(Point(0, "residual"), is_last=False),
        [Compared(0.0, 1.0), Compared(math.nan, 1.0)][::order],
    )
    assert check.is_plain


def test_a_fault_in_the_last_row_of_a_batch_is_seen(caplog: pytest.LogCaptureFixture) -> None:
    model = model_of("llama")
    model.model.layers[2].mlp.register_forward_hook(lambda _m, _i, out: DoubledOfLast.apply(out))
    with caplog.at_level(logging.WARNING, "raysearch"):
        got, wanted = step_of(model, trainer(world_of(model), **ONE_STEP), das(3, 1, (1,))[0])
    assert (got - wanted).norm() <= 2e-5 * wanted.norm()
    (said,) = said_in(caplog)
    assert "are not those of one run at a time" in said
