"""Defines what turns pairs into inputs of a network. This module does not import torch."""

from collections.abc import Sequence
from typing import Protocol

from raysearch.causal import Pair
from raysearch.core.events import Encoded


class Encoder(Protocol):
    """Turns pairs into inputs of the network, with `positions` (and "last") and the counterfactuals
    of `variables`."""

    def __call__(
        self, pairs: Sequence[Pair], positions: Sequence[str], variables: Sequence[str]
    ) -> tuple[Encoded, ...]: ...
