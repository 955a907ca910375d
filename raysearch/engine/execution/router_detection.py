"""Detects discrete choices on the way through a network, such as a router of experts makes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

CHOICES = (
    torch.topk,
    torch.argmax,
    torch.sort,
    torch.argsort,
    Tensor.topk,
    Tensor.argmax,
    Tensor.sort,
    Tensor.argsort,
)


class DiscreteChoices(TorchFunctionMode):
    """Detects whether the code within picks the best of some numbers, as a router of experts does.
    `seen`: the function that does."""

    seen: str | None = None

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if (
            func in CHOICES
            and isinstance(args[0] if args else None, Tensor)
            and args[0].is_floating_point()
        ):
            self.seen = str(getattr(func, "__name__", func))
        return func(*args, **(kwargs or {}))
