"""Progress by stage: bars on a terminal, a plain line every 30 seconds elsewhere; both on stderr.

Invariants: says only what the search knows; "at most" is an upper bound (as if every living
hypothesis went to the last pair); where no escapes are wanted none is sent, so there are lines.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from raysearch.core.records import Snapshot, Training
from raysearch.visible_text import shows_escapes, visible

LINE_SECONDS = 30.0
BLOCKS = {
    "screening": "blocks of pairs run without intervention",
    "attribution": "blocks of fit pairs run to choose hypotheses by",
}
"""Stages in which no pair is evaluated yet, and what they count."""
STAGES = (*BLOCKS, "training", "testing", "controls", "holdout")
"""The stages, in the order in which they are shown."""
_NAMES = {"attributing": "attribution", "estimating": "holdout"}
_BAR, _SHORTEST = 40, 6
"""The greatest width of a bar, and the least."""


def stage_of(snapshot: Snapshot) -> str:
    """Returns what a search does now: screening, attribution, training, testing, controls, holdout,
    or that it is done.
    """
    if snapshot.stage == "searching" and snapshot.fitting:
        return "training"
    if snapshot.stage == "searching":
        return "testing"
    if snapshot.stage == "estimating" and snapshot.controls:
        return "training" if snapshot.fitting else "controls"
    return _NAMES.get(snapshot.stage, snapshot.stage)


@dataclass(frozen=True, slots=True)
class Gauge:
    """The progress of a stage: `done` of `total`, as far as the search knows by now."""

    stage: str
    done: int
    total: int
    of: str


class ProgressDisplay:
    """Shows snapshots. A context manager: the bars are gone when it closes."""

    def __init__(
        self,
        quiet: bool,
        no_color: bool,
        clock: Callable[[], float] = time.monotonic,
        console: Console | None = None,
    ) -> None:
        self._console = console or Console(
            file=sys.stderr,
            color_system="auto" if shows_escapes(sys.stderr, no_color) else None,
            highlight=False,
        )
        self._quiet = quiet
        self._clock = clock
        self._began = self._last_line = clock()
        self._first: dict[str, tuple[float, int]] = {}
        self._gauges: dict[str, Gauge] = {}
        self._live: Live | None = None
        self._now: Snapshot | None = None

    def __enter__(self) -> Self:
        wanted = self._console.is_terminal and not self._console.no_color
        if wanted and self._console.color_system is not None and not self._quiet:
            self._live = Live(
                self,
                console=self._console,
                transient=True,
                refresh_per_second=4,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Takes the bars away; to be called before anything is printed past this object."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def __call__(self, snapshot: Snapshot) -> None:
        """Shows where a search stands."""
        if self._quiet:
            return
        self.follow(snapshot)
        now = self._clock()
        if self._live is None and now - self._last_line >= LINE_SECONDS:
            self._last_line = now
            line = f"{now - self._began:5.0f} s  {stage_of(snapshot)}: {self.words(snapshot)}"
            self._console.print(Text(line), soft_wrap=True)

    def follow(self, snapshot: Snapshot) -> None:
        """Remembers how far each stage is."""
        self._now, stage = snapshot, stage_of(snapshot)
        if stage in BLOCKS:
            left = snapshot.queued + snapshot.out
            before = self._gauges.get(stage)
            total = max(left, 0 if before is None else before.total)
            self._gauge(stage, total - left, total, "blocks")
            return
        if snapshot.training is not None:
            steps = snapshot.training
            self._gauge("training", steps.done, steps.done + steps.left, "steps")
        ended = (*BLOCKS, *["training"] * (not snapshot.fitting))
        for over in [g for g in self._gauges.values() if g.stage in ended and g.done < g.total]:
            self._gauge(over.stage, over.total, over.total, over.of)
        decided = snapshot.decided
        self._gauge("testing", decided, snapshot.alive + decided, "hypotheses")
        known = self._gauges.get("controls")
        controls = max(snapshot.controls, 0 if known is None else known.total)
        self._gauge("controls", controls - snapshot.controls, controls, "controls")
        estimated = max(snapshot.accepted - snapshot.estimates, 0)
        self._gauge("holdout", estimated, snapshot.accepted, "estimates")
        self._first.setdefault("pairs", (self._clock(), snapshot.pairs))

    def _gauge(self, stage: str, done: int, total: int, of: str) -> None:
        if total:
            self._gauges[stage] = Gauge(stage, done, total, of)
            self._first.setdefault(stage, (self._clock(), done))

    def words(self, snapshot: Snapshot) -> str:
        """Returns one line: counts, rate, and an upper bound of the time left."""
        stage = stage_of(snapshot)
        if stage in BLOCKS:
            left = snapshot.queued + snapshot.out
            known = self._gauges.get(stage)
            done, total = (0, left) if known is None else (known.done, known.total)
            return f"{done} of {total} {BLOCKS[stage]}{self._left(stage, done, total - done)}"
        shown = ["alive", "accepted", "rejected", "undecided"] + ["failed"] * bool(snapshot.failed)
        counts = ", ".join(f"{getattr(snapshot, name)} {name}" for name in shown)
        if snapshot.controls and not snapshot.alive:
            counts = f"{snapshot.controls} controls alive; {counts}"
        if snapshot.estimates:
            counts = f"{counts}; {snapshot.estimates} estimated on the holdout now"
        if snapshot.fitting:  # how long that takes, pairs do not tell
            training = snapshot.training and f": {training_words(snapshot.training)}"
            fitting = f"{snapshot.fitting} seeds in training{training or ''}"
            return f"{counts}; {fitting}{self._training_left(snapshot)}"
        rate = self.rate(snapshot)
        if rate is None:
            return counts
        return f"{counts}; {rate:.0f} pairs/s, at most {_span(snapshot.at_most / rate)} left"

    def _training_left(self, snapshot: Snapshot) -> str:
        of = snapshot.training
        return "" if of is None else self._left("training", of.done, of.left)

    def _left(self, stage: str, done: int, left: int) -> str:
        """Returns the longest time that a stage still takes, by its pace until now."""
        now = self._clock()
        since, before = self._first.setdefault(stage, (now, done))
        if now - since <= 1 or done <= before:
            return ""
        return f", at most {_span(left * (now - since) / (done - before))} left"

    def rate(self, snapshot: Snapshot) -> float | None:
        """Returns pairs evaluated per second since screening was over; None before there is a
        figure."""
        if "pairs" not in self._first:
            return None
        since, pairs = self._first["pairs"]
        seconds = self._clock() - since
        more = snapshot.pairs - pairs
        return more / seconds if seconds > 1 and more > 0 else None

    def say(self, text: str) -> None:
        """Writes a line of its own, above the bars."""
        if not self._quiet:
            self._console.print(Text(visible(text)), soft_wrap=True)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yields a bar for each stage, and the words on the present one."""
        if self._now is None:
            yield Text("loading the model, and trying the fast paths on it")
            return
        now, grid = stage_of(self._now), Table.grid(padding=(0, 1))
        width = min(_BAR, options.max_width - 40)
        for gauge in [self._gauges[stage] for stage in STAGES if stage in self._gauges]:
            bar = ProgressBar(gauge.total, gauge.done, width=width)
            style = "bold" if gauge.stage == now else ""
            amount = f"{gauge.done} of {gauge.total} {gauge.of}"
            drawn = (bar,) if width >= _SHORTEST else ()
            grid.add_row(Text(gauge.stage, style), *drawn, Text(amount, no_wrap=True))
        yield grid
        yield Text(f"{self._clock() - self._began:.0f} s  {now}: {self.words(self._now)}")


def training_words(training: Training) -> str:
    """Describes the seeds that train now."""
    loss = "" if training.loss is None else f", loss {training.loss:.3g}"
    of = ", ".join(training.of[:3]) + (", ..." if len(training.of) > 3 else "")
    return f"step {training.step} of {training.steps}{loss}, of {visible(of)}"


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
