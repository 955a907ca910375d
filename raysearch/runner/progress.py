"""Progress: a bar on a terminal, a plain line every 30 seconds elsewhere; both on stderr.

Invariants: says only what the search knows; "at most" is an upper bound (as if every living
hypothesis went to the last pair).
"""

import sys
import time
from collections.abc import Callable
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

from raysearch.core.records import Snapshot, Stage, Training
from raysearch.visible_text import visible

LINE_SECONDS = 30.0
BEFORE: tuple[Stage, ...] = ("screening", "attributing")
"""Stages in which no pair is evaluated yet."""


class ProgressDisplay:
    """Shows snapshots. A context manager: the bar is gone when it closes."""

    def __init__(
        self,
        quiet: bool,
        no_color: bool,
        clock: Callable[[], float] = time.monotonic,
        console: Console | None = None,
    ) -> None:
        self._console = console or Console(file=sys.stderr, no_color=no_color or None)
        self._quiet = quiet
        self._clock = clock
        self._began = self._last_line = clock()
        self._first_pairs: tuple[float, int] | None = None
        self._first_steps: tuple[float, int] | None = None
        self._bar: Progress | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal and not self._quiet:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                _Words(),
                TimeElapsedColumn(),
                console=self._console,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._bar.start()
            self._bar.add_task("screening", total=None, words="")
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Takes the bar away; to be called before anything is printed past this object."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def __call__(self, snapshot: Snapshot) -> None:
        """Shows where a search stands."""
        if self._quiet:
            return
        now = self._clock()
        if self._first_pairs is None and snapshot.stage not in BEFORE:
            self._first_pairs = now, snapshot.pairs
        words = self.words(snapshot)
        if self._bar is not None:
            total = snapshot.alive + snapshot.decided
            self._bar.update(
                self._bar.task_ids[0],
                description=snapshot.stage,
                completed=snapshot.decided,
                total=total or None,
                words=words,
            )
        elif now - self._last_line >= LINE_SECONDS:
            self._last_line = now
            self._console.print(
                Text(f"{now - self._began:5.0f} s  {snapshot.stage}: {words}"), soft_wrap=True
            )

    def words(self, snapshot: Snapshot) -> str:
        """One line: counts, rate, and at most how long it may take still."""
        left = snapshot.queued + snapshot.out
        if snapshot.stage == "screening":
            return f"{left} blocks of pairs are left to be run without intervention"
        if snapshot.stage == "attributing":
            return f"{left} blocks of fit pairs are left to choose hypotheses by"
        shown = [
            "alive",
            "accepted",
            "rejected",
            "undecided",
            *(["failed"] if snapshot.failed else []),
        ]
        counts = ", ".join(f"{getattr(snapshot, name)} {name}" for name in shown)
        if snapshot.fitting:  # how long that takes, pairs do not tell
            training = snapshot.training and f": {training_words(snapshot.training)}"
            fitting = f"{snapshot.fitting} seeds in training{training or ''}"
            return f"{counts}; {fitting}{self._left(snapshot)}"
        rate = self.rate(snapshot)
        if rate is None:
            return counts
        return f"{counts}; {rate:.0f} pairs/s, at most {_span(snapshot.at_most / rate)} left"

    def _left(self, snapshot: Snapshot) -> str:
        """Returns the longest time that training still takes, by its steps a second until now."""
        if snapshot.training is None:
            return ""
        now, done = self._clock(), snapshot.training.done
        if self._first_steps is None:
            self._first_steps = now, done
        since, before = self._first_steps
        if now - since <= 1 or done == before:
            return ""
        return f", at most {_span(snapshot.training.left * (now - since) / (done - before))} left"

    def rate(self, snapshot: Snapshot) -> float | None:
        """Pairs evaluated per second since screening was over; None before there is a figure."""
        if self._first_pairs is None:
            return None
        since, pairs = self._first_pairs
        seconds = self._clock() - since
        return (
            (snapshot.pairs - pairs) / seconds if seconds > 1 and snapshot.pairs > pairs else None
        )

    def say(self, text: str) -> None:
        """A line of its own, above the bar."""
        if not self._quiet:
            self._console.print(Text(visible(text)), soft_wrap=True)


class _Words(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(str(task.fields.get("words", "")))


def training_words(training: Training) -> str:
    """Describes the seeds that train now."""
    loss = "" if training.loss is None else f", loss {training.loss:.3g}"
    of = ", ".join(training.of[:3]) + (", ..." if len(training.of) > 3 else "")
    return f"step {training.step} of {training.steps}{loss}, of {visible(of)}"


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
