"""Networks on tensors: MLP, vision transformer, recurrent networks, against hooks and cells by
hand."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn
from transformers import ViTConfig, ViTForImageClassification

from raysearch.causal import Stimulus
from raysearch.engine.execution.activation_cache import ActivationCache
from raysearch.engine.execution.executors import BatchedExecutor
from raysearch.engine.execution.memory import RowLimit
from raysearch.engine.networks.components import Components
from raysearch.engine.networks.point import Point
from raysearch.engine.networks.tensor_network import TensorNetwork
from raysearch.engine.patching.operations import Zero
from raysearch.engine.patching.oracle import oracle
from raysearch.engine.patching.rows import Patch, Row, Source
from raysearch.errors import ModelError, PositionError

TIMES, WIDTH, HIDDEN = 4, 5, 8


class Recurrent(nn.Module):
    """Class logits from the last hidden state."""

    def __init__(self, kind: type[nn.RNNBase], batch_first: bool = True, **more: object) -> None:
        super().__init__()
        self.rnn = kind(WIDTH, HIDDEN, num_layers=2, batch_first=batch_first, **more)
        self.out = nn.Linear(HIDDEN, 3)

    def forward(self, given: Tensor) -> Tensor:
        seen, _ = self.rnn(given if self.rnn.batch_first else given.transpose(0, 1))
        return self.out(seen[:, -1] if self.rnn.batch_first else seen[-1])


class Cells(nn.Module):
    """A loop of its own over cells, in a list or alone."""

    def __init__(self, kind: type[nn.RNNCellBase], listed: bool) -> None:
        super().__init__()
        cells = [kind(WIDTH, HIDDEN), kind(HIDDEN, HIDDEN)]
        if listed:
            self.cells = nn.ModuleList(cells)
        else:
            self.one, self.two = cells
        self.out = nn.Linear(HIDDEN, 3)

    def forward(self, given: Tensor) -> Tensor:
        cells = [m for m in self.modules() if isinstance(m, nn.RNNCellBase)]
        states: list[object] = [None for _ in cells]
        for now in given.transpose(0, 1):
            for at, cell in enumerate(cells):
                states[at] = cell(now, states[at])
                now = states[at][0] if isinstance(states[at], tuple) else states[at]
        return self.out(now)


class Again(nn.Module):
    """The same blocks, three times over."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh()) for _ in range(2)
        )
        self.out = nn.Linear(WIDTH, 3)

    def forward(self, given: Tensor) -> Tensor:
        for _ in range(3):
            for block in self.blocks:
                given = block(given)
        return self.out(given.mean(1))


def still(model: nn.Module) -> nn.Module:
    return model.eval().requires_grad_(False)


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def vit(heads: int = 4) -> nn.Module:
    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "intermediate_size": 64,
        "image_size": 16,
        "patch_size": 8,
    }
    return still(
        ViTForImageClassification(
            ViTConfig(**sizes, num_attention_heads=heads, num_labels=3, initializer_range=0.4)
        )
    )


def mlp() -> nn.Module:
    return still(
        nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3))
    )


def swap(
    base: Stimulus,
    source: Stimulus,
    layer: int,
    tokens: tuple[int, ...],
    component: str = "residual",
) -> Row:
    point = Point(layer, component)
    return Row(base, (Patch(point, tokens, (Source(Row(source), point, tokens),)),))


def said(network: TensorNetwork, rows: list[Row]) -> list[tuple[Tensor, Tensor]]:
    """(by the oracle, in a batch) of each row."""
    taps = Components(network)
    path = BatchedExecutor(network, taps, ActivationCache(network, taps, RowLimit(5), 0.0, 2**20))
    found: dict[Row, Tensor] = {}
    for batch in path.batches(rows):
        found.update(zip(batch, path.logits(batch), strict=True))
    return [(oracle(network, taps, row), found[row]) for row in rows]


@contextmanager
def hook(module: nn.Module, do: Callable[[Tensor], Tensor | None]) -> Iterator[None]:
    handle = module.register_forward_hook(
        lambda m, i, o: do(o[0]) if isinstance(o, tuple) else do(o)
    )
    yield
    handle.remove()


@torch.inference_mode()
def two_passes(
    model: nn.Module, module: nn.Module, base: Tensor, source: Tensor, at: object
) -> Tensor:
    """Class logits, with what the source has at `at` of the module's output in the base's run."""
    kept: list[Tensor] = []

    def read(out: Tensor) -> None:
        kept.append(out[at].clone())

    def write(out: Tensor) -> Tensor:
        out = out.clone()
        out[at] = kept[0]
        return out

    with hook(module, read):
        model(source[None])
    with hook(module, write):
        out = model(base[None])
    return getattr(out, "logits", out)[0]


def test_layers_of_an_mlp_have_no_positions() -> None:
    model, inputs = mlp(), torch.randn(4, 6)
    network = TensorNetwork(model, inputs[0])
    base, source = Stimulus.of(inputs[0]), Stimulus.of(inputs[1])
    rows = [swap(base, source, layer, (0,)) for layer in range(5)]
    for layer, logits in enumerate(said(network, rows)):
        wanted = two_passes(model, model[layer], inputs[0], inputs[1], slice(None))
        assert all(torch.allclose(ours, wanted, atol=1e-6) for ours in logits)
    with pytest.raises(PositionError, match="has 1 tokens; token 1"):
        said(network, [swap(base, source, 1, (1,))])


def test_patches_of_an_image_are_positions_and_the_answer_is_a_class() -> None:
    model, images = vit(), torch.randn(5, 3, 16, 16)
    network = TensorNetwork(model, images[0])
    stimuli = [Stimulus.of(image) for image in images]
    blocks = model.vit.layers if hasattr(model.vit, "layers") else model.vit.encoder.layer
    rows, wanted = [], []
    for layer in range(2):
        for token in range(5):  # the class token, then four patches
            for source in (1, 2):
                rows.append(swap(stimuli[0], stimuli[source], layer, (token,)))
                wanted.append(
                    two_passes(model, blocks[layer], images[0], images[source], (0, token))
                )
    for logits, expected in zip(said(network, rows), wanted, strict=True):
        assert all(torch.allclose(ours, expected, atol=1e-5) for ours in logits)
    assert len({tuple(w.tolist()) for w in wanted}) > 10  # they say something


def test_every_component_of_a_vision_transformer_is_there_and_the_same_in_a_batch() -> None:
    model, images = vit(), torch.randn(3, 3, 16, 16)
    network = TensorNetwork(model, images[0])
    taps, base, source = Components(network), Stimulus.of(images[0]), Stimulus.of(images[1])
    for component in (
        "residual", "block_input", "attention_output", "head", "mlp_output", "mlp_activation", "query", "key", "value",
    ):  # fmt: skip
        assert taps.facts(component).layers == (0, 1)
        for alone, batched in said(
            network, [swap(base, source, layer, (0, 3), component) for layer in (0, 1)]
        ):
            assert torch.allclose(alone, batched, atol=1e-5)
            assert not torch.allclose(alone, network.plain(base), atol=1e-4)
    assert taps.facts("head").heads == taps.facts("key").heads == 4


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM, nn.RNN])
def test_time_steps_of_a_recurrent_network_are_tokens(
    kind: type[nn.RNNBase], batch_first: bool
) -> None:
    model, inputs = still(Recurrent(kind, batch_first)), torch.randn(4, TIMES, WIDTH)
    network = TensorNetwork(model, inputs[0])
    base, source = Stimulus.of(inputs[0]), Stimulus.of(inputs[1])
    places = [(layer, tokens) for layer in (0, 1) for tokens in ((0,), (2,), (3,), (0, 2))]
    rows = [swap(base, source, layer, tokens) for layer, tokens in places]
    for (layer, tokens), logits in zip(places, said(network, rows), strict=True):
        wanted = by_cells(model, inputs[0], inputs[1], layer, tokens)
        assert all(torch.allclose(ours, wanted, atol=1e-6) for ours in logits)
    assert torch.allclose(network.batch([base])[0], model(inputs[:1])[0], atol=1e-6)


def by_cells(
    model: Recurrent, base: Tensor, source: Tensor, layer: int, tokens: tuple[int, ...]
) -> Tensor:
    """By torch's own cells, with the network's weights copied in."""
    cell_of = {nn.GRU: nn.GRUCell, nn.LSTM: nn.LSTMCell, nn.RNN: nn.RNNCell}[type(model.rnn)]
    cells = []
    for at in range(2):
        cell = cell_of(WIDTH if at == 0 else HIDDEN, HIDDEN)
        cell.load_state_dict(
            {
                name.removesuffix(f"_l{at}"): w
                for name, w in model.rnn.state_dict().items()
                if name.endswith(f"_l{at}")
            }
        )
        cells.append(still(cell))

    def run(given: Tensor, put: dict[int, Tensor]) -> tuple[list[Tensor], Tensor]:
        states: list[object] = [None, None]
        seen = []
        for time in range(TIMES):
            now = given[time][None]
            for at, cell in enumerate(cells):
                state = cell(now, states[at])
                hidden = state[0] if isinstance(state, tuple) else state
                if at == layer:
                    hidden = put.get(time, hidden)
                    seen.append(hidden)
                states[at] = (hidden, *state[1:]) if isinstance(state, tuple) else hidden
                now = hidden
        return seen, model.out(now)[0]

    theirs, _ = run(source, {})
    return run(base, {token: theirs[token] for token in tokens})[1]


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("kind", [nn.GRUCell, nn.LSTMCell, nn.RNNCell])
def test_a_networks_own_loop_over_cells_is_the_same_as_the_network_of_torch(
    kind: type[nn.RNNCellBase], listed: bool
) -> None:
    whole = {nn.GRUCell: nn.GRU, nn.LSTMCell: nn.LSTM, nn.RNNCell: nn.RNN}[kind]
    model, inputs = still(Cells(kind, listed)), torch.randn(4, TIMES, WIDTH)
    like = still(Recurrent(whole))
    cells = [m for m in model.modules() if isinstance(m, kind)]
    like.rnn.load_state_dict(
        {f"{n}_l{at}": w for at, cell in enumerate(cells) for n, w in cell.state_dict().items()}
    )
    like.out.load_state_dict(model.out.state_dict())
    network = TensorNetwork(model, inputs[0])
    base, source = Stimulus.of(inputs[0]), Stimulus.of(inputs[1])
    assert (len(network.blocks), network.tokens(base)) == (2, TIMES)
    assert network.firings(network.blocks[0], Stimulus.of(inputs[0][:2])) == 2
    places = [(layer, tokens) for layer in (0, 1) for tokens in ((0,), (2,), (3,), (0, 2))]
    rows = [swap(base, source, layer, tokens) for layer, tokens in places]
    for (layer, tokens), logits in zip(places, said(network, rows), strict=True):
        wanted = by_cells(like, inputs[0], inputs[1], layer, tokens)
        assert all(torch.allclose(ours, wanted, atol=1e-6) for ours in logits)


def test_the_tokens_of_a_block_that_runs_again_are_those_of_its_runs_in_turn() -> None:
    model, inputs = still(Again()), torch.randn(2, TIMES, WIDTH)
    network = TensorNetwork(model, inputs[0])
    base, source = Stimulus.of(inputs[0]), Stimulus.of(inputs[1])
    assert network.tokens(base) == 3 * TIMES
    places = [(layer, run, token) for layer in (0, 1) for run in range(3) for token in (0, 2)]
    rows = [swap(base, source, layer, (run * TIMES + token,)) for layer, run, token in places]
    for (layer, run, token), logits in zip(places, said(network, rows), strict=True):
        wanted = in_one_run(model, model.blocks[layer], inputs[0], inputs[1], run, token)
        assert all(torch.allclose(ours, wanted, atol=1e-6) for ours in logits)


@torch.inference_mode()
def in_one_run(
    model: nn.Module, block: nn.Module, base: Tensor, source: Tensor, run: int, token: int
) -> Tensor:
    """Class logits, with what the source has at a token of the block's output in one of its runs."""
    kept: list[Tensor] = []
    runs = 0

    def read(out: Tensor) -> None:
        kept.append(out[0, token].clone())

    def write(out: Tensor) -> Tensor | None:
        nonlocal runs
        runs += 1
        if runs - 1 != run:
            return None
        out = out.clone()
        out[0, token] = kept[run]
        return out

    with hook(block, read):
        model(source[None])
    with hook(block, write):
        logits: Tensor = model(base[None])[0]
    return logits


def test_a_module_that_never_runs_cannot_be_patched() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(6, 3), nn.Linear(6, 3)])

        def forward(self, given: Tensor) -> Tensor:
            return self.layers[0](given)

    network = TensorNetwork(still(Idle()), torch.zeros(6))
    with pytest.raises(
        ModelError,
        match=r"it never runs in a forward pass; name a module by its path: layers\.0\.output",
    ):
        Components(network).of("residual")


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
def test_a_recurrent_network_is_as_it_was_and_a_self_swap_changes_no_bit(
    kind: type[nn.RNNBase],
) -> None:
    model, inputs = still(Recurrent(kind)), torch.randn(3, TIMES, WIDTH)
    before = model(inputs)
    network = TensorNetwork(model, inputs[0])
    base = Stimulus.of(inputs[0])
    for layer in (0, 1):
        assert torch.equal(
            oracle(network, Components(network), swap(base, base, layer, (1, 2))),
            network.plain(base),
        )
    assert torch.equal(model(inputs), before)
    assert "forward" not in vars(model.rnn)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_other_kinds_act_on_time_steps_too() -> None:
    model, inputs = still(Recurrent(nn.GRU)), torch.randn(2, TIMES, WIDTH)
    network, base = TensorNetwork(model, inputs[0]), Stimulus.of(inputs[0])
    for alone, batched in said(
        network,
        [Row(base, (Patch(Point(0, "residual"), (1, 3), (), Zero(), range(2, 5)),))],
    ):
        assert torch.allclose(alone, batched, atol=1e-6)
        assert not torch.allclose(alone, network.plain(base), atol=1e-4)


@pytest.mark.parametrize(
    ("model", "match"),
    [
        (lambda: nn.Linear(WIDTH, 3), "no list of modules"),
        (
            lambda: nn.Sequential(
                nn.Flatten(),
                nn.Sequential(nn.Linear(TIMES * WIDTH, 6)),
                nn.Sequential(nn.Linear(6, 3)),
            ),
            "3 lists of modules",
        ),
    ],
)
def test_what_has_no_layers_is_refused_in_one_line_where_they_are_asked_for(
    model: Callable[[], nn.Module], match: str
) -> None:
    example = (
        torch.zeros(WIDTH)
        if isinstance(made := still(model()), nn.Linear)
        else torch.zeros(TIMES, WIDTH)
    )
    network = TensorNetwork(made, example)
    assert not network.blocks
    with pytest.raises(ModelError, match=match) as refused:
        Components(network).of("residual")
    assert "\n" not in str(refused.value)


def test_blocks_can_be_named() -> None:
    model = still(
        nn.Sequential(nn.Sequential(nn.Linear(6, 6), nn.ReLU()), nn.Sequential(nn.Linear(6, 3)))
    )
    assert len(TensorNetwork(model, torch.zeros(6), blocks="").blocks) == 2
    assert len(TensorNetwork(model, torch.zeros(6), blocks="0").blocks) == 2
    cell = still(Cells(nn.GRUCell, False))
    assert TensorNetwork(cell, torch.zeros(TIMES, WIDTH), blocks="two").blocks == [cell.two]
    with pytest.raises(ModelError, match="no blocks at 'nowhere'"):
        TensorNetwork(model, torch.zeros(6), blocks="nowhere")
