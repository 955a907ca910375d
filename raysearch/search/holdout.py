"""Estimates: what an accepted hypothesis is read as on the holdout, and what is read beside it.

Invariants: an estimate is whole when all of its readings are, or have broken off; the cheap
controls and all seeds stand beside each.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from raysearch.core.controls import READ, read_beside
from raysearch.core.events import Fitted
from raysearch.core.hypothesis import Hypothesis, Intervention
from raysearch.core.records import Estimated, Reading
from raysearch.search.trial import HypothesisTest, Trial
from raysearch.stats.evidence import Evidence


@dataclass
class _Open:
    """An estimate under way, or broken off: how many readings are still to come, and which have
    broken off, on which line."""

    waiting: int
    main: Evidence = Evidence()
    beside: list[Reading] = field(default_factory=list)
    short: list[tuple[Trial, HypothesisTest]] = field(default_factory=list)


class HoldoutEstimates:
    """Accepted hypotheses in, `Estimated` out."""

    def __init__(self) -> None:
        self._open: dict[str, _Open] = {}
        self._done: dict[str, Estimated] = {}
        self._short: dict[str, _Open] = {}

    @property
    def short(self) -> list[str]:
        """The ids of hypotheses some of whose readings have broken off."""
        return sorted([*self._short, *(name for name, found in self._open.items() if found.short)])

    @property
    def open(self) -> int:
        """How many are under way."""
        return len(self._open)

    @property
    def done(self) -> Mapping[str, Estimated]:
        """Those that are whole, by hypothesis id."""
        return self._done

    def begin(
        self, hypothesis: Hypothesis, intervention: Intervention, seeds: Sequence[Fitted]
    ) -> Iterator[tuple[Reading | None, Intervention]]:
        """What is to be read, as what (None: the estimate itself). `seeds`: what came of each seed
        of what was fit."""
        readings: list[tuple[Reading | None, Intervention]] = [(None, intervention)]
        if intervention.control is None and not intervention.is_ablation:
            readings += [(Reading(name, 0, 0), read_beside(intervention, name)) for name in READ]
        readings += [
            (Reading("seed", 0, 0, e.seed, e.fit), replace(intervention, fit=e.fit)) for e in seeds
        ]
        self._open[hypothesis.id] = _Open(len(readings))
        yield from readings

    def again(self, name: str) -> list[tuple[Trial, HypothesisTest]]:
        """The readings of a hypothesis that broke off, each with its line, are to come once more."""
        if name in self._short:
            self._open[name] = self._short.pop(name)
            del self._done[name]
        found = self._open[name]
        short, found.short = found.short, []
        found.waiting += len(short)
        anew = [_whose(case.reading) for _, case in short]
        found.beside = [r for r in found.beside if _whose(r) not in anew]
        return short

    def take(self, case: HypothesisTest, line: Trial) -> Estimated | None:
        """A reading is done, or breaks off; the estimate, where it was the last."""
        name = case.hypothesis.id
        found = self._open[name]
        found.waiting -= 1
        if not line.exhausted:
            found.short.append((line, case))
        if case.reading is None:
            found.main = case.evidence
        else:
            n, matches, score = case.evidence.n, case.evidence.matches, case.evidence.score
            found.beside.append(replace(case.reading, n=n, matches=matches, score=score))
        if found.waiting:
            return None
        del self._open[name]
        if found.short:
            self._short[name] = found
        beside = sorted(found.beside, key=lambda r: (r.name, r.seed or 0))
        main = found.main
        self._done[name] = Estimated(
            case.hypothesis, main.n, main.matches, tuple(beside), main.score
        )
        return self._done[name]


def _whose(reading: Reading | None) -> tuple[str, int | None] | None:
    return None if reading is None else (reading.name, reading.seed)
