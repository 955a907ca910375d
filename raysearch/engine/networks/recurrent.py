"""Recurrent networks run step by step: one layer at one time step is one run of one module, so that
hooks can act on it.

Invariants: the steps give the outputs of the network's own forward pass, with its own weights; the
network is left unchanged.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from raysearch.errors import ModelError


class Step(nn.Module):
    """One layer of a recurrent network at one time step: takes (input, state) and returns the new
    state, hidden vector first."""

    def __init__(self, network: nn.RNNBase, layer: int) -> None:
        super().__init__()
        self.__dict__["_network"] = (
            network  # not registered as a child: its weights stay where they are
        )
        self._layer = layer

    def forward(
        self, given: Float[Tensor, "row width"], *state: Float[Tensor, "row hidden"]
    ) -> tuple[Float[Tensor, "row hidden"], ...]:
        network = self.__dict__["_network"]
        weights = [
            getattr(network, f"{name}_l{self._layer}")
            for name in _WEIGHTS[: 4 if network.bias else 2]
        ]
        if isinstance(network, nn.LSTM):
            hidden, cell = torch.lstm_cell(given, state, *weights)
            return hidden, cell
        if isinstance(network, nn.GRU):
            return (torch.gru_cell(given, state[0], *weights),)
        cell_of = torch.rnn_relu_cell if network.nonlinearity == "relu" else torch.rnn_tanh_cell
        return (cell_of(given, state[0], *weights),)


_WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def unsteppable(network: nn.RNNBase) -> str:
    """Returns why the layers cannot be run step by step (bidirectional, or a projected hidden
    state), or "" if they can."""
    if not (network.bidirectional or network.proj_size):
        return ""
    what = "bidirectional" if network.bidirectional else "with a projection (proj_size)"
    return (
        f"its {type(network).__name__} is {what}, and one of one direction without a projection "
        f"alone is run step by step"
    )


def steps_of(network: nn.RNNBase) -> list[Step]:
    """Returns one step for each layer. Raises: ModelError for a network that is bidirectional or
    projects its hidden state."""
    if reason := unsteppable(network):
        raise ModelError(reason)
    return [Step(network, layer) for layer in range(network.num_layers)]


@contextmanager
def stepwise(network: nn.RNNBase | None, steps: Sequence[Step]) -> Iterator[None]:
    """Runs the recurrent network by its steps while the context is open."""
    if network is None:
        yield
        return
    # Set on the instance, so that all hooks on the network itself still work.
    network.__dict__["forward"] = _unrolled(network, steps)
    try:
        yield
    finally:
        del network.__dict__["forward"]


def _unrolled(network: nn.RNNBase, steps: Sequence[Step]) -> Callable[..., Any]:
    """Returns a forward function with the outputs of the network's own: the hidden states of the
    last layer, and the last states of all layers."""

    def forward(given: Tensor, state: Any = None) -> Any:
        if not isinstance(given, Tensor) or given.ndim != 3:
            raise ModelError(
                f"a {type(network).__name__} run step by step is given a tensor (row, time, "
                f"width), not packed"
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
        last = tuple(
            torch.stack([state[part] for state in states]) for part in range(len(states[0]))
        )
        return out, last if isinstance(network, nn.LSTM) else last[0]

    return forward


def _first_states(network: nn.RNNBase, state: Any, times: Tensor) -> list[tuple[Tensor, ...]]:
    """Returns the initial state of each layer; zero if none is given."""
    parts = 2 if isinstance(network, nn.LSTM) else 1
    if state is None:
        zero = times.new_zeros(times.shape[1], network.hidden_size)
        return [(zero,) * parts for _ in range(network.num_layers)]
    given = state if isinstance(state, tuple) else (state,)
    return [tuple(part[layer] for part in given) for layer in range(network.num_layers)]
