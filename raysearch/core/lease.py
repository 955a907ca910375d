"""A lease: what a replica needs to take interventions from look to look by itself, until each of
their hypotheses is decided.

Invariants: a lease says when to stop, and nothing else: verdicts are derived from outputs by the
search, so a wrong one costs time and changes no verdict.
"""

from dataclasses import dataclass
from typing import Protocol


class StopRule(Protocol):
    """When the test of a hypothesis ends."""

    def ends(self, n: int, matches: int) -> bool:
        """Returns whether it ends with so many `matches` out of `n` pairs that count."""
        ...


@dataclass(frozen=True, slots=True)
class LeasedTest:
    """One hypothesis of a leased intervention, as it stands before the first block of the task."""

    variable: str
    n: int
    matches: int
    rule: StopRule


@dataclass(frozen=True, slots=True)
class Lease:
    """Leave for a replica to take the interventions of a task from look to look.

    Args:
        tests: for each intervention of the task its hypotheses; one with none runs all blocks.
        unfiltered: whether pairs count too whose answer the variable leaves alone.
        step: rows to run before it looks again, if that is more than one block.
        rows: rows after which no further step begins.
        seconds: time after which none begins.
    """

    tests: tuple[tuple[LeasedTest, ...], ...]
    unfiltered: bool
    step: int
    rows: int
    seconds: float
