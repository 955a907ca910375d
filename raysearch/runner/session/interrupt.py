"""Ctrl-C and SIGTERM: requests to stop, which are granted between two turns of the driver, once
everything is written.

Invariants: a second signal never raises in the middle of a turn: it ends the process where it
stands, as kill -9 would (what a run holds by then is as after a crash), or, where the process is
not ours to end, changes nothing.
"""

import signal
import sys
from collections.abc import Sequence
from types import FrameType

INTERRUPTED = 130
"""The exit code."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """A context manager: within, signals are remembered; `check` raises KeyboardInterrupt once
    there was one.

    `ours`: whether the process is ours to end. Signals are heard by the main thread alone:
    elsewhere there must be none.
    """

    def __init__(self, signals: Sequence[signal.Signals] = _SIGNALS, ours: bool = True) -> None:
        self._signals = signals
        self._ours = ours
        self._asked = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Interrupt":
        for number in self._signals:
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
        if self._asked and self._ours:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self._asked = True
        sooner = "once more to stop at once" if self._ours else "to stop at once, end this process"
        print(f"raysearch: stopping after this turn; {sooner}", file=sys.stderr)
