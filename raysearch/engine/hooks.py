"""Forward hooks that we own: put on, counted, and taken off again.

Invariants: each hook fires exactly as often as it should, else an error; ours are removed however the block is left;
those of others are never touched.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from raysearch.engine.sites import residual_in, with_residual

Edit = Callable[[Tensor], Tensor | None]
"""Sees a block's residual (row, token, d_model); what it returns takes its place, None leaves it as it is."""


class MisfiredHookError(AssertionError):
    """A hook of ours fired too often or not at all: what was read or written is not what was meant."""


@contextmanager
def owned_hooks(hooks: Sequence[tuple[nn.Module, Edit]], times: int = 1) -> Iterator[None]:
    """Within, each edit is applied to the residual that its module puts out.

    Raises: MisfiredHookError at the end where one did not fire exactly `times` times (not if the block itself raised).
    """
    fired = [0] * len(hooks)

    def hook_of(at: int, edit: Edit) -> Callable[[nn.Module, Any, Any], Any]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> Any:
            fired[at] += 1
            edited = edit(residual_in(output))
            return None if edited is None else with_residual(output, edited)

        return hook

    handles = []
    try:
        for at, (module, edit) in enumerate(hooks):
            handles.append(module.register_forward_hook(hook_of(at, edit)))
        yield
    finally:
        for handle in handles:
            handle.remove()
    for (module, _), count in zip(hooks, fired, strict=True):
        if count != times:
            raise MisfiredHookError(f"a hook on {type(module).__name__} fired {count} times; it should {times}")
