"""A device that is not the CPU, in Python alone: what a GPU refuses, it refuses, and what makes the
host wait for a GPU, it counts.

Its tensors say that they are on `DEVICE`, and hold a tensor of the CPU that computes. Registering
it changes a process for good (torch.accelerator is there from then on), so it has a process of its
own (`other_device_runs`).

- An operation on its tensors and one of the CPU with a dimension or more raises, as on a GPU; a
  copy between the two, a number of the CPU, and an index on the CPU may be. `.numpy()` raises.
- `found` counts *waits*, which stop the host until the device has done all it was given (a number
  is read, a tensor is copied to the host, a size depends on numbers), and *uploads* of pageable
  memory: those that stop the host too ("copy", "list index", "index on the CPU"), and others
  ("copy, not waiting").

It cannot show what CUDA kernels compute, streams and races, memory that is full, or code that asks
for a device of type "cuda". torch.inference_mode is torch.no_grad here: a tensor subclass does not
live through it.
"""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

import raysearch

NAME = "other"
SOURCES = str(Path(str(raysearch.__file__)).parent)
COPYING = "to_device.py"
"""The file whose callers are counted in its place."""
ELSEWHERE = "elsewhere"
"""The place of what no line of raysearch asked for, such as a backward pass."""

aten = torch.ops.aten
COPIES = aten.copy_.default, aten._to_copy.default
INDEXED = aten.index.Tensor, aten.index_put.default, aten.index_put_.default
SIZED_BY_NUMBERS = {
    aten.nonzero.default: "nonzero",
    aten.masked_select.default: "masked_select",
    aten.equal.default: "equal",
    aten.is_nonzero.default: "bool",
    aten._local_scalar_dense.default: "item",
}

found: Counter[tuple[str, str]] = Counter()
"""How often, by (kind, "file:line" in raysearch)."""


class _Module(backend_registration._DummyBackendModule):
    """What torch asks of a device's module besides: its random numbers are those of the CPU."""

    def get_rng_state(self, device: object = None) -> Tensor:
        return torch.random.get_rng_state()

    def set_rng_state(self, state: Tensor, device: object = None) -> None:
        torch.random.set_rng_state(state)


backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
DEVICE = torch.device(NAME, 0)


class OtherTensor(Tensor):
    """A tensor on `DEVICE`; `inner` holds its numbers."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> "OtherTensor":
        made = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device=DEVICE,
        )
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})


class _Operations(TorchDispatchMode):
    """Sees operations that make a tensor on the device of nothing."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if any(map(_is_here, args)) or _is_here(kwargs.get("device")):
            return _computed(func, args, kwargs)
        return func(*args, **kwargs)


class _Functions(TorchFunctionMode):
    """Sees what torch does in C++ below its operations."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor) and _is_here(kwargs.get("device")):
            kwargs.pop("device")
            return func(*args, **kwargs).to(DEVICE)
        if args and isinstance(args[0], OtherTensor):
            if func is Tensor.tolist:
                _count("tolist")
                return args[0].inner.tolist()
            if func is Tensor.numpy:
                raise TypeError("can't convert a tensor of another device to numpy; .cpu() first")
            if func in (Tensor.__getitem__, Tensor.__setitem__):
                args = (args[0], _index(args[1]), *args[2:])
            if func == Tensor.data.__set__:
                args[0].inner = args[1].inner
            if func is torch.gru_cell:
                return _gru_cell(*args)
        return func(*args, **kwargs)


@contextmanager
def in_use() -> Iterator[None]:
    """Makes the device usable within."""
    mode = torch.inference_mode
    kept = mode.__enter__, mode.__exit__
    mode.__enter__, mode.__exit__ = _enter, _leave
    try:
        with _Functions(), _Operations():
            yield
    finally:
        mode.__enter__, mode.__exit__ = kept


def _enter(self: Any) -> None:
    """What torch.inference_mode does here: as torch.no_grad."""
    self.before = torch.is_grad_enabled()
    torch.set_grad_enabled(self.before and not self.mode)


def _leave(self: Any, *_: object) -> None:
    torch.set_grad_enabled(self.before)


def _computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """What an operation gives that its tensors or its `device` bring here: computed by the CPU."""
    here: list[OtherTensor] = []
    on_cpu: list[Tensor] = []
    to_cpu = _goes_to_cpu(func, args, kwargs)
    inner_args = _inner(args, here, on_cpu)
    inner_kwargs = {name: _inner(of, here, on_cpu) for name, of in kwargs.items()}
    inner_kwargs.pop("pin_memory", None)
    _look(func, args, kwargs, on_cpu, to_cpu)
    with _disable_current_modes():
        out = func(*inner_args, **inner_kwargs)
    if to_cpu:
        return out
    known = {id(of.inner): of for of in here} | {id(of): of for of in on_cpu}
    return _outer(out, known)


def _inner(of: Any, here: list[OtherTensor], on_cpu: list[Tensor]) -> Any:
    """What the CPU is given for an argument; adds its tensors to `here` or `on_cpu`."""
    if isinstance(of, OtherTensor):
        here.append(of)
        return of.inner
    if isinstance(of, Tensor):
        on_cpu.append(of)
    elif isinstance(of, list | tuple):
        return [_inner(one, here, on_cpu) for one in of]
    elif isinstance(of, torch.device) and of.type == NAME:
        return torch.device("cpu")
    return of


def _outer(out: Any, known: dict[int, Tensor]) -> Any:
    """What an operation returns: tensors that it was given as they are, others on the device."""
    if isinstance(out, Tensor):
        return known[id(out)] if id(out) in known else OtherTensor(out)
    return tuple(_outer(of, known) for of in out) if isinstance(out, list | tuple) else out


def _gru_cell(
    given: Tensor, state: Tensor, of_given: Tensor, of_state: Tensor, *biases: Tensor
) -> Tensor:
    """A step of a gated recurrent unit: a GPU has a kernel for it that the CPU lacks."""
    left = torch.nn.functional.linear(given, of_given, *biases[:1]).chunk(3, 1)
    right = torch.nn.functional.linear(state, of_state, *biases[1:]).chunk(3, 1)
    reset, update = (left[0] + right[0]).sigmoid(), (left[1] + right[1]).sigmoid()
    new = (left[2] + reset * right[2]).tanh()
    return new + update * (state - new)


def _goes_to_cpu(func: Any, args: Any, kwargs: dict[str, Any]) -> bool:
    if func is aten.copy_.default:
        return not isinstance(args[0], OtherTensor)
    return kwargs.get("device") is not None and not _is_here(kwargs["device"])


def _look(
    func: Any, args: Any, kwargs: dict[str, Any], on_cpu: Sequence[Tensor], to_cpu: bool
) -> None:
    """Counts what waits or copies. Raises: RuntimeError for tensors of two devices."""
    if func in COPIES:
        if to_cpu:
            _count("to the CPU")
        elif on_cpu and on_cpu[0].numel():
            waits = not (kwargs.get("non_blocking") or args[2:3] == (True,))
            _count("copy" if waits else "copy, not waiting")
        return
    if _is_here(kwargs.get("device")):  # a new tensor, of the shape of one elsewhere
        return
    indices: list[Any] = []
    if func in SIZED_BY_NUMBERS:
        _count(SIZED_BY_NUMBERS[func])
    elif func in INDEXED and isinstance(args[0], OtherTensor):
        indices = [of for of in args[1] if of is not None]
        if any(of.dtype == torch.bool for of in indices):
            _count("bool index")
        if any(not isinstance(of, OtherTensor) and of.ndim for of in indices):
            _count("index on the CPU")
    shapes = [tuple(of.shape) for of in on_cpu if of.ndim and all(of is not i for i in indices)]
    if shapes:
        raise RuntimeError(f"{func}: tensors of the shapes {shapes} are on the CPU, others not")


def _index(index: Any) -> Any:
    """An index whose lists and arrays are tensors here, copied as torch copies them."""
    if isinstance(index, tuple):
        return tuple(map(_index, index))
    if isinstance(index, list | np.ndarray):
        _count("list index")
        with _disable_current_modes():
            return OtherTensor(torch.as_tensor(index))
    return index


def _is_here(of: Any) -> bool:
    if isinstance(of, list | tuple):
        return any(map(_is_here, of))
    return isinstance(of, OtherTensor) or (isinstance(of, torch.device) and of.type == NAME)


def _count(kind: str) -> None:
    """Counts one, at the innermost line of raysearch that runs."""
    frame, place = sys._getframe(), ELSEWHERE
    while frame is not None and place == ELSEWHERE:
        file, frame, line = frame.f_code.co_filename, frame.f_back, frame.f_lineno
        if file.startswith(SOURCES) and not file.endswith(COPYING):
            place = f"{Path(file).relative_to(SOURCES)}:{line}"
    found[kind, place] += 1
