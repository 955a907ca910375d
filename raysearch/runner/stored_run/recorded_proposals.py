"""Journalled proposals of a user's proposer, so that looking at a run never runs the code that is
named in it.

Invariants: each time that the proposer was asked is an entry, in order; a search that is told the
journal asks as often, and gets the same.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from raysearch.core.codec import from_json_values
from raysearch.core.hypothesis import Hypothesis, Intervention, canonical_json, to_plain
from raysearch.errors import ResumeError
from raysearch.proposers.base import History, Proposer
from raysearch.proposers.registry import READY
from raysearch.runner.resolution.resolved_job import ResolvedJob
from raysearch.runner.stored_run.reopen import stored_facts
from raysearch.search.search import Search
from raysearch.store.journal_codec import Suggested
from raysearch.store.pairs_table import PairsTable
from raysearch.store.run_folder import RunFolder
from raysearch.store.run_history import read_entries


class UnrecordedError(ResumeError):
    """The journal does not say what a user's proposer proposed, so that only its code could."""


@dataclass(frozen=True)
class Recording(Proposer):
    """A user's proposer, and what it has said so far."""

    proposer: Proposer
    recorded: list[Suggested] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.proposer.name

    @property
    def max_hypotheses(self) -> int | None:
        return self.proposer.max_hypotheses

    @property
    def fit_pairs(self) -> int:
        return self.proposer.fit_pairs

    def propose(self, known: History) -> Iterable[Hypothesis]:
        proposed = list(self.proposer.propose(known))
        texts = tuple(canonical_json([h.variable, to_plain(h.intervention)]) for h in proposed)
        self.recorded.append(Suggested(self.name, self.max_hypotheses, texts, self.fit_pairs))
        return proposed


@dataclass(frozen=True)
class Recorded(Proposer):
    """A proposer that repeats journalled proposals, in their order. `where`: the run, for
    errors."""

    recorded: Sequence[Suggested]
    where: str
    _histories: list[History] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.recorded[0].by

    @property
    def max_hypotheses(self) -> int | None:
        return self.recorded[0].most

    @property
    def fit_pairs(self) -> int:
        return self.recorded[0].fit_pairs

    def propose(self, known: History) -> Iterable[Hypothesis]:
        self._histories.append(known)
        if len(self._histories) > len(self.recorded):
            raise UnrecordedError(
                f"{self.where}: its journal ends before what its proposer said last; `raysearch "
                f"resume` it, which runs that code"
            )
        return [
            _hypothesis(text, self.where)
            for text in self.recorded[len(self._histories) - 1].hypotheses
        ]


def recorded_search(run: RunFolder, stored: PairsTable, resolved: ResolvedJob) -> Search:
    """Returns a new search of a run, into which its journal can be replayed; runs no code that the
    run names.

    Raises: UnrecordedError where the journal does not say what a user's proposer proposed;
    ResumeError.
    """
    return resolved.search(stored_facts(run), stored.encoded or (), _recorded(run, resolved))


def with_recording(proposer: Proposer, resolved: ResolvedJob) -> Proposer:
    """Returns the proposer; a user's own is wrapped, so that its proposals can be journalled."""
    return proposer if resolved.job.propose.use in READY else Recording(proposer)


def _recorded(run: RunFolder, resolved: ResolvedJob) -> Recorded | None:
    use = resolved.job.propose.use
    if use in READY:
        return None
    recorded = [
        entry for batch in read_entries(run) for entry in batch if isinstance(entry, Suggested)
    ]
    if not recorded:
        raise UnrecordedError(
            f"{run.place}: its hypotheses are those of {use}, its journal does not say them, and "
            "looking at a run runs no code of it; `raysearch resume` it, which does, and adds them"
        )
    return Recorded(recorded, run.place)


def _hypothesis(text: str, where: str) -> Hypothesis:
    variable, intervention = json.loads(text)
    return Hypothesis(variable, from_json_values(Intervention, intervention, where))
