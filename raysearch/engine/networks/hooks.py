"""Forward hooks that we own: put on, counted, and taken off again.

An activation is the first tensor that a module is given (side "input") or puts out ("output"), seen
as (row, token, width). A module may run several times in a forward pass, each time on the tokens
that follow (a recurrent network's step, a new token).

Invariants: each hook fires exactly as often as it should, else an error; ours are removed however
the block is left; those of others are never touched.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor, nn

from raysearch.errors import ModelError

HookSide = Literal["input", "output"]
FIRST_ARGUMENTS = ("hidden_states", "input", "x", "inputs_embeds", "input_ids")
"""Names under which a module may be given its activation, where it is not given it first in line.
"""


@dataclass(frozen=True, slots=True)
class ModuleCall:
    """The arguments that a module was called with."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def activation(self) -> Any:
        """The first of them, or the one that goes by a name of `FIRST_ARGUMENTS`."""
        return self.args[0] if self.args else self.kwargs.get(self._name)

    def put(self, new: Tensor) -> "ModuleCall":
        """The call with `new` in the place of its activation."""
        new = new.reshape(self.activation.shape)
        return (
            ModuleCall((new, *self.args[1:]), self.kwargs)
            if self.args
            else ModuleCall((), {**self.kwargs, self._name: new})
        )

    @property
    def _name(self) -> str:
        return next((name for name in FIRST_ARGUMENTS if name in self.kwargs), "")


@dataclass(frozen=True, slots=True)
class HookCall:
    """One firing: how many tokens came before, and whether it is the last."""

    first: int
    last: bool


Edit = Callable[[Tensor, HookCall], Tensor | None]
"""Sees an activation (row, token, width); what it returns takes its place, None leaves it as it is.
"""


@dataclass(frozen=True, slots=True)
class Hook:
    """`edit`, to be applied to what `module` is given or puts out, at each of its `times` (None:
    once or more, as it comes).

    `flat`: the activation may lack the token dimension. `first`: so many tokens came before.
    `block`: in which the module lies: where the module sees the tokens of all rows as one list, the
    input of the block says which are whose.
    """

    module: nn.Module
    side: HookSide
    edit: Edit
    times: int | None = 1
    flat: bool = False
    first: int = 0
    block: nn.Module | None = None


class MisfiredHookError(AssertionError):
    """A hook of ours fired too often or not at all: what was read or written is not what was meant."""


@contextmanager
def owned_hooks(hooks: Sequence[Hook]) -> Iterator[None]:
    """Within, each edit is applied whenever its module runs; edits on one side of one module in the
    order of `hooks`.

    Raises: MisfiredHookError at the end where one did not fire exactly `times` times (not if the
    block itself raised).
    """
    fired = [0] * len(hooks)
    with ExitStack() as stack:
        for at, hook in enumerate(hooks):
            stack.enter_context(_on(hook, fired, at))
        yield
    for hook, count in zip(hooks, fired, strict=True):
        if count != hook.times and not (hook.times is None and count):
            name, should = (
                type(hook.module).__name__,
                "at least once" if hook.times is None else hook.times,
            )
            raise MisfiredHookError(f"a hook on {name} fired {count} times; it should {should}")


def output_activation(output: Any) -> Any:
    """What a module put out, or the first of several."""
    return output[0] if isinstance(output, tuple | list) and output else output


def seen(
    activation: Any, flat: bool = False, shape: tuple[int, int] | None = None
) -> Float[Tensor, "row token width"]:
    """The activation, in three dimensions. `shape`: rows and tokens, where it may have them in one
    dimension, or others of length 1.

    Raises: ModelError where it has another shape.
    """
    if isinstance(activation, Tensor) and activation.ndim == 3:
        return activation
    if isinstance(activation, Tensor) and shape and _is_of(_leading(activation), shape):
        return activation.reshape(*shape, activation.shape[-1])
    if flat and isinstance(activation, Tensor) and activation.ndim == 2:
        return activation[:, None]
    got = tuple(activation.shape) if isinstance(activation, Tensor) else type(activation).__name__
    raise ModelError(
        f"an activation is {got}; need a tensor (row, token, width), or a tuple that begins with "
        f"one"
    )


def _leading(activation: Any) -> Sequence[int]:
    """All dimensions but the last."""
    return activation.shape[:-1] if isinstance(activation, Tensor) else ()


def _is_of(given: Sequence[int], shape: tuple[int, int]) -> bool:
    """Whether these dimensions are rows and tokens: one after the other, or in one."""
    return [n for n in given if n != 1] in ([n for n in shape if n != 1], [shape[0] * shape[1]])


@contextmanager
def _on(hook: Hook, fired: list[int], at: int) -> Iterator[None]:
    tokens = hook.first
    shape: tuple[int, int] | None = None

    def entered(_block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        nonlocal shape
        given = output_activation(ModuleCall(args, kwargs).activation)
        shape = (
            (len(given), given.shape[1]) if isinstance(given, Tensor) and given.ndim == 3 else None
        )

    def edited(activation: Any) -> Tensor | None:
        nonlocal tokens
        fired[at] += 1
        whole = None if shape is None or not tokens else (shape[0], tokens + shape[1])
        if whole is not None and _is_of(
            _leading(activation), whole
        ):  # what a cache kept of the tokens before is seen again
            shaped, first = seen(activation, shape=whole), 0
        else:
            shaped, first = seen(activation, hook.flat, shape), tokens
        moment = HookCall(first, fired[at] == hook.times)
        tokens = first + shaped.shape[1]
        return hook.edit(shaped, moment)

    def before(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        call = ModuleCall(args, kwargs)
        new = edited(call.activation)
        if new is None:
            return None
        call = call.put(new)
        return call.args, call.kwargs

    def after(
        _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> Any:
        activation = output_activation(output)
        new = edited(activation)
        if new is None:
            return None
        new = new.reshape(activation.shape)
        if isinstance(output, list):
            return [new, *output[1:]]
        return (new, *output[1:]) if isinstance(output, tuple) else new

    handles = (
        []
        if hook.block is None
        else [hook.block.register_forward_pre_hook(entered, with_kwargs=True)]
    )
    if hook.side == "input":
        handles.append(hook.module.register_forward_pre_hook(before, with_kwargs=True))
    else:
        handles.append(hook.module.register_forward_hook(after, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
