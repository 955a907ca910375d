"""Networks on tensors: an MLP, a vision transformer, a recurrent network; any module that takes one tensor and puts out class logits.

    TensorNetwork(model, example)                   the blocks are looked for: the layers of a GRU or LSTM, or the module list
    TensorNetwork(model, example, blocks="net")     they are the children of that module

An activation (row, width) has no tokens: its vector is token 0. In a recurrent network the time steps are the tokens: each layer is
run as its own step (`Step`), once for every time step, so that what is patched at one step is felt by those after it. The
"residual" is the hidden state that a step puts out, the "block_input" what the step is given.

Invariants: rows of one company have one shape; the model is as it was afterwards; a recurrent network's steps share its weights.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from raysearch.engine.network import Given, Stimulus
from raysearch.engine.sites import module_at
from raysearch.errors import ModelError

BLOCKS = (
    "vit.layers",
    "vit.encoder.layer",
    "encoder.layers",
    "encoder.layer",
    "blocks",
    "layers",
    "h",
    "transformer.h",
)
"""Where the blocks are looked for, before the only list of modules that there is."""


class TensorNetwork:
    """`module` on inputs such as `example` (a tensor without a row dimension). The answer is one of its classes.

    `blocks`: the dotted path of the module whose children are the layers (a ModuleList or Sequential), or that is a GRU or LSTM.

    Raises: ModelError where no blocks are found, or a recurrent network is of a kind that cannot be run step by step.
    """

    flat = True
    width = 0

    def __init__(self, module: nn.Module, example: Tensor, blocks: str | None = None) -> None:
        self.module = module
        self._example = Stimulus.of(example)
        found = _blocks(module, blocks)
        self._recurrent = found if isinstance(found, nn.RNNBase) else None
        self._steps = _steps(found) if isinstance(found, nn.RNNBase) else []
        self.blocks: Sequence[nn.Module] = self._steps or list(found.children())
        config = getattr(module, "config", None)
        self.heads = int(getattr(config, "num_attention_heads", 0) or 0)

    @property
    def name(self) -> str:
        return type(self.module).__name__

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    def company(self, given: Given) -> Hashable:
        return tuple(_tensor(given).shape)

    def pad(self, given: Given) -> int:
        return 0

    def firings(self, module: nn.Module, given: Given) -> int:
        """A step runs once for each time step."""
        return len(_tensor(given)) if any(module is part for step in self._steps for part in step.modules()) else 1

    def example(self) -> Given:
        return self._example

    def plain(self, given: Given) -> Float[Tensor, "class"]:
        return self.batch([given])[0]

    def batch(self, givens: Sequence[Given]) -> Float[Tensor, "row class"]:
        inputs = torch.stack([_tensor(given) for given in givens]).to(self.device)
        with _stepwise(self._recurrent, self._steps):
            out = self.module(inputs)
        logits = getattr(out, "logits", out[0] if isinstance(out, tuple) else out)
        if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(givens):
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ModelError(
                f"{self.name} puts out {got}; need class logits (row, class), alone, first of a tuple, or as .logits"
            )
        return logits.float()


class Step(nn.Module):
    """One layer of a recurrent network at one time step: (input, state) to the new state, its hidden vector first."""

    def __init__(self, network: nn.RNNBase, layer: int) -> None:
        super().__init__()
        self.__dict__["_network"] = network  # not as a child: its weights stay where they are
        self._layer = layer

    def forward(self, given: Float[Tensor, "row width"], *state: Float[Tensor, "row hidden"]) -> tuple[Tensor, ...]:
        network = self.__dict__["_network"]
        weights = [getattr(network, f"{name}_l{self._layer}") for name in _WEIGHTS[: 4 if network.bias else 2]]
        if isinstance(network, nn.LSTM):
            hidden, cell = torch.lstm_cell(given, state, *weights)
            return hidden, cell
        if isinstance(network, nn.GRU):
            return (torch.gru_cell(given, state[0], *weights),)
        cell_of = torch.rnn_relu_cell if network.nonlinearity == "relu" else torch.rnn_tanh_cell
        return (cell_of(given, state[0], *weights),)


_WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def _steps(network: nn.RNNBase) -> list[Step]:
    """Raises: ModelError for a network that runs backwards too, or projects its hidden state."""
    if network.bidirectional or network.proj_size:
        what = "bidirectional" if network.bidirectional else "with a projection (proj_size)"
        raise ModelError(
            f"a {type(network).__name__} that is {what} cannot be run step by step; need one direction, no projection"
        )
    return [Step(network, layer) for layer in range(network.num_layers)]


@contextmanager
def _stepwise(network: nn.RNNBase | None, steps: Sequence[Step]) -> Iterator[None]:
    """Within, the recurrent network is run by its steps."""
    if network is None:
        yield
        return
    # On the instance, so that hooks on the network itself, ours and others', go on to work.
    network.__dict__["forward"] = _unrolled(network, steps)
    try:
        yield
    finally:
        del network.__dict__["forward"]


def _unrolled(network: nn.RNNBase, steps: Sequence[Step]) -> Callable[..., Any]:
    """What the network's own forward gives: all hidden states of the last layer, and the last states of all layers."""

    def forward(given: Tensor, state: Any = None) -> Any:
        if not isinstance(given, Tensor) or given.ndim != 3:
            raise ModelError(
                f"a {type(network).__name__} run step by step is given a tensor (row, time, width), not packed"
            )
        times = given.transpose(0, 1) if network.batch_first else given
        states = _first_states(network, state, times)
        hidden = []
        for now in times:
            for at, step in enumerate(steps):
                states[at] = step(now, *states[at])
                now = states[at][0]
            hidden.append(now)
        out = torch.stack(hidden, dim=1 if network.batch_first else 0)
        last = tuple(torch.stack([state[part] for state in states]) for part in range(len(states[0])))
        return out, last if isinstance(network, nn.LSTM) else last[0]

    return forward


def _first_states(network: nn.RNNBase, state: Any, times: Tensor) -> list[tuple[Tensor, ...]]:
    """Of each layer; zero where none is given."""
    parts = 2 if isinstance(network, nn.LSTM) else 1
    if state is None:
        zero = times.new_zeros(times.shape[1], network.hidden_size)
        return [(zero,) * parts for _ in range(network.num_layers)]
    given = state if isinstance(state, tuple) else (state,)
    return [tuple(part[layer] for part in given) for layer in range(network.num_layers)]


def _blocks(module: nn.Module, path: str | None) -> nn.Module:
    """The module whose children are the blocks, or the recurrent network."""
    if path is not None:
        found = module if path == "" else module_at(module, path)
        if found is None or not (isinstance(found, nn.RNNBase) or len(list(found.children()))):
            raise ModelError(
                f"{type(module).__name__} has no blocks at {path!r}; name a list of modules, a GRU or an LSTM"
            )
        return found
    recurrent = [m for m in module.modules() if isinstance(m, nn.RNNBase)]
    if len(recurrent) == 1:
        return recurrent[0]
    for name in BLOCKS:
        found = module_at(module, name)
        if isinstance(found, nn.ModuleList | nn.Sequential) and len(found):
            return found
    lists = [m for m in module.modules() if isinstance(m, nn.ModuleList | nn.Sequential) and len(m)]
    if len(lists) == 1:
        return lists[0]
    got = (
        "several recurrent networks"
        if recurrent
        else f"{len(lists)} lists of modules"
        if lists
        else "no list of modules"
    )
    raise ModelError(f"{type(module).__name__} has {got}; say which are the layers (blocks: a dotted path)")


def _tensor(given: Given) -> Tensor:
    assert isinstance(given, Stimulus), "a network on tensors is given a tensor"
    return given.tensor
