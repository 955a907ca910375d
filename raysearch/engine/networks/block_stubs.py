"""Stubs in place of a model's blocks and of single layers: the model's own forward pass, with other
code where these would run.

Invariants: the model has its own blocks and layers again however a call ends; the blocks, and hooks
of others on them, are not touched.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from raysearch.engine.networks.hooks import as_rows_and_tokens, output_activation

Stub = Callable[[int, Tensor, tuple[Any, ...], dict[str, Any]], Tensor]
"""Replaces a block: takes its layer, its residual and its other arguments, and returns a residual.
"""


class _BlockStub(nn.Module):
    """Stands in for a block and has its attributes, since models ask a block for its type of
    attention."""

    def __init__(self, layer: int, block: nn.Module, stub: Stub, tuples: bool) -> None:
        super().__init__()
        # Not registered as a child, so that the block is not moved or listed twice.
        self.__dict__["_stubbed"] = (layer, block, stub, tuples)

    def forward(self, given: Any, *args: Any, **kwargs: Any) -> Any:
        layer, _, stub, tuples = self.__dict__["_stubbed"]
        hidden = stub(layer, as_rows_and_tokens(output_activation(given)), args, kwargs)
        return (hidden,) if tuples else hidden

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_stubbed"][1], name)


@contextmanager
def replaced_forward(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Runs `forward` where the module's own forward would run."""
    before = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if before is not None:
            module.forward = before


@contextmanager
def without_product(layer: nn.Linear | None) -> Iterator[None]:
    """Makes a linear layer, if there is one, return zeros of its output's shape."""
    if layer is None:
        yield
        return

    def zeros(given: Tensor) -> Tensor:
        return given.new_zeros((*given.shape[:-1], layer.out_features))

    with replaced_forward(layer, zeros):
        yield


@contextmanager
def stub_blocks(
    layers: nn.ModuleList, stub: Stub, tuples: bool, first: int = 0, end: int | None = None
) -> Iterator[None]:
    """Replaces the model's blocks from `first` to before `end` (None: all that follow) by `stub`,
    whose residual is returned in a tuple if `tuples`, else bare."""
    blocks = list(enumerate(layers))[first:end]
    try:
        for layer, block in blocks:
            layers[layer] = _BlockStub(layer, block, stub, tuples)
        yield
    finally:
        for layer, block in blocks:
            layers[layer] = block
