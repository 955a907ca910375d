"""Ctrl-C and SIGTERM: asked for at once, granted between two turns of the driver, when everything is written.

Invariants: a second signal ends the process where it stands, as kill -9 would; what a run holds by then is as after a crash.
"""

import signal
import sys
from types import FrameType

INTERRUPTED = 130
"""The exit code."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """A context manager: within, signals are remembered; `check` raises KeyboardInterrupt once there was one."""

    def __init__(self) -> None:
        self._asked = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Interrupt":
        for number in _SIGNALS:
            self._before[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def check(self) -> None:
        """Raises: KeyboardInterrupt if a signal has come."""
        if self._asked:
            raise KeyboardInterrupt

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        if self._asked:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self._asked = True
        print("raysearch: stopping after this turn; once more to stop at once", file=sys.stderr)
