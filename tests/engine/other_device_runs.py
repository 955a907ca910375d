"""What is run on the other device and on the CPU, and told as JSON; in a process of its own.

    python -m tests.engine.other_device_runs RUN ...

A line for each run: {"run", "warned", "cpu", "other"}, what events say on both devices; of a run
that counts, "other" alone: by name, for each size, what was found there as [kind, place, count].
"""

import importlib.util
import json
import logging
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import torch

from raysearch import Pair
from raysearch.causal import ONE_SOURCE
from raysearch.core.controls import with_control
from raysearch.core.events import (
    Attributed,
    Block,
    Encoded,
    Event,
    Failed,
    Fitted,
    Measured,
    Screened,
    Seed,
    Task,
)
from raysearch.core.fit_keys import FitKeys
from raysearch.core.hypothesis import Intervention, Site, Subspace, Unit
from raysearch.core.lease import Lease, LeasedTest
from raysearch.core.model_source import ModelSource
from raysearch.core.option_names import SCORES
from raysearch.core.prompt_format import PromptFormat
from raysearch.core.runner_settings import RunnerSettings
from raysearch.engine.execution.evaluate_swaps import TRIED
from raysearch.engine.loading import load
from raysearch.engine.loading.loaded_model import LoadedModel
from raysearch.engine.networks.components import Components
from raysearch.engine.networks.network import Encoder, LanguageModel
from raysearch.engine.networks.tensor_network import TensorNetwork
from raysearch.engine.patching.generate import Sampling, generate
from raysearch.engine.patching.rows import swap
from raysearch.engine.replica import Replica
from tests.engine import other_device
from tests.engine.execution import test_tensor_executor as tensors
from tests.engine.test_replica import _EndsAfter
from tests.engine.worlds import POSITIONS, blocks_of, model_of, random_pairs, word_tokenizer

CPU = torch.device("cpu")
COMPONENTS = "residual", "mlp_output", "attention_output", "head", "query", "key", "value"
NOTHING = FitKeys().model_copy(update={"evaluate": 0, "validation": 0.0})
RECIPE = FitKeys(steps=8, batch=4, learning_rate=1e-2, validation=0.25, evaluate=2)
CONTROLS = "self_swap", "random_source", "placebo"
TRAINED = (
    Subspace("das", 3),
    Subspace("boundless"),
    Subspace("boundless_rank", 3),
    Subspace("mask"),
    Subspace("mask", 3, basis="pca"),
)
CLOSED = Subspace("pca", 2), Subspace("svd", 2), Subspace("mean_difference")
STEPS = 2, 4
"""Steps of two trainings whose difference is counted."""
SIZES = 6, 36
"""Pairs of two waves, or of the steps of two trainings, that are counted."""

Run = Callable[[torch.device], Any]


def unit(layer: int, component: str = "residual", position: str = "here", **more: Any) -> Unit:
    head = 1 if component in ("head", "query", "key", "value") else None
    return Unit(Site(layer, component, position, head), **more)


def interventions() -> list[Intervention]:
    """One of each kind that a search makes without fitting."""
    coordinates = Subspace(coordinates=(1, 2, 5))
    one = Intervention((unit(1),))
    return [
        *(Intervention((unit(layer, position=at),)) for layer in (0, 2) for at in POSITIONS),
        *(Intervention((unit(1, component),)) for component in COMPONENTS),
        Intervention((unit(0), unit(1, "mlp_output", "last"), unit(1, "head", "last"))),
        Intervention((unit(2, position="first"), unit(2, position="last"))),
        Intervention((unit(1, source_site=Site(0, "residual", "here")),)),
        *(Intervention((unit(1, of, subspace=coordinates),)) for of in ("residual", "head")),
        *(Intervention((unit(at, subspace=Subspace("random", 2)),)) for at in (0, 2)),
        *(Intervention((unit(1, of),), kind) for of in ("residual", "query") for kind in ABLATIONS),
        Intervention((unit(1, subspace=coordinates),), "mean"),
        *(with_control(one, name) for name in CONTROLS),
    ]


ABLATIONS = "zero", "mean", "resample"


def replica_on(
    device: torch.device,
    pairs: Sequence[Pair],
    family: str,
    dtype: str = "float32",
    answer: int = 1,
    components: Sequence[str] = COMPONENTS,
    **settings: Any,
) -> Replica:
    """A replica whose answers have so many tokens; its model is not remembered."""
    model = model_of(family).to(getattr(torch, dtype)).to(device)
    pairs = tuple(replace(p, counterfactual={"x": p.answers[ONE_SOURCE] * answer}) for p in pairs)
    wording = PromptFormat(compare="sequence") if answer > 1 else PromptFormat()
    loaded = LoadedModel(model, word_tokenizer(), "", dtype, wording)
    positions, own = (*POSITIONS, "last"), RunnerSettings(**settings)
    return Replica(loaded, pairs, positions, ["x"], "w", settings=own, components=components)


def told(events: Sequence[Event]) -> list[Any]:
    """What events say of results. Raises: AssertionError for a failure."""
    return [_told(event) for event in events]


def _told(event: Event) -> Any:
    assert not isinstance(event, Failed), f"{event.error_type}: {event.message}"
    if isinstance(event, Measured):
        return [event.intervention, event.block, event.outputs, event.scores, event.stopped]
    if isinstance(event, Fitted):
        losses = [event.losses, event.validation_loss, event.found]
        return [event.intervention, event.seed, event.iias, event.steps, losses]
    if isinstance(event, Attributed):
        return [event.effects]
    assert isinstance(event, Screened)
    return [event.base, event.sources, event.scores]


def done(replica: Replica, kind: str, pairs: Sequence[Any], *asked: Any, **more: Any) -> Any:
    blocks = (Block("test", 0, tuple(pair.index for pair in pairs)),)
    return told(replica.do(Task(1, kind, tuple(asked), blocks, **more)))


def swaps(family: str, dtype: str, device: torch.device) -> Any:
    """Screening, swaps of every kind with all scores, attribution, a lease."""
    pairs = random_pairs(1, 12, shortest=4, longest=6)
    replica = replica_on(device, pairs, family, dtype, scores=tuple(SCORES), tokens="auto")
    tests = tuple((LeasedTest("x", 0, 0, _EndsAfter(at)),) for at in (1, 5, 99))
    lease = Lease(tests, unfiltered=True, step=12, rows=10**6, seconds=1e9)
    leased = Task(1, "measure", tuple(interventions()[:3]), blocks_of(pairs, 4), lease=lease)
    units = tuple(unit(layer, of) for layer in (0, 2) for of in COMPONENTS)
    return {
        "path": replica.opened.facts.path,
        "screened": done(replica, "screen", pairs),
        "measured": done(replica, "measure", pairs, *interventions()),
        "leased": told(replica.do(leased)),
        "attributed": done(replica, "attribute", pairs, units=units),
        "failed": replica.usage().failed_rows,
    }


def sequences(family: str, dtype: str, device: torch.device) -> Any:
    """Answers of three tokens, twice: first both ways of further tokens are tried."""
    pairs = random_pairs(2, 18, shortest=5, longest=5)
    replica = replica_on(device, pairs, family, dtype, answer=3, components=("residual", "head"))
    asked = [Intervention((unit(at, of),)) for at in (0, 1, 2) for of in ("residual", "head")]
    measured = [done(replica, "measure", pairs, *some) for some in (asked[:4], asked[3:])]
    failed = replica.usage().failed_rows
    return {"path": replica.opened.facts.path, "measured": measured, "failed": failed}


def fits(family: str, dtype: str, device: torch.device) -> Any:
    """Training of every kind with two seeds, in two stretches with a state between; what was found,
    measured."""
    pairs = random_pairs(3, 16, shortest=4, longest=5)
    replica = replica_on(device, pairs, family, dtype, components=("residual",), recipe=RECIPE)
    asked = [Intervention((unit(1, subspace=of),), variable="x") for of in (*TRAINED, *CLOSED)]
    found, states, tensors_of = [], {}, {}
    for first, last in ((0, 5), (5, RECIPE.steps)):
        seeds = tuple(
            Seed(of, at, states.get((of.id, at)))
            for of in asked
            for at in ((0, 1) if of.units[0].subspace in TRAINED else (0,))
            if not states or (of.id, at) in states
        )
        block = Block("fit", 0, tuple(p.index for p in pairs))
        task = Task(1, "fit", tuple({s.intervention: 0 for s in seeds}), (block,), seeds=seeds)
        events = replica.do(replace(task, steps=(first, last)), tensors_of)
        found.append(told(events))
        of_seeds = [event for event in events if isinstance(event, Fitted)]
        states = {(e.intervention, e.seed): e.state for e in of_seeds if e.state is not None}
        tensors_of |= {digest: of for event in of_seeds for digest, of in event.tensors.items()}
        fit_of = {e.intervention: e.fit for e in of_seeds}
        measured = tuple(replace(of, fit=fit_of[of.id]) for of in asked if of.id in fit_of)
        some = (Block("test", 0, tuple(p.index for p in pairs[:8])),)
        events = replica.do(Task(2, "measure", measured, some), tensors_of)
        found.append([event.outputs for event in events if isinstance(event, Measured)])
        assert len(found[-1]) == len(measured), events
    failed = replica.usage().failed_rows
    return {"path": replica.opened.facts.path, "fits": found, "failed": failed}


def generation(family: str, dtype: str, device: torch.device) -> Any:
    """Greedy, sampled, and with a patch on every new token."""
    model = model_of(family).to(getattr(torch, dtype)).to(device)
    model.generation_config.eos_token_id = None
    network = LanguageModel(model)
    row, points = swap((4, 5, 6, 7), (9, 8, 7, 6), 1, (3,)), Components(network)
    ways = [{}, {"every": True}, {"sampling": Sampling(seed=1, temperature=0.7)}]
    return [generate(network, points, row, 5, **way) for way in ways]


class _OnDevice(tensors.Drawn):
    """A network on tensors that is moved to a device."""

    device = CPU

    def open(self, pairs: Sequence[Pair]) -> tuple[TensorNetwork, Encoder]:
        network, encode = super().open(pairs)
        blocks = "" if self.kind == "mlp" else None
        example = torch.zeros(tensors.SHAPES[self.kind], device=self.device)
        return TensorNetwork(network.module.to(self.device), example, blocks), encode


def tensor_replica(kind: str, pairs: int, device: torch.device, **settings: Any) -> Replica:
    encoded = tensors.drawn(kind, pairs).encoded
    if kind != "mlp":
        at = {**encoded[0].base_positions, "both": (0, 2)}
        of_sources = {ONE_SOURCE: at}
        encoded = tuple(replace(e, base_positions=at, source_positions=of_sources) for e in encoded)
    world = _OnDevice(kind, encoded)
    object.__setattr__(world, "device", device)
    return tensors.replica_of(world, rows=1000, **settings)


def tensor_interventions(kind: str) -> list[Intervention]:
    """Those of the tests of networks on tensors; and of two time steps, or patches, as one unit."""
    both = [Intervention((unit(0, position="both"),))] if kind != "mlp" else []
    return tensors.interventions(kind) + both


def of_tensors(kind: str, device: torch.device) -> Any:
    """Swaps and attribution of a network on tensors; training where its layers are no steps."""
    replica = tensor_replica(kind, 12, device, recipe=RECIPE)
    asked = tensor_interventions(kind)
    pairs, units = replica.opened.encoded, tuple(of.units[0] for of in asked[:2])
    found = {
        "path": replica.opened.facts.path,
        "measured": done(replica, "measure", pairs, *asked),
        "attributed": done(replica, "attribute", pairs, units=units),
        "failed": replica.usage().failed_rows,
    }
    if kind != "gru":
        site = replace(units[0].site, layer=1)
        fit = Intervention((Unit(site, Subspace("das", 2)),), variable="x")
        seeds = (Seed(fit, 0), Seed(fit, 1))
        found["fits"] = done(replica, "fit", pairs, fit, seeds=seeds, steps=(0, RECIPE.steps))
    return found


def counted(do: Callable[[], object]) -> Counter[tuple[str, str]]:
    other_device.found.clear()
    do()
    return Counter(other_device.found)


def without_near_ties(replica: Replica) -> Replica:
    """A replica none of whose rows is decided again."""
    replica._runner.near_tie = replica._runner.evaluator.near_tie = 0.0
    replica._runner.cache.set_tolerance(0.0)
    return replica


WAVES = {
    "whole": Intervention((unit(0, position="last"),)),
    "coordinates": Intervention((unit(0, "head", "last", subspace=Subspace(coordinates=(1, 5))),)),
    "units": Intervention((unit(0, position="last"), unit(2, "mlp_output", "last"))),
    "random": Intervention((unit(0, position="last", subspace=Subspace("random", 2)),)),
    "zero": Intervention((unit(0, position="last"),), "zero"),
    "mean": Intervention((unit(0, position="last"),), "mean"),
    "mean of coordinates": Intervention(
        (unit(0, position="last", subspace=Subspace(coordinates=(1, 5))),), "mean"
    ),
    "placebo": with_control(Intervention((unit(0, position="last"),)), "placebo"),
}


def waves(device: torch.device) -> Any:
    """Of one wave of each kind, whose runs are there, what is counted; with so many pairs."""
    found: dict[str, list[Any]] = {}
    pairs = random_pairs(3, max(SIZES), shortest=7, longest=7)
    of_wave = partial(replica_on, device, pairs, "llama", rows=1000)
    replica = without_near_ties(of_wave(components=("residual", "head", "mlp_output")))
    one = {"whole": WAVES["whole"]}
    for choices in ("", "choices, ", "uneven choices, "):
        replica._pairs = {at: _among(p, choices) for at, p in replica._pairs.items()}
        replica._builders.clear()
        _count_waves(found, replica, pairs, one if choices else WAVES, choices)
    of_wave = partial(replica_on, device, pairs, "gpt2", rows=1000)
    scored = without_near_ties(of_wave(components=("residual",), scores=tuple(SCORES)))
    _count_waves(found, scored, pairs, one, "scores, ")
    several = without_near_ties(of_wave(components=("residual",), answer=3))
    for _ in range(1 + TRIED // len(pairs)):  # both ways of further tokens are tried
        done(several, "measure", pairs, *one.values())
    _count_waves(found, several, pairs, one, "three tokens, ")
    return found


def _among(pair: Encoded, choices: str) -> Encoded:
    given = {"": (), "choices, ": (1, 2, 3), "uneven choices, ": (1, 2, 3)[pair.index % 2 :]}
    return replace(pair, choices=given[choices])


def _count_waves(
    found: dict[str, list[Any]],
    replica: Replica,
    pairs: Sequence[Any],
    asked: Mapping[str, Intervention],
    prefix: str = "",
) -> None:
    """Adds to `found` what a wave of each intervention counts, after one that makes the runs."""
    done(replica, "measure", pairs, *asked.values())
    for (name, one), size in product(asked.items(), SIZES):
        counts = counted(partial(done, replica, "measure", pairs[:size], one))
        found.setdefault(prefix + name, []).append(listed(counts))


def tensor_waves(device: torch.device) -> Any:
    """As `waves`, of a multilayer perceptron and a recurrent network."""
    found: dict[str, list[Any]] = {}
    for kind in ("mlp", "gru"):
        replica = without_near_ties(tensor_replica(kind, max(SIZES), device))
        asked = {
            f"{at} {of.control or of.kind}": of
            for at, of in enumerate(tensor_interventions(kind))
            if of.control != "self_swap"  # nothing is run
        }
        _count_waves(found, replica, replica.opened.encoded, asked, f"{kind} ")
    return found


def steps(device: torch.device) -> Any:
    """What a few steps of all kinds of training add, with so many pairs in a batch."""
    found: dict[str, list[Any]] = {}
    recipe = NOTHING.model_copy(update={"steps": 20, "batch": max(SIZES)})
    pairs = random_pairs(3, max(SIZES), shortest=5, longest=5)
    settings = {"components": ("residual",), "recipe": recipe, "rows": 1000}
    for kind, replica in (
        ("gpt2", replica_on(device, pairs, "gpt2", **settings)),
        ("mlp", tensor_replica("mlp", len(pairs), device, recipe=recipe)),
    ):
        asked = [
            Intervention((Unit(Site(at % 2, "residual", "last"), of),), variable="x")
            for at, of in enumerate(TRAINED)
        ]
        seeds = tuple(Seed(of, at) for of, at in product(asked, (0, 1)))
        for size in SIZES:
            some = replica.opened.encoded[:size]
            fit = partial(done, replica, "fit", some, *asked, seeds=seeds)
            fit(steps=(0, STEPS[0]))
            short, long = (counted(partial(fit, steps=(0, last))) for last in STEPS)
            found.setdefault(kind, []).append(listed(long - short))
    return found


def looks(device: torch.device) -> Any:
    """What a fit with validation, every second of whose pairs has its base as its source, and an
    attribution count, with so many pairs."""
    found: dict[str, list[Any]] = {}
    for size in SIZES:
        pairs = tuple(
            replace(p, sources={ONE_SOURCE: p.base}) if p.index % 2 else p
            for p in random_pairs(3, size, shortest=5, longest=5)
        )
        recipe = NOTHING.model_copy(update={"steps": 2, "validation": 0.5, "evaluate": 2})
        settings = {"components": ("residual",), "recipe": recipe, "rows": 1000}
        replica = without_near_ties(replica_on(device, pairs, "gpt2", **settings))
        asked = [Intervention((unit(0, position="last", subspace=TRAINED[0]),), variable="x")]
        seeds = tuple(Seed(of, at) for of, at in product(asked, (0, 1)))
        fit = partial(done, replica, "fit", pairs, *asked, seeds=seeds, steps=(0, 2))
        units = tuple(unit(layer, position=at) for layer, at in product((0, 1), POSITIONS))
        attribution = partial(done, replica, "attribute", pairs, units=units)
        for name, do in (("fit", fit), ("attribution", attribution)):
            found.setdefault(name, []).append(listed(counted(do)))
    return found


def loading(device: torch.device) -> Any:
    """A model that is loaded onto the device, with accelerate and without it: where its weights are,
    what they sum to, and how often a module was moved."""
    found: dict[str, Any] = {}
    to, find_spec = torch.nn.Module.to, importlib.util.find_spec
    for name, is_there in (("straight", True), ("moved", False)):
        with TemporaryDirectory() as folder:
            model_of("llama").save_pretrained(folder)
            word_tokenizer().save_pretrained(folder)
            with (
                patch.object(torch.nn.Module, "to", autospec=True, side_effect=to) as moves,
                patch.object(load, "find_spec", find_spec if is_there else lambda _: None),
            ):
                model = load.load(ModelSource(folder, dtype="float32"), str(device)).model
        weights = list(model.parameters())
        found[name] = {
            "devices": sorted({str(of.device) for of in (*weights, *model.buffers())}),
            "sum": sum(float(weight.double().sum()) for weight in weights),
            "moves": moves.call_count,
        }
    return found


def rules(device: torch.device) -> Any:
    """What the device itself does with a tensor there and one of the CPU: what is counted, or the
    error."""
    there, here = torch.arange(6.0, device=device).view(2, 3), torch.ones(2, 3)
    rows = torch.tensor([1, 0])
    does: dict[str, Callable[[], object]] = {
        "add": lambda: there + here,
        "write": lambda: there.clone().index_copy_(0, rows.to(device), here),
        "numpy": lambda: there.numpy(),
        "number": lambda: there + torch.tensor(2.0),
        "item": lambda: float(there.sum()),
        "if": lambda: bool(there.any()),
        "tolist": lambda: there.tolist(),
        "to the CPU": lambda: there.cpu(),
        "copy to the CPU": lambda: here.clone().copy_(there),
        "to the device": lambda: here.to(device),
        "tensor": lambda: torch.tensor([1, 2], device=device),
        "not waiting": lambda: here.to(device, non_blocking=True),
        "list": lambda: there[[1, 0]],
        "write at a list": lambda: there.clone().__setitem__([0], 1.0),
        "index": lambda: there[rows],
        "index there": lambda: there[rows.to(device, non_blocking=True)],
        "mask": lambda: there[there > 2],
        "nonzero": lambda: there.nonzero(),
        "equal": lambda: torch.equal(there, there),
        "slice": lambda: there[:, 1:].sum(0).sigmoid().view(-1),
    }
    return {name: _outcome(do) for name, do in does.items()}


def _outcome(do: Callable[[], object]) -> list[str]:
    other_device.found.clear()
    try:
        do()
    except (RuntimeError, TypeError) as error:
        return [type(error).__name__]
    return sorted(kind for kind, _ in other_device.found)


def listed(counts: Counter[tuple[str, str]]) -> list[tuple[str, str, int]]:
    return [(*key, count) for key, count in sorted(counts.items())]


RUNS: dict[str, Run] = {
    **{f"tensors {kind}": lambda at, kind=kind: of_tensors(kind, at) for kind in tensors.KINDS},
    **{
        f"{run.__name__} {family} {dtype}": (
            lambda at, run=run, family=family, dtype=dtype: run(family, dtype, at)
        )
        for run in (swaps, sequences, fits, generation)
        for family in ("llama", "gpt2", "gemma2")
        for dtype in ("float32", "bfloat16")
    },
}
COUNTED: dict[str, Run] = {
    "waves": waves,
    "tensor waves": tensor_waves,
    "steps": steps,
    "looks": looks,
    "loading": loading,
    "rules": rules,
}


class _Warnings(logging.Handler):
    """Keeps what is warned of: a wave that fails, a batch whose gradients are off."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(record.getMessage())


def main(names: Sequence[str]) -> None:
    torch.set_num_threads(1)
    warnings = _Warnings()
    logging.getLogger("raysearch").addHandler(warnings)
    for name in names:
        warnings.seen = []
        line: dict[str, Any] = {"run": name, "warned": warnings.seen}
        try:
            if name in RUNS:
                line["cpu"] = RUNS[name](CPU)
            with other_device.in_use():
                line["other"] = (RUNS | COUNTED)[name](other_device.DEVICE)
        except Exception:  # noqa: BLE001  told, so that the other runs are made
            line["error"] = traceback.format_exc()
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
