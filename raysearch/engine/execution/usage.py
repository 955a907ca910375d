"""Usage of a replica while it works: seconds by phase, tokens, memory. This module is light: it
does not import torch.

Invariants: phases nest, and time in an inner phase does not count for the outer one, so that phases
add up to all metered time; a phase left by an error has counted too. Nothing here is evidence: no
output depends on it, and it is not journalled.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

Phase = Literal["load", "check", "capture", "replay", "batched", "plain", "fit", "other"]
"""`load`: model and pairs; `check`: executors, and gradients of training, against the oracle;
`capture`: cached runs and screening; `replay`, `batched`, `plain`: patched rows, by executor;
`fit`: training except its cached runs, and gradients of attribution; `other`: the rest of a task.
"""


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of a replica, in bytes: of its process, and torch's on its GPUs (0 without one).

    `host`, `device`: the share, in [0, 1], of the memory of its machine (or container) and of its
    fullest GPU that is in use by any process.
    """

    process: int
    gpu: int
    host: float
    device: float


@dataclass(frozen=True, slots=True)
class Usage:
    """Usage since the last report. `phases`: seconds by phase.

    `tokens`: input tokens of all rows run, each counted in full although a replay computes only
    those after the patch; a tensor counts as one. `failed_rows`: rows of waves that failed, and
    of training whose gradients were wrong, which were then run one by one.
    """

    phases: Mapping[Phase, float]
    tokens: int
    memory: Memory
    failed_rows: int = 0

    @property
    def seconds(self) -> float:
        """The sum over all phases."""
        return sum(self.phases.values())


OnStep = Callable[[int, int, Callable[[], float]], None]
"""Called with the steps that fits have taken, how many fits that are, and what reads their mean
loss; reading it waits for the device."""


class UsageMeter:
    """Counts seconds, tokens and failed rows until they are taken; `on_step` follows training as
    it goes on."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.on_step: OnStep = lambda *_: None
        self._clock = clock
        self._phases: dict[Phase, float] = {}
        self._within: list[Phase] = []
        self._since = 0.0
        self._tokens = self._failed = 0

    @contextmanager
    def phase(self, name: Phase) -> Iterator[None]:
        """Counts the time within as that of phase `name`, except for phases within it."""
        self._charge()
        self._within.append(name)
        try:
            yield
        finally:
            self._charge()
            self._within.pop()

    def ran(self, tokens: int) -> None:
        """Adds `tokens`."""
        self._tokens += tokens

    def failed(self, rows: int) -> None:
        """Adds rows of a wave that failed, or of training whose gradients were wrong."""
        self._failed += rows

    def take(self, memory: Memory) -> Usage:
        """Returns the usage since the last call and resets the counts."""
        usage = Usage(self._phases, self._tokens, memory, self._failed)
        self._phases, self._tokens, self._failed = {}, 0, 0
        return usage

    def _charge(self) -> None:
        """Adds the time since the last change to the current phase."""
        now = self._clock()
        if self._within:
            name = self._within[-1]
            self._phases[name] = self._phases.get(name, 0.0) + now - self._since
        self._since = now
