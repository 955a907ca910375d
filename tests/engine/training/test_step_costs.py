"""What a step of training costs besides the model: kernels, decompositions, waits for the device,
and Python for each row. Counted on the CPU, as differences between trainings of two lengths."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import product

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from raysearch.causal import Stimulus
from raysearch.core.events import Encoded
from raysearch.core.fit_keys import FitKeys
from raysearch.core.hypothesis import Intervention, Site, Subspace, Unit
from raysearch.engine.execution.activation_cache import ActivationCache
from raysearch.engine.execution.executors import BatchedExecutor
from raysearch.engine.execution.memory import RowLimit
from raysearch.engine.featurizers.construction import make_untrained
from raysearch.engine.networks.components import Components
from raysearch.engine.networks.tensor_network import TensorNetwork
from raysearch.engine.training.fit_request import FitFault, FitOutcome, FitRequest
from raysearch.engine.training.fit_stack import FitStack
from raysearch.engine.training.trainer import Trainer

WIDTH, CLASSES, PAIRS = 8, 3, 24
STEPS = 4, 9
WAITS = "tolist", "numpy", "cpu", "item", "__bool__", "__int__", "__float__"
"""Methods of a tensor that wait for its device."""

RECIPE = FitKeys().model_copy(
    update={"steps": 20, "batch": 8, "learning_rate": 1e-2, "evaluate": 0, "validation": 0.0}
)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.linear(x))


def mlp(layers: int) -> nn.Sequential:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        blocks = nn.Sequential(*(Block() for _ in range(layers)))
        model = nn.Sequential(blocks, nn.Linear(WIDTH, CLASSES)).requires_grad_(False)
    for parameter in model.parameters():
        parameter.mul_(2)
    return model


def pairs(count: int = PAIRS) -> list[Encoded]:
    both = torch.randn(2, count, WIDTH, generator=torch.Generator().manual_seed(1))
    positions = {"all": (0,)}
    return [
        Encoded(
            *(at, Stimulus.of(base), {"s": Stimulus.of(source)}, positions, {"s": positions}),
            *({"base": (0,)}, {"x": (at % CLASSES,)}),
        )
        for at, (base, source) in enumerate(zip(*both, strict=True))
    ]


def request(subspace: Subspace, layer: int = 0, seed: int = 0) -> FitRequest:
    unit = Unit(Site(layer, "residual", "all"), subspace)
    return FitRequest(Intervention((unit,), variable="x"), seed)


def fit(
    asked: Sequence[FitRequest], layers: int, steps: int, recipe: FitKeys = RECIPE, first: int = 0
) -> list[FitOutcome | FitFault]:
    network = TensorNetwork(mlp(layers), torch.zeros(WIDTH), blocks="0")
    points, given = Components(network), pairs()
    cache = ActivationCache(network, points, RowLimit(64), 0.0, 2**20)
    executor = BatchedExecutor(network, points, cache)
    trainer = Trainer(network, points, executor, cache, recipe, 0.0, RowLimit(512))
    targets = {a.intervention.id: {p.index: p.counterfactual["x"] for p in given} for a in asked}
    return trainer.fit(asked, given, targets, first, steps)


class Kernels(TorchDispatchMode):
    """Counts operations that are no views, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "aten" and not func.is_view:
            self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def counted_waits(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts from now on the calls of `WAITS`, by name."""
    seen: Counter[str] = Counter()
    for name in WAITS:
        original = getattr(Tensor, name)

        def waiting(self, *args, _name=name, _original=original, **more):
            seen[_name] += 1
            return _original(self, *args, **more)

        monkeypatch.setattr(Tensor, name, waiting)
    return seen


def per_step(count: Callable[[int], Counter[str]]) -> Counter[str]:
    """What a step adds, from trainings of two lengths."""
    short, long = (count(steps) for steps in STEPS)
    added, steps = Counter(long), STEPS[1] - STEPS[0]
    added.subtract(short)
    assert all(n % steps == 0 for n in added.values()), added
    return Counter({name: n // steps for name, n in added.items() if n})


def kernels(asked: Sequence[FitRequest], layers: int) -> Counter[str]:
    def count(steps: int) -> Counter[str]:
        with Kernels() as seen:
            fit(asked, layers, steps)
        return seen.counts

    return per_step(count)


def das(*sizes: int, seeds: int = 1, layers: Sequence[int] = (0,)) -> list[FitRequest]:
    every = product(sizes, range(seeds), layers)
    return [request(Subspace("das", size), layer, seed) for size, seed, layer in every]


def test_kernels_of_a_step_grow_with_layers_and_shapes_and_not_with_fits() -> None:
    one, of_a_layer = kernels(das(2), 2).total(), 4  # a linear map and a ReLU, there and back
    assert one <= 75
    for layers, fits in product((2, 5), (1, 9)):
        found = kernels(das(2, seeds=fits), layers).total()
        assert found == one + of_a_layer * (layers - 2)
    of_a_shape = kernels(das(2, 3), 2).total() - one
    assert kernels(das(1, 2, 3, 4, seeds=3), 2).total() <= one + 3 * of_a_shape
    assert of_a_shape <= 48


@pytest.mark.parametrize(("sizes", "seeds"), [((2,), 1), ((2,), 7), ((1, 2, 5), 4)])
def test_a_step_has_one_qr_for_each_shape(sizes: tuple[int, ...], seeds: int) -> None:
    assert kernels(das(*sizes, seeds=seeds, layers=(0, 1)), 2)["linalg_qr"] == len(sizes)


KINDS = (
    Subspace("das", 3),
    Subspace("boundless"),
    Subspace("boundless_rank", 3),
    Subspace("mask"),
    Subspace("mask", 3, basis="pca"),
)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_a_step_waits_for_no_device(optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [request(kind, layer, seed) for kind, layer, seed in product(KINDS, (0, 1), (0, 1))]
    recipe = RECIPE.model_copy(update={"optimizer": optimizer})
    seen = counted_waits(monkeypatch)

    def count(steps: int) -> Counter[str]:
        seen.clear()
        with Kernels() as found:
            assert all(isinstance(one, FitOutcome) for one in fit(asked, 2, steps, recipe))
        waits = {n: found.counts[n] for n in ("_local_scalar_dense", "nonzero", "masked_select")}
        return seen + Counter(waits)

    assert not per_step(count)
    assert count(STEPS[0])["tolist"], "results are read, and that is seen"


def test_python_calls_of_a_step_do_not_grow_with_rows_or_fits() -> None:
    """Batches are of all pairs, so that no order is drawn."""

    def calls(fits: int, batch: int) -> int:
        recipe = RECIPE.model_copy(update={"batch": batch})

        def count(steps: int) -> Counter[str]:
            counted: Counter[str] = Counter()
            sys.setprofile(lambda _frame, event, _what: counted.update([event]))
            try:
                fit(das(2, seeds=fits), 2, steps, recipe)
            finally:
                sys.setprofile(None)
            return Counter(calls=counted["call"] + counted["c_call"])

        short, long = (count(steps)["calls"] for steps in STEPS)
        return (long - short) // (STEPS[1] - STEPS[0])

    calls(1, PAIRS)
    one = calls(1, PAIRS)
    assert calls(12, PAIRS) <= 1.1 * one


@contextmanager
def failing(monkeypatch: pytest.MonkeyPatch, seed: int) -> Iterator[None]:
    """A fit of `seed` makes its stack fail before its step."""
    original = FitStack.interchange

    def interchange(self, *args):
        if any(one.request.seed == seed for one in self.fits.values()):
            raise RuntimeError("no such luck")
        return original(self, *args)

    with monkeypatch.context() as patched:
        patched.setattr(FitStack, "interchange", interchange)
        yield


def test_a_fit_that_makes_its_stack_fail_takes_nobody_with_it(monkeypatch) -> None:
    asked = das(2, seeds=3)
    whole = fit(asked, 2, 5)
    with failing(monkeypatch, seed=1):
        first, bad, last = fit(asked, 2, 5)
    assert isinstance(bad, FitFault)
    assert str(bad.error) == "no such luck"
    for found, wanted in ((first, whole[0]), (last, whole[2])):
        assert isinstance(found, FitOutcome)
        assert isinstance(wanted, FitOutcome)
        assert found.step == wanted.step == 5
        assert torch.allclose(raw(found), raw(wanted), atol=1e-5)


def raw(found: FitOutcome) -> Tensor:
    return parameters(found)["raw"]


def parameters(found: FitOutcome) -> dict[str, Tensor]:
    saved = safetensors.torch.load(found.state)
    return {n.removeprefix("featurizer."): t for n, t in saved.items() if "featurizer." in n}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.featurizer}-{kind.basis}")
@pytest.mark.parametrize("layer", [0, 2])
def test_a_step_of_stacked_fits_follows_the_gradient_by_plain_autograd(kind, layer) -> None:
    seeds, rate, given = range(3), 0.1, pairs()
    changes = {"optimizer": "sgd", "learning_rate": rate, "boundary_learning_rate": rate}
    recipe = RECIPE.model_copy(
        update={**changes, "batch": PAIRS, "steps": 1, "schedule": "constant", "warmup": 0.0}
    )
    model = mlp(3)
    base, source = (
        model[0][: layer + 1](torch.stack([rows(p) for p in given]))
        for rows in (lambda p: tensor(p.base), lambda p: tensor(p.sources["s"]))
    )
    found = fit([request(kind, layer, seed) for seed in seeds], 3, 1, recipe)
    wanted_ids = torch.tensor([p.counterfactual["x"][0] for p in given])
    for seed, one in zip(seeds, found, strict=True):
        assert isinstance(one, FitOutcome), one
        generator = torch.Generator().manual_seed(seed)
        both = torch.cat((base, source))
        featurizer = make_untrained(kind, WIDTH, generator, activations=both)
        logits = model[1](model[0][layer + 1 :](featurizer.interchange(base, source)))
        loss = functional.cross_entropy(logits, wanted_ids) + featurizer.penalty()
        names, begun = zip(*featurizer.named_parameters(), strict=True)
        after = parameters(one)
        for name, before, gradient in zip(
            names, begun, torch.autograd.grad(loss, begun), strict=True
        ):
            got = (before.detach() - after[name]) / rate
            assert (got - gradient).norm() <= 1e-4 * gradient.norm() + 2e-6, name


def tensor(given: Stimulus) -> Tensor:
    return torch.frombuffer(bytearray(given.data), dtype=torch.float32).view(given.shape)


def test_a_fit_goes_on_from_what_its_stack_left_as_if_it_had_never_been_in_one() -> None:
    asked = das(2, seeds=3)
    half, through = fit(asked, 2, 4)[1], fit(asked, 2, 7)[1]
    assert isinstance(half, FitOutcome)
    assert isinstance(through, FitOutcome)
    (alone,) = fit([replace(asked[1], state=half.state)], 2, 7, first=4)
    assert isinstance(alone, FitOutcome)
    assert torch.allclose(raw(alone), raw(through), atol=1e-5)
