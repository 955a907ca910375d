"""Networks as strangers write them: what a job names in them is exact against hooks by hand, or
refused with what can be named."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, relu

from raysearch import Input, Pair
from raysearch.core.hypothesis import Intervention, Site, Unit
from raysearch.core.runner_settings import RunnerSettings
from raysearch.engine.execution.usage import UsageMeter
from raysearch.engine.loading.factory import LoadedModule
from raysearch.engine.model_runner import ModelRunner
from raysearch.engine.patching.build import build_row
from raysearch.engine.patching.oracle import oracle
from raysearch.errors import RaysearchError

Parts = dict[str, nn.Module]
Way = Callable[[Any, Any], Any]


class Net(nn.Module):
    """Named parts, and a forward that is given."""

    def __init__(self, forward: Way, **parts: nn.Module) -> None:
        super().__init__()
        self.way = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, given: Tensor) -> Any:
        return self.way(self, given)


@dataclass
class Out:
    logits: Tensor


def numbers(*shape: int) -> list[Tensor]:
    torch.manual_seed(1)
    return [torch.randn(shape) for _ in range(5)]


def ids(*shape: int) -> list[Tensor]:
    torch.manual_seed(1)
    return [torch.randint(10, shape) for _ in range(5)]


def mlp(way: Way) -> nn.Module:
    return Net(way, embed=nn.Linear(6, 8), head=nn.Linear(8, 3), idle=nn.Linear(8, 3))


def encoder(batch_first: bool) -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=batch_first)

    def way(self: Any, given: Tensor) -> Tensor:
        hidden = self.proj(given)
        hidden = (
            self.encoder(hidden)
            if batch_first
            else self.encoder(hidden.transpose(0, 1)).transpose(0, 1)
        )
        return self.score(self.pool(hidden.mean(1)))

    body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    return Net(way, proj=nn.Linear(4, 8), encoder=body, pool=nn.Identity(), score=nn.Linear(8, 3))


def recurrent(kind: type[nn.RNNBase], **more: Any) -> nn.Module:
    width = 16 if more.get("bidirectional") else 8
    return Net(
        lambda self, x: self.score(self.rnn(x)[0][:, -1]),
        rnn=kind(4, 8, batch_first=True, **more),
        score=nn.Linear(width, 3),
    )


def projected() -> nn.Module:
    return nn.LSTM(4, 8, proj_size=4, batch_first=True)


def cnn() -> nn.Module:
    return Net(
        lambda self, x: self.score(self.flat(relu(self.conv(x)))),
        conv=nn.Conv2d(1, 4, 3), flat=nn.Flatten(), score=nn.Linear(144, 5),
    )  # fmt: skip


def plain(self: Any, x: Tensor) -> Tensor:
    return self.head(relu(self.embed(x)))


EXACT: dict[str, tuple[Callable[[], nn.Module], Sequence[Tensor], tuple[str, ...], tuple[str, ...]]] = {
    "an MLP": (
        lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(inplace=True), nn.Linear(8, 3)),
        numbers(6), ("0.output", "1.input", "2.output"), ("last",),
    ),
    "named parts": (lambda: mlp(plain), numbers(6), ("embed.output", "embed", "head.input"), ("last", "token_0")),
    "a CNN": (cnn, numbers(1, 8, 8), ("flat.output", "score.input"), ("last",)),
    "an encoder": (
        lambda: encoder(True), numbers(5, 4),
        ("proj.output", "encoder.output", "encoder.layers.1.linear1.output", "encoder.layers.0.self_attn.output"), ("last", "token_2"),
    ),
    "what is pooled": (lambda: encoder(True), numbers(5, 4), ("pool.output", "score.input"), ("last",)),
    "an LSTM": (lambda: recurrent(nn.LSTM), numbers(5, 4), ("rnn.output", "rnn.input"), ("last", "token_1")),
    "a GRU's reader": (lambda: recurrent(nn.GRU), numbers(5, 4), ("score.input",), ("last",)),
    "two ways": (lambda: recurrent(nn.LSTM, bidirectional=True), numbers(5, 4), ("rnn.output",), ("last", "token_3")),
    "a module used twice": (
        lambda: Net(lambda self, x: self.head(torch.tanh(self.same(torch.tanh(self.same(x))))), same=nn.Linear(6, 6), head=nn.Linear(6, 3)),
        numbers(6), ("same.output", "same.input"), ("last", "token_0", "token_1"),
    ),
    "a tuple": (lambda: mlp(lambda s, x: (plain(s, x), 1)), numbers(6), ("embed.output",), ("last",)),
    "a list": (lambda: mlp(lambda s, x: [plain(s, x)]), numbers(6), ("embed.output",), ("last",)),
    "a dict": (lambda: mlp(lambda s, x: {"loss": 0, "logits": plain(s, x)}), numbers(6), ("embed.output",), ("last",)),
    "a dataclass": (lambda: mlp(lambda s, x: Out(plain(s, x))), numbers(6), ("embed.output",), ("last",)),
    "ids": (
        lambda: Net(lambda self, x: self.score(self.embedding(x).mean(1)), embedding=nn.Embedding(10, 6), score=nn.Linear(6, 3)),
        ids(4), ("embedding.output", "embedding"), ("last", "token_1"),
    ),
    "one id": (
        lambda: Net(lambda self, x: self.score(self.embed(x)), embed=nn.Embedding(10, 6), score=nn.Linear(6, 3)),
        ids(), ("embed.output",), ("last",),
    ),
    "truth values": (
        lambda: Net(lambda self, x: self.score(torch.where(x, self.lin(x.float()), 0.0)), lin=nn.Linear(6, 6), score=nn.Linear(6, 3)),
        [torch.rand(6) > 0.5 for _ in range(5)], ("lin.output",), ("last",),
    ),
}  # fmt: skip


def pairs_of(inputs: Sequence[Any]) -> list[Pair]:
    both = [(Input(stimulus=x), {"source": Input(stimulus=y)}) for x, y in pairwise(inputs)]
    return [
        Pair(i, *one, {"base": "0", "source": "0"}, {"v": "1"}, "test")
        for i, one in enumerate(both)
    ]


def by_hand(
    model: nn.Module, path: str, side: str, base: Tensor, source: Tensor, token: int
) -> Tensor:
    """Hooks written out: a vector, or a token of several; of a module that runs again, its runs are
    the tokens."""
    module, kept, runs = model.get_submodule(path), [], [0]

    def put(seen: Tensor) -> Tensor:
        run, new = runs[0], seen.clone()
        runs[0] += 1
        if seen.ndim == 3:
            new[0, token] = kept[run][0, token]
        elif run == token or len(kept) == 1:
            new[0] = kept[run][0]
        return new

    def hooked(edit: Callable[[Tensor], Tensor], given: Tensor) -> Any:
        if side == "input":
            handle = module.register_forward_pre_hook(lambda m, i: (edit(i[0]), *i[1:]))
        else:
            handle = module.register_forward_hook(
                lambda m, i, o: (edit(o[0]), *o[1:]) if isinstance(o, tuple) else edit(o)
            )
        out = model(given[None])
        handle.remove()
        return out

    hooked(lambda seen: kept.append(seen.clone()) or seen, source)
    out = hooked(put, base)
    first = out["logits"] if isinstance(out, dict) else getattr(out, "logits", out)
    return (first[0] if isinstance(first, tuple | list) else first)[0]


def machine_of(
    model: nn.Module, pairs: Sequence[Pair], component: str, positions: Sequence[str]
) -> Any:
    network, encode = LoadedModule(model.eval().requires_grad_(False), "").open(pairs)
    encoded = encode(pairs, positions, ["v"])
    return (
        network,
        ModelRunner(network, "float32", encoded, [component], RunnerSettings(), UsageMeter()),
        encoded,
    )


@pytest.mark.parametrize("name", EXACT)
def test_a_module_that_is_named_by_its_path_is_patched_as_by_hand(name: str) -> None:
    torch.manual_seed(0)
    make, inputs, components, positions = EXACT[name]
    model, pairs = make(), pairs_of(inputs)
    for component in components:
        path = component if component in ("embed", "embedding") else component.rpartition(".")[0]
        side = "input" if component.endswith(".input") else "output"
        named = f"{component}.output" if component == "embed" else component
        network, machine, encoded = machine_of(model, pairs, named, positions)
        assert machine.facts[0].layers == (None,)
        assert machine.executor.name == "batched"
        changed = False
        for at, pair in enumerate(encoded):
            for position in positions:
                row = build_row(
                    pair, Intervention((Unit(Site(None, named, position)),)), machine.hook_points
                )
                (token,) = row.patches[0].tokens
                wanted = by_hand(model, path, side, inputs[at], inputs[at + 1], token)
                assert torch.allclose(oracle(network, machine.hook_points, row), wanted, atol=1e-6)
                assert torch.allclose(machine.executor.logits([row])[0], wanted, atol=1e-5)
                changed = changed or not torch.allclose(network.plain(pair.base), wanted, atol=1e-3)
        assert changed


REFUSED: dict[str, tuple[Callable[[], nn.Module], Sequence[Any], str, str]] = {
    "no layers": (
        lambda: mlp(plain),
        numbers(6),
        "residual",
        "no layers, which residual is of: it has no list of modules; name a module by its path: "
        "embed.output, head.output",
    ),
    "no layer to stand for": (
        lambda: mlp(plain),
        numbers(6),
        "body.{layer}.x",
        "no layers for the {layer} in body.{layer}.x: .*: embed.output, head.output",
    ),
    "two lists": (
        lambda: Net(
            lambda s, x: s.b(s.a(x)),
            a=nn.Sequential(nn.Linear(6, 6)),
            b=nn.Sequential(nn.Linear(6, 3)),
        ),
        numbers(6),
        "residual",
        'it has 2 lists of modules, and none is called "layers"; .*: a.output, a.0.output, '
        "b.output",
    ),
    "another's head": (
        lambda: mlp(plain),
        numbers(6),
        "head",
        "no layers, which head is of: .*: embed.output, head.output",
    ),
    "an embedding that nobody names": (
        lambda: mlp(plain),
        numbers(6),
        "embedding",
        "does not say what its embedding is; name .*: embed.output",
    ),
    "a module that never runs": (
        lambda: mlp(plain),
        numbers(6),
        "idle.output",
        "it never runs in a forward pass; name .*: embed.output",
    ),
    "a path that leads nowhere": (
        lambda: mlp(plain),
        numbers(6),
        "nope.output",
        "no module 'nope', .*; the model has embed, head, idle",
    ),
    "a feature map": (
        cnn,
        numbers(1, 8, 8),
        "conv.output",
        r"its activation is \(2, 4, 6, 6\), not .*: flat.output, score.output",
    ),
    "time first": (
        lambda: encoder(False),
        numbers(5, 4),
        "encoder.output",
        r"is \(5, 2, 8\) on 2 rows: the row is not its first dimension .*: proj.output",
    ),
    "blocks, time first": (
        lambda: encoder(False),
        numbers(5, 4),
        "residual",
        "the row is not its first dimension",
    ),
    "a projection of the hidden state": (
        lambda: Net(
            lambda s, x: s.score(s.rnn(x)[0][:, -1]), rnn=projected(), score=nn.Linear(4, 3)
        ),
        numbers(5, 4),
        "residual",
        r"with a projection \(proj_size\), .*: rnn.output, score.output",
    ),
    "both ways": (
        lambda: recurrent(nn.LSTM, bidirectional=True),
        numbers(5, 4),
        "residual",
        "bidirectional, .*: rnn.output, score.output",
    ),
    "ids": (
        lambda: Net(
            lambda s, x: s.score(s.embed(x)), embed=nn.Embedding(10, 6), score=nn.Linear(6, 3)
        ),
        ids(),
        "embed.input",
        r"its activation is \(2,\), not .*: embed.output",
    ),
    "dropout that is always on": (
        lambda: mlp(lambda s, x: s.head(dropout(s.embed(x), 0.5))),
        numbers(6),
        "embed.output",
        "other logits each time",
    ),
    "two arguments": (
        lambda: TwoArguments(),
        numbers(6),
        "a.output",
        r"its forward is called with one float32 tensor \(row, 6\)",
    ),
    "whole numbers for a Linear": (
        lambda: mlp(plain),
        [list(range(6))] * 3,
        "embed.output",
        r"give it floats: 1.0 for 1",
    ),
    "logits of no row": (
        lambda: mlp(lambda s, x: plain(s, x)[0]),
        numbers(6),
        "embed.output",
        r"puts out \(3,\) on 1 row; need class logits \(row, class\)",
    ),
    "logits of each token": (
        lambda: mlp(plain),
        numbers(4, 6),
        "embed.output",
        r"puts out \(1, 4, 3\) on 1 row; need class logits",
    ),
    "scores under another name": (
        lambda: mlp(lambda s, x: {"scores": plain(s, x)}),
        numbers(6),
        "embed.output",
        "puts out dict on 1 row; need",
    ),
}


class TwoArguments(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(6, 3)

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        return self.a(one) + other


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_patched_is_refused_with_what_can(name: str) -> None:
    make, inputs, component, match = REFUSED[name]
    with pytest.raises(RaysearchError, match=match.replace("{layer}", r"\{layer\}")) as refused:
        machine_of(make(), pairs_of(inputs), component, ("last",))
    assert "\n" not in str(refused.value)


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize(
    "name", [n for n, (*_, text) in REFUSED.items() if "name " in text or "embed.output" in text]
)
def test_what_a_refusal_names_instead_can_be_patched(name: str) -> None:
    make, inputs, component, _ = REFUSED[name]
    model, pairs = make(), pairs_of(inputs)
    with pytest.raises(RaysearchError) as refused:
        machine_of(model, pairs, component, ("last",))
    named = (
        str(refused.value).rpartition("by its path: ")[2].split(", ")
        if "by its path" in str(refused.value)
        else []
    )
    for other in named:
        _, machine, _ = machine_of(model, pairs, other, ("last",))
        assert machine.facts[0].width > 0


@pytest.mark.parametrize(
    ("given", "dtype", "shape"),
    [
        (torch.tensor([0.5, 1.0]), "float32", (2,)),
        (torch.tensor([0.5, 1.0], dtype=torch.bfloat16, requires_grad=True), "float32", (2,)),
        (torch.tensor([[1, 2]], dtype=torch.int16), "int64", (1, 2)),
        (torch.tensor(3), "int64", ()),
        (torch.tensor([True, False]), "bool", (2,)),
        (np.array([0.5, 1.0]), "float32", (2,)),
        (np.ones((2, 3), np.uint8), "int64", (2, 3)),
        (np.float64(0.5), "float32", ()),
        (np.array([True]), "bool", (1,)),
        ([1, 2.5], "float32", (2,)),
        (((1, 2), [3, 4]), "int64", (2, 2)),
        ([True, 2], "int64", (2,)),
        ([torch.zeros(2), np.ones(2)], "float32", (2, 2)),
        (2.5, "float32", ()),
        (False, "bool", ()),
    ],
)
def test_an_input_is_any_array_tensor_list_or_number(
    given: Any, dtype: str, shape: tuple[int, ...]
) -> None:
    stimulus = Input(stimulus=given).stimulus
    assert stimulus is not None
    assert (stimulus.dtype, stimulus.shape) == (dtype, shape)
    parts = [torch.as_tensor(part) for part in given] if isinstance(given, list | tuple) else []
    wanted = torch.stack([p.double() for p in parts]) if parts else torch.as_tensor(given).double()
    assert list(stimulus.numbers) == wanted.flatten().tolist()
    assert Input(stimulus=stimulus) == Input(stimulus=given)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (
            {"a": torch.zeros(2), "b": torch.zeros(3)},
            "an input is one tensor, and a dict of a, b is none; join its parts",
        ),
        (
            (torch.zeros(2), torch.zeros(3)),
            "one of 2 stands beside .*join what is of several shapes into one",
        ),
        (torch.zeros(0), r"a tensor of shape \[0\] holds no number"),
        (np.array(["a"]), "a tensor is of numbers, .*got 'a'"),
        (torch.tensor([1j]), "a tensor is of numbers"),
        (torch.zeros(2, device="meta"), "a Tensor cannot be read as numbers"),
        ("text", "a tensor is of numbers, .*got 'text'"),
        (object(), "a tensor is of numbers"),
    ],
)
def test_what_is_no_one_tensor_is_refused_with_what_would_do(given: Any, match: str) -> None:
    with pytest.raises(RaysearchError, match=match) as refused:
        Input(stimulus=given)
    assert "\n" not in str(refused.value)
    with pytest.raises(
        RaysearchError, match=r"an input's text is a Tensor; give .* as Input\(stimulus=...\)"
    ):
        Input(torch.zeros(3))  # type: ignore[arg-type]
