"""Taps: where in a network a component of a layer is read and written.

Invariants: a component's vector is all the columns of its tap, in the tap's order: head by head,
where it has heads.
"""

from dataclasses import dataclass

from jaxtyping import Int
from torch import Tensor, nn

from raysearch.engine.networks.hooks import Edit, Hook, HookSide
from raysearch.engine.networks.network import ModelInput, Network


@dataclass(frozen=True, slots=True)
class HookPoint:
    """Where a component of a layer is. `columns`: which of the module's tensor it is, in its own
    order (None: all).

    `layer`, `block`: the block in which it lies, None outside of the blocks; `is_block`: whether
    the module is that block itself. `heads`: how many the vector divides into, 0 for a component
    without heads.
    """

    module: nn.Module
    side: HookSide
    layer: int | None
    block: nn.Module | None
    columns: Int[Tensor, "width"] | None
    width: int
    heads: int

    @property
    def is_block(self) -> bool:
        return self.module is self.block

    def read(self, activation: Tensor) -> Tensor:
        """The component in the module's activation, whose last dimension is its vector."""
        return (
            activation
            if self.columns is None
            else activation[..., self.columns.to(activation.device)]
        )

    def hook(self, edit: Edit, times: int | None = 1, flat: bool = False, first: int = 0) -> Hook:
        """The hook that applies `edit` here; see `hooks.Hook`."""
        return Hook(
            self.module, self.side, edit, times, flat, first, None if self.is_block else self.block
        )


def hook_at(network: Network, tap: HookPoint, edit: Edit, given: ModelInput) -> Hook:
    """The hook that applies `edit` at `tap` in a forward pass on the company of `given`."""
    return tap.hook(edit, network.firings(tap.module, given), network.flat)
