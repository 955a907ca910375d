"""The kind of object that `model.path: file.py:factory` names. This module does not import torch: a
driver names a job's code without it."""

from typing import get_type_hints

from raysearch.user_code import CodeKind


def _is_module(found: object) -> bool:
    from torch import nn

    return isinstance(found, nn.Module)


def _makes_modules(found: object) -> bool:
    from torch import nn

    return isinstance(found, type) and issubclass(found, nn.Module)


def _returns_module(function: object) -> bool:
    """Returns whether a function is annotated to return a module."""
    try:
        return _makes_modules(get_type_hints(function).get("return"))
    except (NameError, TypeError):
        return False


NETWORK = CodeKind(
    what="a function that returns a torch.nn.Module, or one itself",
    would_do="my_file.py:factory, or an installed module's",
    is_one=_is_module,
    is_class=_makes_modules,
    may_call=_returns_module,
)
