"""Networks that a function of the user's makes: a replica on tensors, and each thing that can be
wrong with the function."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from raysearch import Input, Pair
from raysearch.causal import ONE_SOURCE, Stimulus
from raysearch.core.events import Block, Event, Measured, Screened, Task
from raysearch.core.hypothesis import Intervention, Site, Subspace, Unit
from raysearch.core.model_source import ModelSource
from raysearch.core.runner_settings import RunnerSettings
from raysearch.engine.encoding.encode import encode, encoding_digest
from raysearch.engine.loading.factory import LoadedModule, load_module, module_digest
from raysearch.engine.replica import Replica
from raysearch.errors import ModelError, PairsError, PositionError, RaysearchError
from tests.engine.worlds import word_tokenizer

TIMES, WIDTH, HIDDEN, CLASSES = 4, 3, 6, 3


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(WIDTH, HIDDEN, num_layers=2, batch_first=True)
        self.out = nn.Linear(HIDDEN, CLASSES)

    def forward(self, given: Tensor) -> Tensor:
        return self.out(self.rnn(given)[0][:, -1])


def mlp() -> nn.Module:
    """Layers of different widths."""
    widths = [nn.Sequential(nn.Linear(a, b), nn.Tanh()) for a, b in ((TIMES, 8), (8, 5))]
    return nn.Sequential(*widths, nn.Linear(5, CLASSES))


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = mlp()

    def forward(self, given: Tensor) -> Tensor:
        return self.layers(given)


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def pairs_of(*shape: int, count: int = 12, **tokens: tuple[int, ...]) -> tuple[Pair, ...]:
    generator = torch.Generator().manual_seed(1)

    def one(_: object) -> Input:
        return Input(
            stimulus=Stimulus.of(3 * torch.randn(shape, generator=generator)), tokens=tokens
        )

    answers = {"base": "0", ONE_SOURCE: "1"}
    return tuple(
        Pair(i, one(i), {ONE_SOURCE: one(i)}, answers, {"x": "2"}, "test") for i in range(count)
    )


def loaded(module: nn.Module, dtype: str = "float32") -> LoadedModule:
    return LoadedModule(module.eval().requires_grad_(False), module_digest(module), dtype)


def replica_of(
    module: nn.Module, pairs: Sequence[Pair], positions: Sequence[str] = (), **settings: int
) -> Replica:
    return Replica(
        loaded(module), pairs, positions, ["x"], "worker-1", settings=RunnerSettings(**settings)
    )


def blocks_of(pairs: Sequence[Pair]) -> tuple[Block, ...]:
    return tuple(Block("test", i, tuple(range(i * 4, i * 4 + 4))) for i in range(len(pairs) // 4))


def swap(layer: int, position: str = "last", subspace: Subspace = Subspace()) -> Intervention:
    return Intervention((Unit(Site(layer, "residual", position), subspace),))


def by_hand(
    module: nn.Module, blocks: Sequence[nn.Module], layer: int, pair: Pair, columns: Sequence[int]
) -> int:
    """The class, with these columns of what a block puts out taken from the source, by plain hooks
    on plain tensors."""
    base, source = (
        torch.tensor(i.stimulus.numbers).view(1, *i.stimulus.shape)
        for i in (pair.base, pair.sources[ONE_SOURCE])
    )
    kept: list[Tensor] = []
    handle = blocks[layer].register_forward_hook(lambda _m, _i, out: kept.append(out.clone()))
    module(source)
    handle.remove()

    def put(_m: nn.Module, _i: object, out: Tensor) -> Tensor:
        out = out.clone()
        out[:, list(columns)] = kept[0][:, list(columns)]
        return out

    handle = blocks[layer].register_forward_hook(put)
    logits = module(base)
    handle.remove()
    return int(logits.argmax())


def outputs(events: list[Event]) -> dict[tuple[str, int], tuple[tuple[int, ...], ...]]:
    assert all(isinstance(e, Measured) for e in events), events
    return {(e.intervention, e.block): e.outputs for e in events}


@pytest.mark.parametrize("rows", [1, 5, 64])
def test_a_replica_of_an_mlp_says_what_plain_hooks_say(rows: int) -> None:
    module, pairs = Mlp(), pairs_of(TIMES)
    replica = replica_of(module, pairs, rows=rows)
    facts = replica.opened.facts
    assert (facts.layers, facts.width, facts.heads, facts.path, facts.dtype) == (
        3,
        0,
        0,
        "batched",
        "float32",
    )
    (residual,) = facts.components
    assert (residual.layers, residual.width, residual.widths) == ((0, 1, 2), 0, (8, 5, CLASSES))
    assert [residual.width_in(layer) for layer in residual.layers] == [8, 5, CLASSES]
    asked = {(layer, columns): swap(layer, subspace=Subspace(coordinates=columns)) for layer, columns in
             [(0, (0, 1, 7)), (1, (4,)), (2, (0, 2))]}  # fmt: skip
    asked |= {(layer, tuple(range(residual.width_in(layer)))): swap(layer) for layer in range(3)}
    said = outputs(replica.do(Task(1, "measure", tuple(asked.values()), blocks_of(pairs))))
    for (layer, columns), intervention in asked.items():
        for block in blocks_of(pairs):
            wanted = [
                by_hand(module, list(module.layers), layer, pairs[p], columns) for p in block.pairs
            ]
            assert [c for (c,) in said[intervention.id, block.index]] == wanted
    assert len({c for block in said.values() for c in block}) > 1


def test_screening_gives_classes() -> None:
    module, pairs = Mlp(), pairs_of(TIMES)
    for event in replica_of(module, pairs).do(Task(1, "screen", (), blocks_of(pairs))):
        assert isinstance(event, Screened)
        for at, p in enumerate(event.pairs):
            numbers = torch.tensor(pairs[p].base.stimulus.numbers)
            assert event.base[at] == (int(module(numbers[None]).argmax()),)


def test_time_steps_are_positions_of_a_recurrent_network() -> None:
    module, pairs = Recurrent(), pairs_of(TIMES, WIDTH, early=(0, 1), late=(3,))
    replica = replica_of(module, pairs, ("early", "late"))
    (first, *_) = replica.opened.encoded
    assert first.base == pairs[0].base.stimulus
    assert (first.base_positions, first.tokens) == (
        {"early": (0, 1), "late": (3,), "last": (3,)},
        TIMES,
    )
    assert (first.answers, first.counterfactual) == ({"base": (0,), "source": (1,)}, {"x": (2,)})
    asked = [swap(layer, position) for layer in (0, 1) for position in ("early", "late", "last")]
    said = outputs(replica.do(Task(1, "measure", tuple(asked), blocks_of(pairs))))
    for layer in (0, 1):
        late, last = (said[swap(layer, position).id, 0] for position in ("late", "last"))
        assert late == last
    sources = [
        torch.tensor(p.sources[ONE_SOURCE].stimulus.numbers).view(1, TIMES, WIDTH) for p in pairs
    ]
    assert [c for block in range(3) for (c,) in said[swap(1, "last").id, block]] == [
        int(module(source).argmax()) for source in sources
    ]
    assert len({c for block in said.values() for c in block}) > 1


def test_inputs_of_two_lengths_are_of_two_companies_and_last_is_the_last_of_each() -> None:
    long, short = pairs_of(TIMES, WIDTH, count=4), pairs_of(2, WIDTH, count=4)
    mixed = tuple(
        Pair(i, a.base, b.sources, a.answers, a.counterfactual, "test") for i, (a, b) in enumerate(zip(long, short, strict=True))
    )  # fmt: skip
    replica = replica_of(Recurrent(), mixed)
    (first, *_) = replica.opened.encoded
    assert (first.base_positions["last"], first.source_positions[ONE_SOURCE]["last"]) == (
        (3,),
        (1,),
    )
    assert (
        len(outputs(replica.do(Task(1, "measure", (swap(0),), (Block("test", 0, (0, 1, 2, 3)),)))))
        == 1
    )


def test_a_job_may_ask_for_half_precision_and_gets_inputs_to_match() -> None:
    module = Mlp().to(torch.bfloat16)
    pairs = pairs_of(TIMES)
    replica = Replica(loaded(module, "bfloat16"), pairs, (), ["x"], "w")
    assert len(outputs(replica.do(Task(1, "measure", (swap(0),), blocks_of(pairs))))) == 3


def test_whole_numbers_are_given_as_they_are() -> None:
    class Ids(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(10, HIDDEN)
            self.rnn = nn.LSTM(HIDDEN, HIDDEN, batch_first=True)
            self.out = nn.Linear(HIDDEN, CLASSES)

        def forward(self, ids: Tensor) -> Tensor:
            return self.out(self.rnn(self.embed(ids))[0][:, -1])

    inputs = [Input(stimulus=Stimulus.of([n, 2, 5])) for n in range(10)]
    answers = {"base": "0", ONE_SOURCE: "1"}
    pairs = tuple(
        Pair(i, inputs[i], {ONE_SOURCE: inputs[-i]}, answers, {"x": "2"}, "test") for i in range(8)
    )
    replica = replica_of(Ids(), pairs)
    assert replica.opened.encoded[0].base.dtype == "int64"
    assert len(outputs(replica.do(Task(1, "measure", (swap(0),), blocks_of(pairs))))) == 2


def changed(pair: Pair, **changes: object) -> Pair:
    given = {
        "base": pair.base, "sources": pair.sources, "answers": pair.answers, "counterfactual": pair.counterfactual, **changes
    }  # fmt: skip
    return Pair(pair.index, split="test", **given)  # type: ignore[arg-type]


PAIR = pairs_of(TIMES, WIDTH, p=(1,))[0]
SHORT = Input(stimulus=Stimulus.of([0.0] * 5))


@pytest.mark.parametrize(
    ("pair", "positions", "error", "says"),
    [
        (
            changed(PAIR, base=Input("abc")),
            (),
            PairsError,
            "pair 0: the base is the text 'abc', and the model takes tensors",
        ),
        (
            changed(PAIR, sources={ONE_SOURCE: Input("abc")}),
            (),
            PairsError,
            "pair 0: the source is the text 'abc', and the model takes tensors",
        ),
        (
            changed(PAIR, answers={"base": " 1", ONE_SOURCE: "0"}),
            (),
            PairsError,
            r"answer of base is ' 1', which names no class; Recurrent has the classes \"0\" to "
            r"\"2\"",
        ),
        (
            changed(PAIR, answers={"base": "01", ONE_SOURCE: "0"}),
            (),
            PairsError,
            "'01', which names no class",
        ),
        (
            changed(PAIR, answers={"base": "-1", ONE_SOURCE: "0"}),
            (),
            PairsError,
            "'-1', which names no class",
        ),
        (
            changed(PAIR, counterfactual={"x": "3"}),
            (),
            PairsError,
            "counterfactual of variable 'x' is class 3; Recurrent",
        ),
        (
            changed(PAIR, counterfactual={}),
            (),
            PairsError,
            "counterfactual of variable 'x' is missing",
        ),
        (PAIR, ("q",), PositionError, "pair 0: the base has no position 'q'; it has p, last"),
        (
            changed(PAIR, base=Input(stimulus=PAIR.base.stimulus, tokens={"p": (4,)})),
            ("p",),
            PositionError,
            r"position 'p' has token 4, and Recurrent has 4 \(from 0\) on the tensor of shape \[4, "
            r"3\]",
        ),
        (
            changed(PAIR, base=Input(stimulus=PAIR.base.stimulus, tokens={"p": (1, 2)})),
            ("p",),
            PositionError,
            "position 'p' has 2 tokens in the base and 1 in the source",
        ),
        (
            changed(PAIR, base=SHORT),
            (),
            ModelError,
            r"pair 0: the base, a float32 tensor of shape \[5\]: a GRU run step by step is given a "
            r"tensor",
        ),
        (
            changed(PAIR, sources={ONE_SOURCE: SHORT}),
            (),
            ModelError,
            r"pair 0: the source, a float32 tensor of shape \[5\]: a GRU run",
        ),
    ],
)
def test_pairs_that_do_not_fit_the_network_are_one_line(
    pair: Pair, positions: tuple[str, ...], error: type[RaysearchError], says: str
) -> None:
    with pytest.raises(error, match=says) as refused:
        replica_of(Recurrent(), [pair], positions)
    assert "\n" not in str(refused.value)


def test_a_language_model_is_not_given_tensors() -> None:
    with pytest.raises(
        PairsError,
        match=r"pair 0: the base is the tensor of shape \[4, 3\], and the model is a language",
    ):
        encode([PAIR], word_tokenizer(), [], ["x"])


def test_equal_pairs_have_equal_encodings_and_others_other_ones() -> None:
    module, pairs = Mlp(), pairs_of(TIMES)
    digests = [
        encoding_digest(replica_of(m, p).opened.encoded)
        for m, p in [(module, pairs), (Mlp(), pairs)]
    ]
    assert digests[0] == digests[1]
    assert encoding_digest(replica_of(module, pairs[1:]).opened.encoded) != digests[0]


MINE = """
import torch
from torch import nn
from raysearch.errors import ModelError

def net():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 3))

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 3))
    def forward(self, x):
        return self.layers(x)

def wants(path): return nn.Linear(2, 2)
def broken(): raise ZeroDivisionError("ouch\\nand more")
def number(): return 3
def language():
    from transformers import GPT2Config, GPT2LMHeadModel
    return GPT2LMHeadModel(GPT2Config(vocab_size=8, n_embd=8, n_head=2, n_layer=1))
made = nn.Sequential(nn.Linear(4, 3))
seven = 7
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "syntax.py").write_text("def (")
    return tmp_path / "mine.py"


def test_a_factory_is_found_in_a_file_or_a_package_and_called_in_each_replica(mine: Path) -> None:
    state = torch.random.get_rng_state()
    one, two = (load_module(ModelSource(f"{mine}:net", is_factory=True)) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), state)  # as it was, although the factory seeds
    assert one.module is not two.module
    assert one.digest == two.digest
    assert not one.module.training
    assert not any(p.requires_grad for p in one.module.parameters())
    for name in ("Net", "made"):
        assert isinstance(
            load_module(ModelSource(f"{mine}:{name}", is_factory=True)).module, nn.Module
        )
    assert isinstance(
        load_module(ModelSource("torch.nn:Identity", is_factory=True)).module, nn.Identity
    )
    assert (
        load_module(ModelSource(f"{mine}:net", dtype="bfloat16", is_factory=True))
        .module[0]
        .weight.dtype
        == torch.bfloat16
    )


def test_the_digest_is_of_weights_and_code_and_not_of_the_dtype_asked(mine: Path) -> None:
    before = load_module(ModelSource(f"{mine}:net", is_factory=True)).digest
    assert (
        load_module(ModelSource(f"{mine}:net", dtype="bfloat16", is_factory=True)).digest == before
    )
    mine.write_text(MINE.replace("manual_seed(3)", "manual_seed(4)"))
    assert load_module(ModelSource(f"{mine}:net", is_factory=True)).digest != before
    a, b = nn.Linear(2, 2), nn.Linear(2, 2)
    assert module_digest(a) != module_digest(b)
    b.load_state_dict(a.state_dict())
    assert module_digest(a) == module_digest(b)
    assert module_digest(a) != module_digest(a.double())
    renamed = nn.Sequential(a)
    assert module_digest(renamed) != module_digest(a)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("{mine}:nope", "model.path: .*mine.py has no 'nope'; give file.py:name of a function"),
        (
            "{mine}:wants",
            "model.path: mine.py:wants raised TypeError: .*it is called without arguments",
        ),
        ("{mine}:broken", "model.path: mine.py:broken raised ZeroDivisionError: ouch and more"),
        (
            "{mine}:number",
            "model.path: mine.py:number returned int; it must return a torch.nn.Module",
        ),
        ("{mine}:seven", "model.path: mine.py:seven is int; it must be a function"),
        (
            "{mine}:language",
            "returned the language model GPT2LMHeadModel; give its folder or hub id instead",
        ),
        ("{syntax}:net", "model.path: .*syntax.py cannot be run: SyntaxError"),
        ("/nowhere/mine.py:net", "model.path: there is no file /nowhere/mine.py"),
        ("no_such_package.nets:net", "model.path: there is no module 'no_such_package.nets'"),
    ],
)
def test_a_factory_that_gives_no_network_is_one_line(mine: Path, path: str, says: str) -> None:
    with pytest.raises(RaysearchError, match=says) as refused:
        load_module(
            ModelSource(path.format(mine=mine, syntax=mine.with_name("syntax.py")), is_factory=True)
        )
    assert refused.value.exit_code == 2
    assert "\n" not in str(refused.value)


def test_a_module_is_looked_at_without_a_replica(mine: Path) -> None:
    looked = load_module(ModelSource(f"{mine}:net", is_factory=True)).summary(pairs_of(4))
    assert (looked.layers, looked.width, looked.path) == (2, 0, "batched")
    assert looked.weight_bytes == 4 * (4 * 8 + 8 + 8 * 3 + 3)
    assert looked.components[0].widths == (8, 3)
    assert len(looked.encode(pairs_of(4), (), ["x"])) == 12
    with pytest.raises(ModelError, match="Net does not run on pair 0: the base, a float32 tensor"):
        load_module(ModelSource(f"{mine}:Net", is_factory=True)).summary(pairs_of(5))
    with pytest.raises(PairsError, match="there are no pairs"):
        load_module(ModelSource(f"{mine}:Net", is_factory=True)).summary(())


def test_a_language_models_class_is_known_by_what_it_can_do() -> None:
    assert GPT2LMHeadModel(GPT2Config(vocab_size=8, n_embd=8, n_head=2, n_layer=1)).can_generate()
