"""The type checker of the engine's tests: beartype, on those annotations that have shapes.

All others are mypy's, which checks them without a run: at run time they would cost three times the
tests' own time (protocols are slow to check, and each call of each function is wrapped).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from beartype import beartype
from jaxtyping import AbstractArray

ROOT = Path(__file__).parents[2]

SMALL = ("hook_point", "hooks", "network", "components")
"""Modules whose functions are called for each hook or row and hardly touch a tensor: the wrapper
around each call would cost more than the call."""


def modules(package: str) -> list[str]:
    """Returns the modules of `package` with shapes: those that import jaxtyping, but for `SMALL`."""
    files = sorted((ROOT / package.replace(".", "/")).rglob("*.py"))
    return [
        ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for file in files
        if file.stem not in SMALL and "from jaxtyping import" in file.read_text()
    ]


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Checks each annotation of `function` that has a shape whenever it is called."""
    shapes = {name: hint for name, hint in function.__annotations__.items() if has_shape(hint)}
    function.__annotations__ = shapes
    return beartype(function) if shapes else function


def has_shape(hint: Any) -> bool:
    """Returns whether a type hint is, or contains, an array of jaxtyping."""
    if isinstance(hint, list | tuple):
        return any(map(has_shape, hint))
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        return True
    return any(map(has_shape, get_args(hint)))
