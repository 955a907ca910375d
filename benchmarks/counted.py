"""Counts what a replica does while it works, by its own methods and torch's dispatcher.

`Watch` counts waves, captures and steps at hardly any cost. `Count` counts kernels too, which
takes time: it is for tasks that are not timed.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from raysearch.engine.execution.activation_cache import ActivationCache
from raysearch.engine.execution.block_arguments import Template
from raysearch.engine.execution.evaluate import Evaluator
from raysearch.engine.execution.evaluate_swaps import SwapEvaluator
from raysearch.engine.execution.wave_cache import WaveCache
from raysearch.engine.execution.wave_executor import WaveExecutor
from raysearch.engine.training.stretch import TrainingStretch

WAITING_METHODS = "tolist", "cpu"
WAITING_KERNELS = "_local_scalar_dense", "nonzero", "masked_select"
"""What makes the host wait for the device; `item`, `bool`, `int` and `float` come down to the first
of the kernels."""

Around = Callable[..., AbstractContextManager[None]]


class Watch(ExitStack):
    """Counts, while it is entered: waves, inputs that were captured and how many distinct ones
    these are, steps of training and the host's seconds in them."""

    def __init__(self) -> None:
        super().__init__()
        self.waves = self.steps = self.captured = 0
        self.step_seconds = 0.0
        self.inputs: set[object] = set()

    def __enter__(self) -> "Watch":
        super().__enter__()
        self.enter_context(_around(WaveExecutor, "swap_logits", self._wave))
        self.enter_context(_around(WaveExecutor, "begin_swaps", self._wave))
        self.enter_context(_around(ActivationCache, "_run", self._capture))
        self.enter_context(_around(TrainingStretch, "step", self._step))
        return self

    @property
    def captures_per_input(self) -> float:
        """How often an input was captured, in the mean."""
        return self.captured / max(len(self.inputs), 1)

    @contextmanager
    def _wave(self, *_: object) -> Iterator[None]:
        self.waves += 1
        yield

    @contextmanager
    def _capture(self, _: object, batch: Any, *__: object, **___: object) -> Iterator[None]:
        self.captured += len(batch)
        self.inputs |= {row.base for row in batch}
        yield

    @contextmanager
    def _step(self, *_: object) -> Iterator[None]:
        self.steps += 1
        began = time.perf_counter()
        yield
        self.step_seconds += time.perf_counter() - began


class Count(TorchDispatchMode):
    """Counts by place, while it is entered: kernels, waits, bytes of keys and values that are
    written to new memory beside a layer's own, and the shapes in which layers are called.

    Places: `wave`, `layer` (a block on a wave), `step` (of training), `capture`, `canonical` (a row
    that is decided again).
    """

    PLACES: tuple[tuple[type, str, str], ...] = (
        (SwapEvaluator, "_predict", "wave"),
        (Template, "call", "layer"),
        (TrainingStretch, "step", "step"),
        (ActivationCache, "_run_all", "capture"),
        (Evaluator, "canonical", "canonical"),
        (WaveCache, "__init__", "keys"),
        (WaveCache, "update", "keys"),
    )

    def __init__(self) -> None:
        super().__init__()
        self.kernels: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self.entered: Counter[str] = Counter()
        self.shapes: set[object] = set()
        self.bytes = 0
        self._within: list[str] = ["other"]
        self._replaced = ExitStack()

    def __enter__(self) -> "Count":
        for kind, method, place in self.PLACES:
            self._replaced.enter_context(_around(kind, method, self._at(place)))
        for method in WAITING_METHODS:
            self._replaced.enter_context(_around(Tensor, method, self._waiting))
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._replaced.close()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        out = func(*args, **(kwargs or {}))
        if func.namespace == "aten" and not func.is_view:
            name = func.overloadpacket.__name__
            self.kernels[self._place] += 1
            self.waits[self._place] += name in WAITING_KERNELS
            if self._within[-1] == "keys" and isinstance(out, Tensor) and out.ndim > 3:
                self.bytes += out.nbytes
        return out

    @property
    def _place(self) -> str:
        return next(place for place in reversed(self._within) if place != "keys")

    def _at(self, place: str) -> Around:
        @contextmanager
        def within(*args: Any, **__: object) -> Iterator[None]:
            self.entered[place] += 1
            if place == "layer":
                template, _, layer, hidden, _ = args
                self.shapes.add((id(template), layer, hidden.shape))
            self._within.append(place)
            try:
                yield
            finally:
                self._within.pop()

        return within

    @contextmanager
    def _waiting(self, *_: object, **__: object) -> Iterator[None]:
        self.waits[self._place] += 1
        yield


@contextmanager
def _around(kind: type, method: str, around: Around) -> Iterator[None]:
    """Calls of a method of a class run within `around`, which is given their arguments."""
    own, original = method in vars(kind), getattr(kind, method)

    def called(*args: Any, **kwargs: Any) -> Any:
        with around(*args, **kwargs):
            return original(*args, **kwargs)

    setattr(kind, method, called)
    try:
        yield
    finally:
        if own:
            setattr(kind, method, original)
        else:
            delattr(kind, method)
