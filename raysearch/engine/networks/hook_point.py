"""Hook points: where in a network a component of a layer is read and written.

Invariants: the vector of a component is all columns of its hook point, in their order: head by
head, if it has heads.
"""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor, nn

from raysearch.engine.networks.hooks import Edit, Hook, HookSide
from raysearch.engine.networks.network import ModelInput, Network


@dataclass(frozen=True, slots=True)
class HookPoint:
    """The place of a component in one layer. `columns`: its columns in the module's tensor, in the
    component's order (None: all).

    `layer`, `block`: the block around the module, None outside of the blocks; `is_block`: whether
    the module is that block. `heads`: number of heads of the vector, 0 for a component without
    heads.
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

    def read(self, activation: Float[Tensor, "*rows _"]) -> Float[Tensor, "*rows width"]:
        """Returns the component's part of the module's activation, whose last dimension is the
        vector."""
        return (
            activation
            if self.columns is None
            else activation[..., self.columns.to(activation.device)]
        )

    def hook(self, edit: Edit, times: int | None = 1, flat: bool = False, first: int = 0) -> Hook:
        """Returns a hook that applies `edit` here; see `hooks.Hook`."""
        return Hook(
            self.module, self.side, edit, times, flat, first, None if self.is_block else self.block
        )


def hook_at(network: Network, hook_point: HookPoint, edit: Edit, given: ModelInput) -> Hook:
    """Returns a hook that applies `edit` at `hook_point` in a forward pass on inputs with the batch
    key of `given`."""
    return hook_point.hook(edit, network.firings(hook_point.module, given), network.flat)
