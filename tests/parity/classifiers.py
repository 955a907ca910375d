"""Classifiers on tensors, pyvene's and ours: an MLP of one class, a GRU of two with the same
weights; units of theirs, and hooks.

Invariants: pyvene is given copies, since it writes in place, also into what it is given.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from raysearch.causal import Stimulus
from raysearch.core.events import Ids
from raysearch.engine.networks.components import Components
from raysearch.engine.networks.point import Point
from raysearch.engine.networks.tensor_network import TensorNetwork
from raysearch.engine.patching.operations import (
    Collect,
    Interchange,
    Operation,
    Zero,
)
from raysearch.engine.patching.oracle import collect
from raysearch.engine.patching.rows import FeatureIndices, Patch, Row, Source
from tests.parity.sides import Name, Ours, pyvene

modelings_mlp = pyvene.models.mlp.modelings_mlp

LAYERS, WIDTH, CLASSES, STEPS, LONGER = 3, 12, 4, 4, 6
KINDS: dict[str, tuple[Operation, type]] = {
    "interchange": (Interchange(), pyvene.VanillaIntervention),
    "zero": (Zero(), pyvene.ZeroIntervention),
}
ALL = tuple(range(STEPS))


class OnTensors(modelings_mlp.MLPForClassification):  # type: ignore[misc, name-defined]
    """Takes the tensor first in line; otherwise pyvene's."""

    def forward(self, given: Tensor) -> Any:
        return super().forward(inputs_embeds=given)


class Recurrent(nn.Module):
    """Torch's GRU with the weights of pyvene's, and its classes."""

    def __init__(self, theirs: nn.Module) -> None:
        super().__init__()
        self.gru = nn.GRU(WIDTH, WIDTH, LAYERS, batch_first=True)
        self.score = theirs.score
        with torch.no_grad():
            for layer, cell in enumerate(theirs.gru.cells):
                for ours, given in (("ih", cell.x2h), ("hh", cell.h2h)):
                    getattr(self.gru, f"weight_{ours}_l{layer}").copy_(given.weight)
                    getattr(self.gru, f"bias_{ours}_l{layer}").copy_(given.bias)

    def forward(self, given: Tensor) -> Tensor:
        return self.score(self.gru(given)[0][:, -1])


@dataclass(frozen=True, slots=True)
class Unit:
    """At `tokens` of the base, lent from `lent` of `source`."""

    name: Name
    layer: int
    source: Tensor
    tokens: Ids = (0,)
    lent: Ids = (0,)
    features: FeatureIndices = None
    what: str = "interchange"

    def patch(self, run: Row | None = None) -> Patch:
        kind, point = KINDS[self.what][0], Point(self.layer, self.name.ours)
        lent = (Source(run or Row(Stimulus.of(self.source)), point, self.lent, self.features),)
        return Patch(point, self.tokens, lent if kind.reads_source else (), kind, self.features)

    def representation(self, unit: str = "pos", intervention: type | None = None) -> dict[str, Any]:
        component, kind = (
            self.name.theirs.format(layer=self.layer),
            intervention or KINDS[self.what][1],
        )
        return {
            "layer": self.layer,
            "component": component,
            "unit": unit,
            "intervention_type": kind,
        }

    @property
    def subspace(self) -> list[list[int]] | None:
        return None if self.features is None else [list(self.features)]


@cache
def mlp() -> nn.Module:
    """pyvene's, for pyvene."""
    return _mlp(modelings_mlp.MLPForClassification)


@cache
def our_mlp() -> Ours:
    network = TensorNetwork(_mlp(OnTensors), torch.zeros(1, WIDTH), blocks="mlp.h")
    return Ours(network, Components(network))


@cache
def gru() -> nn.Module:
    """pyvene's, for pyvene."""
    config = pyvene.GRUConfig(h_dim=WIDTH, n_layer=LAYERS, n_labels=CLASSES, pdrop=0.0)
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        _, _, model = pyvene.create_gru_classifier(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    return model.eval().requires_grad_(False)


@cache
def our_gru() -> Ours:
    network = TensorNetwork(
        Recurrent(gru()).eval().requires_grad_(False), torch.zeros(STEPS, WIDTH)
    )
    return Ours(network, Components(network))


def inputs(seed: object, *lengths: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(random.Random(f"{seed}.inputs").randrange(2**31))
    return [torch.randn(length, WIDTH, generator=generator) for length in lengths]


def row(base: Tensor, *units: Unit) -> Row:
    return Row(Stimulus.of(base), tuple(unit.patch() for unit in units))


def theirs(
    model: nn.Module,
    base: Tensor,
    units: Sequence[Unit],
    locations: Mapping[str, Any] | None = None,
    mode: str = "parallel",
) -> Tensor:
    """pyvene's class logits. It writes in place, also into what it is given: so it gets copies."""
    unit = "t" if model is gru() else "pos"
    lent = [[list(u.lent)] for u in units]
    config = pyvene.IntervenableConfig([u.representation(unit) for u in units], mode=mode)
    with torch.inference_mode():
        _, out = pyvene.IntervenableModel(config, model)(
            {"inputs_embeds": base[None].clone()},
            [
                {"inputs_embeds": u.source[None].clone()} if u.what != "zero" else None
                for u in units
            ],
            locations or {"sources->base": (lent, [[list(u.tokens)] for u in units])},
            subspaces=[u.subspace for u in units],
        )
    return out[0][0]


def collected_by_pyvene(model: nn.Module, base: Tensor, unit: Unit) -> list[Tensor]:
    """Of each firing, (1, token, feature), or (1, feature) in a GRU."""
    representation = unit.representation(
        "t" if model is gru() else "pos", pyvene.CollectIntervention
    )
    with torch.inference_mode():
        (_, seen), _ = pyvene.IntervenableModel(pyvene.IntervenableConfig([representation]), model)(
            {"inputs_embeds": base[None].clone()},
            [None],
            {"sources->base": (None, [[list(unit.tokens)]])},
            subspaces=[unit.subspace],
        )
    return seen


def collected_by_us(side: Ours, base: Tensor, unit: Unit) -> Tensor:
    reads = Patch(Point(unit.layer, unit.name.ours), unit.tokens, (), Collect(), unit.features)
    (got,) = collect(side.network, side.taps, Row(Stimulus.of(base), (reads,)))
    return got


def by_hand(base: Tensor, unit: Unit, put: Callable[[int], Tensor]) -> Tensor:
    """What pyvene's model says, where a plain hook puts something in at the unit's steps."""
    step = iter(range(len(base)))

    def hook(_module: nn.Module, _args: Any, out: Tensor) -> Tensor | None:
        now = next(step)
        if now not in unit.tokens:
            return None
        new = out.clone()
        columns = slice(None) if unit.features is None else list(unit.features)
        new[:, columns] = put(now)
        return new

    return hooked(base, unit.layer, hook)


def by_hand_collected(source: Tensor, layer: int) -> list[Tensor]:
    seen: list[Tensor] = []

    def hook(_module: nn.Module, _args: Any, out: Tensor) -> None:
        seen.append(out.clone())

    hooked(source, layer, hook)
    return seen


def given_to(run: Tensor, layer: int) -> list[Tensor]:
    """What the layer is given at each step."""
    seen: list[Tensor] = []
    hooked(run, layer, lambda _, args: seen.append(args[0].clone()), True)
    return seen


def hooked(given: Tensor, layer: int, hook: Callable[..., Any], before: bool = False) -> Tensor:
    """What pyvene's GRU says with the hook on that layer's cell: on what it puts out, or before it."""
    cell = gru().gru.cells[layer]
    handle = cell.register_forward_pre_hook(hook) if before else cell.register_forward_hook(hook)
    try:
        with torch.inference_mode():
            return gru()(inputs_embeds=given[None].clone())[0][0]
    finally:
        handle.remove()


def _mlp(kind: type) -> nn.Module:
    config = modelings_mlp.MLPConfig(h_dim=WIDTH, n_layer=LAYERS, num_classes=CLASSES, pdrop=0.0)
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model = kind(config)
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.6)
    return model.eval().requires_grad_(False)
