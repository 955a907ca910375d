"""What a replica uses while it works: seconds by phase, tokens, memory. This file is light: no
torch.

Invariants: phases nest, and what an inner one takes is not the outer's, so that they add up to all
the time that was metered; a phase that is left by an error has counted too. Nothing here is
evidence: no output depends on it, and the journal does not know it.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

Phase = Literal["load", "check", "capture", "replay", "batched", "plain", "fit", "other"]
"""`load`: model and pairs; `check`: paths against the oracle; `capture`: runs that are kept, and
screening; `replay`, `batched`, `plain`: intervened rows, by the path that was taken; `fit`:
training, but for its captures, and the gradients of attribution; `other`: all else of a task."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Of a replica, in bytes: of its process, and what torch holds of its GPUs (0 without one).

    `host`, `device`: the share in [0, 1] of its machine's memory (or its container's) and of its
    fullest GPU that is in use by whomever.
    """

    process: int
    gpu: int
    host: float
    device: float


@dataclass(frozen=True, slots=True)
class Usage:
    """What was used since it was last asked. `phases`: seconds of each that there was.

    `tokens`: of the inputs of the rows that were run, each in full, though a replay runs only those
    from the patch on; a tensor is one.
    """

    phases: Mapping[Phase, float]
    tokens: int
    memory: Memory

    @property
    def seconds(self) -> float:
        """All of them."""
        return sum(self.phases.values())


class UsageMeter:
    """Counts seconds and tokens until they are taken."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._phases: dict[Phase, float] = {}
        self._within: list[Phase] = []
        self._since = 0.0
        self._tokens = 0

    @contextmanager
    def phase(self, name: Phase) -> Iterator[None]:
        """The time within is `name`'s, but for what phases within it take."""
        self._charge()
        self._within.append(name)
        try:
            yield
        finally:
            self._charge()
            self._within.pop()

    def ran(self, tokens: int) -> None:
        """So many tokens more."""
        self._tokens += tokens

    def take(self, memory: Memory) -> Usage:
        """What has come together since it was last taken."""
        usage = Usage(self._phases, self._tokens, memory)
        self._phases, self._tokens = {}, 0
        return usage

    def _charge(self) -> None:
        """Gives the time since the last turn to the phase that we are in."""
        now = self._clock()
        if self._within:
            name = self._within[-1]
            self._phases[name] = self._phases.get(name, 0.0) + now - self._since
        self._since = now
