"""The two sides of a comparison: raysearch, by its oracle and by replay, and pyvene 0.1.8.

Invariants: pyvene has a model object of its own, since it deletes every forward hook of the model
that it wraps; both sides have the same random weights and eager attention; each comparison is shown
to be about something: the interventions move the logits.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any

import pyvene
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from raysearch.core.events import Ids
from raysearch.engine.execution.activation_cache import ActivationCache
from raysearch.engine.execution.executors import BatchedExecutor
from raysearch.engine.execution.memory import RowLimit
from raysearch.engine.execution.replay_executor import ReplayExecutor
from raysearch.engine.networks.components import Components
from raysearch.engine.networks.network import LanguageModel, Network
from raysearch.engine.networks.point import Point
from raysearch.engine.patching.operations import Interchange, Operation
from raysearch.engine.patching.oracle import oracle
from raysearch.engine.patching.rows import FeatureIndices, Patch, Row, Source
from tests.engine.worlds import CONFIGS, VOCAB, model_from

TOLERANCE = 1e-4
"""Logits, absolute. They are of the order of 10 in these models."""

HEAD_WIDTH = 8
"""Of all families."""

INTERCHANGE = Interchange()

FAMILIES = ("gpt2", "llama", "gpt_neox", "mistral", "gemma2", "qwen2")
"""Families of `worlds` that pyvene has a table for. All but GPT-2 and GPT-NeoX have grouped
queries: 4 heads, 2 of keys and values."""


@dataclass(frozen=True, slots=True)
class Name:
    """One tensor: what pyvene calls it and what we do. `layers[{layer}]`, `layers.{layer}`: the
    layer goes there."""

    theirs: str
    ours: str


_GATED = MappingProxyType(
    {
        "attention_input": Name("attention_input", "model.layers.{layer}.self_attn.input"),
        "mlp_input": Name("mlp_input", "model.layers.{layer}.mlp.input"),
        # pyvene's mlp_activation is what the activation function puts out. With a gate that is not
        # what enters the down projection, which is our mlp_activation; so each is compared with a
        # dotted path of the other's.
        "activation function": Name("mlp_activation", "model.layers.{layer}.mlp.act_fn"),
        "mlp_activation": Name("model.layers[{layer}].mlp.down_proj.input", "mlp_activation"),
        "query": Name("query_output", "query"),
        "key": Name("key_output", "key"),
        "value": Name("value_output", "value"),
    }
)
COMPONENTS: Mapping[str, Mapping[str, Name]] = MappingProxyType(
    {
        "gpt2": {
            "attention_input": Name("attention_input", "transformer.h.{layer}.attn.input"),
            "mlp_input": Name("mlp_input", "transformer.h.{layer}.mlp.input"),
            "mlp_activation": Name("mlp_activation", "mlp_activation"),
            "query": Name("query_output", "query"),
            "key": Name("key_output", "key"),
            "value": Name("value_output", "value"),
        },
        "gpt_neox": {
            "attention_input": Name("attention_input", "gpt_neox.layers.{layer}.attention.input"),
            "mlp_input": Name("mlp_input", "gpt_neox.layers.{layer}.mlp.input"),
            "mlp_activation": Name("mlp_activation", "mlp_activation"),
        },
        **dict.fromkeys(("llama", "mistral", "gemma2", "qwen2"), _GATED),
    }
)
"""By family, besides those that all have."""

EVERYWHERE = MappingProxyType(
    {
        "residual": Name("block_output", "residual"),
        "block_input": Name("block_input", "block_input"),
        "attention_output": Name("attention_output", "attention_output"),
        "head": Name("attention_value_output", "head"),
        "mlp_output": Name("mlp_output", "mlp_output"),
    }
)


def names(family: str) -> Mapping[str, Name]:
    return {**EVERYWHERE, **COMPONENTS[family]}


@dataclass(frozen=True, slots=True)
class Ours:
    """Our side: one network with its taps."""

    network: Network
    taps: Components

    def oracle(self, rows: Sequence[Row]) -> list[Tensor]:
        return [oracle(self.network, self.taps, row) for row in rows]

    def fast(self, rows: Sequence[Row]) -> list[Tensor]:
        """By replay, where the network has one, or batched."""
        limit = RowLimit(16)
        replays = isinstance(self.network, LanguageModel)
        captures = ActivationCache(self.network, self.taps, limit, 0.0, 2**30, keys=replays)
        path = (ReplayExecutor if replays else BatchedExecutor)(self.network, self.taps, captures)  # type: ignore[arg-type]
        found: dict[Row, Tensor] = {}
        for batch in path.batches(list(dict.fromkeys(rows))):
            found.update(zip(batch, path.logits(batch), strict=True))
        return [found[row] for row in rows]

    def plain(self, rows: Sequence[Row]) -> list[Tensor]:
        with torch.inference_mode():
            return [self.network.plain(row.base) for row in rows]

    def width(self, name: Name, layer: int = 0) -> int:
        return self.taps.at(Point(layer, name.ours)).width

    def heads(self, name: Name) -> int:
        return self.taps.at(Point(0, name.ours)).heads

    def columns(self, name: Name, heads: Sequence[int]) -> tuple[int, ...]:
        """The features of whole heads, in the order of `heads`."""
        each = self.width(name) // self.heads(name)
        return tuple(head * each + i for head in heads for i in range(each))


@cache
def ours(family: str) -> Ours:
    network = LanguageModel(_model(family))
    return Ours(network, Components(network))


@cache
def their_model(family: str) -> PreTrainedModel:
    """The same weights, in a model object of pyvene's own."""
    model = _model(family)
    if family == "qwen2":
        model.config.head_dim = HEAD_WIDTH  # pyvene's table asks for it; a Qwen2Config has none
    return model


def alike(side: Ours, rows: Sequence[Row], wanted: Sequence[Tensor]) -> None:
    """Asserts that the oracle and the fast path both say `wanted`, and that the interventions did
    something."""
    assert len(rows) == len(wanted) > 0
    for path, said in (("oracle", side.oracle(rows)), ("fast", side.fast(rows))):
        for at, (got, want) in enumerate(zip(said, wanted, strict=True)):
            off = far(got, want)
            assert off <= TOLERANCE, f"{path}: {off:.2g} off at {rows[at]}"
    moved = [far(got, want) for got, want in zip(side.plain(rows), wanted, strict=True)]
    assert max(moved) > 100 * TOLERANCE, "no intervention moved the logits: nothing was compared"


def far(one: Tensor, other: Tensor) -> float:
    """The largest difference. Infinity for NaN."""
    assert one.shape == other.shape, (one.shape, other.shape)
    return float((one - other).nan_to_num(nan=torch.inf).abs().max())


@dataclass(frozen=True, slots=True)
class Case:
    """One unit of one pair: an intervention that either side can be asked for."""

    layer: int
    base: Ids
    source: Ids
    tokens: Ids
    lent_tokens: Ids
    features: FeatureIndices = None
    heads: Ids = ()
    lent_heads: Ids = ()

    def row(self, side: Ours, name: Name, kind: Operation = INTERCHANGE) -> Row:
        return Row(self.base, (self.patch(side, name, kind, Row(self.source)),))

    def patch(self, side: Ours, name: Name, kind: Operation, run: Row) -> Patch:
        """With what it is lent from `run`, if the kind asks for it."""
        point = Point(self.layer, name.ours)
        features, lent_features = self.features, self.features
        if self.heads:
            features = side.columns(name, self.heads)
            lent_features = side.columns(name, self.lent_heads or self.heads)
        lent = (Source(run, point, self.lent_tokens, lent_features),) if kind.reads_source else ()
        return Patch(point, self.tokens, lent, kind, features)

    def representation(
        self, name: Name, intervention: type | None = None, **more: Any
    ) -> dict[str, Any]:
        """As pyvene wants to be told of it."""
        component = name.theirs.format(layer=self.layer)
        unit = "h.pos" if self.heads else "pos"
        if self.heads:
            component = f"head_{component}"
        kind = intervention or pyvene.VanillaIntervention
        return {
            "layer": self.layer, "component": component, "unit": unit, "max_number_of_units": len(self.tokens) * max(1, len(self.heads)),
            "intervention_type": kind, **more,
        }  # fmt: skip

    @property
    def location(self) -> Any:
        """Of the base's unit, for a batch of one."""
        return [[list(self.heads)], [list(self.tokens)]] if self.heads else [list(self.tokens)]

    @property
    def lent_location(self) -> Any:
        heads = self.lent_heads or self.heads
        return [[list(heads)], [list(self.lent_tokens)]] if heads else [list(self.lent_tokens)]

    @property
    def subspace(self) -> list[list[int]] | None:
        return None if self.features is None else [list(self.features)]


def cases(
    family: str, name: Name, count: int, seed: object = 0, tokens: Sequence[int] = (1, 1, 2, 3)
) -> list[Case]:
    """Random ones: layers, pairs of other lengths, other tokens in base and source. The first is at
    the last token."""
    side, rng = ours(family), random.Random(f"{seed}.{family}.{name}")
    layers = sorted(side.taps.of(name.ours))
    made = []
    for at in range(count):
        base, source = (ids(rng, rng.choice((4, 6, 7))) for _ in range(2))
        size = rng.choice(tokens)
        mine, lent = rng.sample(range(len(base)), size), rng.sample(range(len(source)), size)
        if at == 0:
            mine = [len(base) - 1, *(t for t in mine if t != len(base) - 1)][:size]
        made.append(Case(layers[at % len(layers)], base, source, tuple(mine), tuple(lent)))
    return made


def ids(rng: random.Random, length: int) -> Ids:
    return tuple(rng.randrange(3, VOCAB) for _ in range(length))


def tensor(*rows: Ids) -> dict[str, Tensor]:
    return {"input_ids": torch.tensor(rows)}


def told(
    family: str,
    representations: Sequence[Mapping[str, Any]],
    base: Any,
    sources: Sequence[Any] | None,
    locations: Mapping[str, Any],
    mode: str = "parallel",
    **more: Any,
) -> Any:
    """What pyvene answers: ((what it did not touch, what it collected) or so, the model's output)."""
    config = pyvene.IntervenableConfig([dict(r) for r in representations], mode=mode)
    intervenable = pyvene.IntervenableModel(config, their_model(family))
    with torch.inference_mode():
        return intervenable(
            base, None if sources is None else list(sources), dict(locations), **more
        )


def theirs(family: str, name: Name, case: Case, intervention: type | None = None) -> Tensor:
    """Pyvene's logits at the last token, for one unit with one source, or none where its kind has
    none."""
    kind = intervention or pyvene.VanillaIntervention
    sourceless = issubclass(kind, pyvene.ConstantSourceIntervention)
    lent = None if sourceless else [case.lent_location]
    _, out = told(
        family,
        [case.representation(name, kind)],
        tensor(case.base),
        [None if sourceless else tensor(case.source)],
        {"sources->base": (lent, [case.location])},
        subspaces=None if case.subspace is None else [case.subspace],
    )
    return out.logits[0, -1].float()


Change = Callable[[Tensor], Tensor]


@contextmanager
def plain_hook(module: nn.Module, side: str, change: Change) -> Iterator[None]:
    """Within, `change` stands between `module` and what it is given or puts out: by hand, sharing
    nothing with either side."""

    def after(_module: nn.Module, _args: Any, out: Any) -> Any:
        if isinstance(out, tuple):
            return (change(out[0].clone()), *out[1:])
        return change(out.clone())

    def before(_module: nn.Module, args: Any) -> Any:
        return (change(args[0].clone()), *args[1:])

    hooked = (
        module.register_forward_hook(after)
        if side == "output"
        else module.register_forward_pre_hook(before)
    )
    try:
        with torch.no_grad():
            yield
    finally:
        hooked.remove()


def _model(family: str) -> PreTrainedModel:
    return model_from(CONFIGS[family](), attention="eager")
