"""Forward hooks with an owner: registered, counted and removed.

An activation is the first tensor that a module receives (side "input") or returns ("output"), seen
as (row, token, width). A module may run several times in a forward pass, each time on the next
tokens (a step of a recurrent network, a generated token).

Invariants: each hook fires exactly as often as it should, or an error is raised; hooks of this
package are removed however the block is left; hooks of others are never touched.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from raysearch.errors import ModelError

HookSide = Literal["input", "output"]
Activation = Float[Tensor, "row token width"]
"""What a hook is given. Functions that are made for each hook take their annotation from here:
Python evaluates it each time, and jaxtyping's takes some 20 us."""
FIRST_ARGUMENTS = ("hidden_states", "input", "x", "inputs_embeds", "input_ids")
"""Argument names under which a module may receive its activation if it is not the first positional
argument."""


@dataclass(frozen=True, slots=True)
class ModuleCall:
    """The arguments of one call of a module."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def activation(self) -> Any:
        """The first positional argument, or the keyword argument named in `FIRST_ARGUMENTS`."""
        return self.args[0] if self.args else self.kwargs.get(self._name)

    def put(self, new: Activation) -> "ModuleCall":
        """Returns the call with `new` as its activation."""
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
    """One firing of a hook. `first`: number of tokens before these; `last`: whether the hook fires
    no more."""

    first: int
    last: bool


Edit = Callable[[Activation, HookCall], Activation | None]
"""Receives an activation (row, token, width) and returns its replacement, or None to leave it
unchanged."""


@dataclass(frozen=True, slots=True)
class Hook:
    """Applies `edit` to the input or output of `module`, `times` times in a forward pass (None: any
    number, at least once).

    `flat`: the activation may lack the token dimension. `first`: number of tokens that came before.
    `block`: the block around the module; its input tells rows from tokens where the module receives
    the tokens of all rows in one list.
    """

    module: nn.Module
    side: HookSide
    edit: Edit
    times: int | None = 1
    flat: bool = False
    first: int = 0
    block: nn.Module | None = None


class MisfiredHookError(AssertionError):
    """A hook fired too often or not at all, so that the value read or written is not the intended
    one."""


@contextmanager
def owned_hooks(hooks: Sequence[Hook]) -> Iterator[None]:
    """Applies the edits whenever their modules run; edits on one side of one module act in the
    order of `hooks`.

    Raises: MisfiredHookError at the end if a hook did not fire exactly `times` times (not if the
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
    """Returns the output of a module, or the first of several outputs."""
    return output[0] if isinstance(output, tuple | list) and output else output


def as_rows_and_tokens(
    activation: Any, flat: bool = False, shape: tuple[int, int] | None = None
) -> Activation:
    """Returns the activation in three dimensions. `shape`: number of rows and tokens, which the
    activation may hold in one dimension or beside dimensions of length 1.

    Raises: ModelError for any other shape.
    """
    if isinstance(activation, Tensor) and activation.ndim == 3:
        return activation
    if (
        isinstance(activation, Tensor)
        and shape
        and _is_rows_and_tokens(_leading(activation), shape)
    ):
        return activation.reshape(*shape, activation.shape[-1])
    if flat and isinstance(activation, Tensor) and activation.ndim == 2:
        return activation[:, None]
    got = tuple(activation.shape) if isinstance(activation, Tensor) else type(activation).__name__
    raise ModelError(
        f"an activation is {got}; need a tensor (row, token, width), or a tuple that begins with "
        f"one"
    )


def _leading(activation: Any) -> Sequence[int]:
    """Returns all dimensions but the last."""
    return activation.shape[:-1] if isinstance(activation, Tensor) else ()


def _is_rows_and_tokens(given: Sequence[int], shape: tuple[int, int]) -> bool:
    """Returns whether these dimensions are rows and tokens, either in two dimensions or flattened
    into one."""
    return [n for n in given if n != 1] in ([n for n in shape if n != 1], [shape[0] * shape[1]])


@contextmanager
def _on(hook: Hook, fired: list[int], at: int) -> Iterator[None]:
    handles = _Registered(hook, fired, at).handles()
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Registered:
    """A hook as torch calls it. Counts the calls in `fired[at]`, and follows how many tokens the
    module has seen."""

    def __init__(self, hook: Hook, fired: list[int], at: int) -> None:
        self._hook, self._fired, self._at = hook, fired, at
        self._tokens = hook.first
        self._shape: tuple[int, int] | None = None
        """Rows and tokens of the block's input; None: not known."""

    def handles(self) -> list[RemovableHandle]:
        hook, handles = self._hook, []
        if hook.block is not None:
            handles.append(hook.block.register_forward_pre_hook(self._note_shape, with_kwargs=True))
        if hook.side == "input":
            handles.append(hook.module.register_forward_pre_hook(self._before, with_kwargs=True))
        else:
            handles.append(hook.module.register_forward_hook(self._after, with_kwargs=True))
        return handles

    def _note_shape(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = output_activation(ModuleCall(args, kwargs).activation)
        known = isinstance(given, Tensor) and given.ndim == 3
        self._shape = (len(given), given.shape[1]) if known else None

    def _before(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        call = ModuleCall(args, kwargs)
        new = self._apply(call.activation)
        if new is None:
            return None
        call = call.put(new)
        return call.args, call.kwargs

    def _after(
        self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> Any:
        activation = output_activation(output)
        new = self._apply(activation)
        if new is None:
            return None
        new = new.reshape(activation.shape)
        if isinstance(output, list):
            return [new, *output[1:]]
        return (new, *output[1:]) if isinstance(output, tuple) else new

    def _apply(self, activation: Any) -> Tensor | None:
        self._fired[self._at] += 1
        shape, tokens = self._shape, self._tokens
        whole = None if shape is None or not tokens else (shape[0], tokens + shape[1])
        if whole is not None and _is_rows_and_tokens(
            _leading(activation), whole
        ):  # the activation includes cached earlier tokens
            shaped, first = as_rows_and_tokens(activation, shape=whole), 0
        else:
            shaped, first = as_rows_and_tokens(activation, self._hook.flat, shape), tokens
        hook_call = HookCall(first, self._fired[self._at] == self._hook.times)
        self._tokens = first + shaped.shape[1]
        return self._hook.edit(shaped, hook_call)
