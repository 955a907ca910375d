"""Measuring: the lines of a search, which of them go out, and how many pairs may still come of
them.

Invariants: an open line stands in exactly one place (`dispatch.py`); `at_most` is what all open
lines have yet to count.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from raysearch.core.events import Measured
from raysearch.core.records import Decided
from raysearch.search.scheduler import Scheduler
from raysearch.search.trial import HypothesisTest, Trial, TrialKey


class Measuring:
    """Lines in, tasks out (`dispatch`). `rows`: size of a task in pairs x interventions."""

    def __init__(self, rows: int) -> None:
        self.dispatch = Scheduler(rows)
        self.at_most = 0
        self._lines: dict[TrialKey, Trial] = {}

    def line(self, key: TrialKey) -> Trial | None:
        """None where there is none."""
        return self._lines.get(key)

    @property
    def cases(self) -> int:
        """Hypotheses that wait for a verdict on a line; for the invariants."""
        return sum(len(line.cases) for line in self._lines.values() if line.split == "test")

    @property
    def closed(self) -> bool:
        """Whether all lines are; for the invariants."""
        return all(line.closed for line in self._lines.values())

    def open(self, line: Trial) -> None:
        """A new line; it goes out, if there is anything to see on it."""
        assert line.key not in self._lines, (
            "an intervention is proposed once, with all its variables"
        )
        self._lines[line.key] = line
        self.at_most += line.at_most
        if not line.exhausted:
            self.dispatch.add(line)

    def join(self, line: Trial, case: HypothesisTest) -> None:
        """One more hypothesis on a line that has yet to see something."""
        before, was_closed = line.at_most, line.closed
        line.cases.append(case)
        self.at_most += line.at_most - before
        if was_closed and not self.dispatch.has_out(line):
            self.dispatch.add(line)

    def drop(self, line: Trial, case: HypothesisTest) -> None:
        """A hypothesis on it is decided, or read."""
        before = line.at_most
        line.drop(case)
        self.at_most += line.at_most - before
        if line.closed:
            self.dispatch.remove(line)

    def counted(self, observation: Measured) -> None:
        """It may come no more."""
        self.at_most -= len(observation.pairs)

    def settle(self, line: Trial, event: Measured) -> None:
        """An observation was taken note of: what is free goes on."""
        if self.dispatch.is_ready(
            line
        ):  # told of a block that nobody here had asked for: a replay, or a late repeat
            self.dispatch.remove(line)
            self.release([line])
        self.release(self.dispatch.measured(event))

    def release(self, lines: Sequence[Trial]) -> None:
        """Lines whose task is over."""
        for line in lines:
            if not line.closed:
                self.dispatch.add(line)

    def again(self, line: Trial, case: HypothesisTest) -> None:
        """A hypothesis, or a reading, that failed on a line goes on after the last block that was
        counted."""
        assert self.dispatch.idle, "failures are tried again before anything is asked"
        self.reopen(line, case)

    def reopen(self, line: Trial, case: HypothesisTest) -> None:
        """A hypothesis is measured on a line that others may have left: after the last block that
        was counted."""
        if line.closed:
            line.again()
        self.join(line, case)

    def validate(self, decided: Mapping[str, Decided]) -> None:
        """Checks the invariants; for tests."""
        places = Counter(line.key for line in self.dispatch.places() if not line.closed)
        for key, line in self._lines.items():
            assert places[key] == (not line.closed), (key, "stands in", places[key], "places")
            assert line.closed or not line.exhausted, (
                key,
                "has seen everything and is not decided",
            )
            assert all(
                c.hypothesis.id not in decided or line.split == "holdout" for c in line.cases
            ), key
            assert not line.blocks or line.counted <= len(line.blocks), key
        assert self.at_most == sum(line.at_most for line in self._lines.values())
