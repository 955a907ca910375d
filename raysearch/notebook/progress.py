"""Progress in a notebook: one output that is written anew in place; on a terminal, the bar of the
command line.

Invariants: an interrupt is granted between two turns, and never ends the process: a kernel is the
user's.
"""

import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Self

from raysearch.core.records import Snapshot
from raysearch.runner.session.frontend import RunOutcome
from raysearch.runner.session.interrupt import Interrupt
from raysearch.runner.session.progress_display import ProgressDisplay, stage_of
from raysearch.store.run_folder import RunFolder
from raysearch.visible_text import visible

SECONDS = 0.5
"""Seconds between two writings of the output: more often nobody reads, and each time goes over the
kernel's wire."""


class PythonProgress(ProgressDisplay):
    """Follows a run from Python: a bar on a terminal, a line every 30 seconds elsewhere."""

    def __init__(self, quiet: bool) -> None:
        super().__init__(quiet, no_color=False)

    def interrupt(self) -> Interrupt:
        """Returns the context in which Ctrl-C asks the search to stop; other threads than the main
        one never hear it."""
        is_main = threading.current_thread() is threading.main_thread()
        return Interrupt((signal.SIGINT,) if is_main else (), ours=False)

    def left(self, status: str, run: RunFolder) -> None:
        self.say(f"{status}; go on with: rs.resume({run.place!r})")

    def ended(self, ended: RunOutcome) -> None:
        """Shows nothing: the run itself is shown, once it is returned."""


class CellProgress(PythonProgress):
    """The same in a notebook's cell: what was said so far, and where the search stands."""

    def __init__(
        self, quiet: bool, show: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(quiet)
        self._show = show
        self._clock_here = clock
        self._said: list[str] = []
        self._line = self._text = ""
        self._shown = clock() - SECONDS

    def __enter__(self) -> Self:
        return self

    def __call__(self, snapshot: Snapshot) -> None:
        self.follow(snapshot)
        self._line = f"{stage_of(snapshot):11} {self.words(snapshot)}"
        if self._clock_here() - self._shown >= SECONDS:
            self._write()

    def stop(self) -> None:
        self._line = ""
        self._write()

    def say(self, text: str) -> None:
        self._said.append(visible(text))
        self._write()

    def _write(self) -> None:
        text = "\n".join([*self._said, *([self._line] if self._line else [])])
        self._shown = self._clock_here()
        if text != self._text and not self._quiet:
            self._text = text
            self._show(text)


def follow(quiet: bool) -> PythonProgress:
    """Returns the progress display of a run that is begun here."""
    ipython = sys.modules.get("IPython")  # a notebook has imported it already
    shell: Any = None if ipython is None else ipython.get_ipython()
    if shell is None or not hasattr(shell, "kernel"):
        return PythonProgress(quiet)
    from IPython.display import display

    handle: Any = None

    def show(text: str) -> None:
        nonlocal handle
        if handle is None:
            handle = display({"text/plain": text}, raw=True, display_id=True)
        else:
            handle.update({"text/plain": text}, raw=True)

    return CellProgress(quiet, show)
