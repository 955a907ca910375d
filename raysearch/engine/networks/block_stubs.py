"""Stubs in the place of a model's blocks: its own forward pass, with something else done where the
blocks would run.

Invariants: the model has its own blocks again however a call is left; the blocks, and the hooks of
others on them, are not touched.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from raysearch.engine.networks.hooks import output_activation, seen

Stub = Callable[[int, Tensor, tuple[Any, ...], dict[str, Any]], Tensor]
"""Stands for a block: of its layer, its residual and its other arguments makes a residual."""


class _BlockStub(nn.Module):
    """Stands in the place of a block, with the block's own attributes (models ask a block for its
    type of attention)."""

    def __init__(self, layer: int, block: nn.Module, stub: Stub, tuples: bool) -> None:
        super().__init__()
        # Not as a child: the block must not be moved or listed twice.
        self.__dict__["_stubbed"] = (layer, block, stub, tuples)

    def forward(self, given: Any, *args: Any, **kwargs: Any) -> Any:
        layer, _, stub, tuples = self.__dict__["_stubbed"]
        hidden = stub(layer, seen(output_activation(given)), args, kwargs)
        return (hidden,) if tuples else hidden

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_stubbed"][1], name)


@contextmanager
def stubbed(
    layers: nn.ModuleList, stub: Stub, tuples: bool, count: int | None = None
) -> Iterator[None]:
    """Within, `stub` stands for the model's first `count` blocks (None: all), returning a residual
    as they do (in a tuple or bare)."""
    blocks = list(layers)[:count]
    try:
        for layer, block in enumerate(blocks):
            layers[layer] = _BlockStub(layer, block, stub, tuples)
        yield
    finally:
        for layer, block in enumerate(blocks):
            layers[layer] = block
