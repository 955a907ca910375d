"""Shapes of the inputs and outputs of every module of a network on tensors, observed once on a few
equal rows.

Invariants: an activation can be patched if its first dimension is the row for any number of rows;
the network is left unchanged.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from raysearch.engine.networks.hooks import HookSide, ModuleCall, output_activation

ROWS = 2, 3
"""Numbers of equal rows that are run: the dimension that changes with them is the row."""

ModuleKey = tuple[int, HookSide]
"""The id of a module, and its side."""


@dataclass(frozen=True, slots=True)
class ActivationShape:
    """Number of tokens over all runs of a module, and their width. `wrong`: why the activation
    cannot be patched."""

    tokens: int
    width: int
    wrong: str | None = None


def activation_shapes_of(
    modules: Sequence[nn.Module], run: Callable[[int], Any]
) -> Mapping[ModuleKey, ActivationShape]:
    """Observes the inputs and outputs of each of `modules` while `run(rows)` runs the network on
    that many rows.

    If the network takes only one row at a time, one row is observed.
    """
    try:
        trials = [(rows, _activations(modules, partial(run, rows))) for rows in ROWS]
    except Exception:  # noqa: BLE001  the module may take single rows only
        trials = [(1, _activations(modules, partial(run, 1)))]
    return {
        key: _seen([(rows, found.get(key, [])) for rows, found in trials]) for key in trials[0][1]
    }


def patchable(module: nn.Module, seen: Mapping[ModuleKey, ActivationShape]) -> list[str]:
    """Returns the names of the module outputs that can be patched, as a job names them, in module
    order."""
    return [
        f"{name}.output"
        for name, one in module.named_modules()
        if name and (found := seen.get((id(one), "output"))) is not None and found.wrong is None
    ]


def _activations(
    modules: Sequence[nn.Module], run: Callable[[], Any]
) -> dict[ModuleKey, list[Any]]:
    found: dict[ModuleKey, list[Any]] = {}

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        found.setdefault((id(module), "input"), []).append(ModuleCall(args, kwargs).activation)

    def after(module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        found.setdefault((id(module), "output"), []).append(output_activation(output))

    handles = [module.register_forward_pre_hook(before, with_kwargs=True) for module in modules]
    handles += [module.register_forward_hook(after) for module in modules]
    try:
        with torch.inference_mode():
            run()
    finally:
        for handle in handles:
            handle.remove()
    return found


def _seen(trials: Sequence[tuple[int, Sequence[Any]]]) -> ActivationShape:
    """Combines the activations of one module and side: for each trial, one for each run."""
    wrong = next(
        (w for rows, runs in trials for w in (_wrong(rows, run) for run in runs) if w), None
    )
    if wrong is not None:
        return ActivationShape(0, 0, wrong)
    _, runs = trials[0]
    widths = {run.shape[-1] for run in runs}
    if len(widths) > 1 or any(len(other) != len(runs) for _, other in trials):
        return ActivationShape(
            0,
            0,
            f"its runs put out vectors of {', '.join(map(str, sorted(widths)))} numbers; they need "
            f"be alike",
        )
    return ActivationShape(sum(run.shape[1] if run.ndim == 3 else 1 for run in runs), *widths)


def _wrong(rows: int, activation: Any) -> str | None:
    if not isinstance(activation, Tensor):
        return (
            f"its activation is {type(activation).__name__}, not a tensor (row, width) or "
            f"(row, token, width)"
        )
    shape = tuple(activation.shape)
    if activation.ndim not in (2, 3):
        return f"its activation is {shape}, not (row, width) or (row, token, width)"
    if shape[0] != rows:
        return (
            f"its activation is {shape} on {rows} row{'s' * (rows > 1)}: the row is not its first "
            f"dimension (batch_first)"
        )
    return (
        None
        if activation.is_floating_point()
        else f"its activation is whole numbers ({activation.dtype})"
    )
