"""The selection of a search: what all of its tests together accept (e-BH), and the intervals of
what it accepted, corrected for that (e-BY).

Invariants: a function of tests that have ended, each by its own pairs alone, whatever their order;
controls are left out; what was accepted stays accepted, since more accepts only lower what e-BH
asks.
"""

import math
from collections.abc import Iterable
from dataclasses import replace

from raysearch.core.records import Selected
from raysearch.search.judge import Judge
from raysearch.search.trial import HypothesisTest
from raysearch.search.verdicts import Ending
from raysearch.stats.false_discovery import e_bh


class Selection:
    """Collects tests as they end, and decides what they all accept together.

    Args:
        fdr: whether a hypothesis that is undecided alone waits for the end of its generation, where
            e-BH may accept it.
    """

    def __init__(self, judge: Judge, fdr: bool) -> None:
        self._judge = judge
        self._fdr = fdr
        self._waiting: list[Ending] = []
        self._accepted: dict[str, HypothesisTest] = {}
        self._undecided: dict[str, HypothesisTest] = {}
        self._continued = False

    @property
    def waiting(self) -> int:
        """Number of tests that have ended and wait for the others."""
        return len(self._waiting)

    def takes(self, ending: Ending) -> bool:
        """Takes a test that ends undecided; returns whether its verdict must wait."""
        undecided = ending.verdict == "undecided" and ending.trial is not None
        if not self._fdr or not undecided or not self._may_be_accepted(ending.test):
            return False
        self._waiting.append(ending)
        return True

    def settle(self) -> list[Ending]:
        """Returns the tests that wait, as accepted where e-BH accepts them beside what is
        accepted.
        """
        excesses = [self._judge.excess(w.test) for w in self._waiting]
        accepts = -math.log(max(e_bh([*excesses, *[math.inf] * len(self._accepted)]), 1))
        found = zip(self._waiting, excesses, strict=True)
        self._waiting = []
        return [
            replace(ending, verdict="accept", reason=None) if excess >= accepts else ending
            for ending, excess in found
        ]

    def add(self, test: HypothesisTest, verdict: str) -> None:
        """Takes a test with its verdict."""
        name = test.hypothesis.id
        if verdict == "accept" and test.hypothesis.intervention.control is None:
            self._accepted[name] = test
        elif verdict == "undecided" and self._may_be_accepted(test):
            self._undecided[name] = test

    def withdraw(self, names: Iterable[str]) -> None:
        """Forgets tests that ended undecided and go on, by a choice that may rest on how others did
        on pairs that these are yet to see: from now on, each counts as if it were alone.
        """
        self._continued = True
        for name in names:
            self._undecided.pop(name, None)

    def records(self) -> list[Selected]:
        """Returns a record of each hypothesis that the search or e-BH accepts, in a fixed order."""
        tests = {**self._accepted, **self._undecided}
        excesses = {name: self._judge.excess(test) for name, test in tests.items()}
        count, counted_as = e_bh(excesses.values()), len(self._accepted)
        if self._continued:
            count, counted_as = min(count, 1), 1
        found = []
        for name, test in sorted(tests.items()):
            by_fdr = count > 0 and excesses[name] >= -math.log(count)
            of = len(self._accepted) if name in self._accepted else None
            interval = (None, None, None) if of is None else self._judge.selected(test, counted_as)
            if by_fdr or of is not None:
                fdr_verdict = "accept" if by_fdr else None
                found.append(Selected(test.hypothesis, fdr_verdict, of, *interval))
        return found

    def _may_be_accepted(self, test: HypothesisTest) -> bool:
        control = test.hypothesis.intervention.control
        return control is None and self._judge.excess(test) > -math.inf
