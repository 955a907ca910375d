"""The interface of a proposer, which chooses the hypotheses to test next from closed generations.

Invariants: pure; the same history gives the same proposals; a proposer never sees a generation that
is still open, so that its proposals do not depend on the order in which results arrive. An
intervention that is not fit is proposed once, for all variables to test at it, since one intervened
run serves them all.
"""

from collections.abc import Collection, Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import ClassVar, Protocol

from raysearch.core.hypothesis import Hypothesis, Intervention, Subspace, Unit
from raysearch.core.records import Decided
from raysearch.core.space import HypothesisSpace
from raysearch.errors import SearchFailedError

Effects = Mapping[str, Mapping[Unit, float | None]]
"""Effects of interchanges on fit pairs, by variable and unit (the whole vector); None where a unit
cannot be interchanged on one."""

NO_EFFECTS: Effects = MappingProxyType({})
"""The effects of a proposer that needs none."""


@dataclass(frozen=True, slots=True)
class History:
    """The results of closed generations: their number, and the verdict of each hypothesis by its
    id.

    `effects`: from fit pairs alone, made before the first generation, for a proposer that asks for
    them.
    """

    generations: int
    decided: Mapping[str, Decided]
    effects: Effects = field(default_factory=lambda: NO_EFFECTS)


class Proposer(Protocol):
    """Proposes one generation at a time; an empty one ends the search.

    A class needs `propose` alone to be a proposer; one that derives from this class has a default
    for `fit_pairs` and the words.
    """

    description: ClassVar[str] = ""
    """Part of a sentence that says what is proposed, for the job's keys."""
    tests_all: ClassVar[bool] = False
    """True if all of `max_hypotheses` hypotheses are proposed, whatever the verdicts."""
    estimates_interchanges: ClassVar[bool] = False
    """True if it chooses by an estimate that is of interchanges, so that it proposes no ablation
    well."""

    @property
    def name(self) -> str:
        """The name in the column `proposed_by` of the tables."""
        ...

    @property
    def max_hypotheses(self) -> int | None:
        """K: the size of the set, fixed before the first pair, that all proposals are from. None:
        there is no such set."""
        ...

    @property
    def fit_pairs(self) -> int:
        """The largest number of fit pairs on which effects are computed before the first
        generation is proposed; 0: it needs no effects. A function of the options alone."""
        return 0

    def propose(self, known: History) -> Iterable[Hypothesis]:
        """Returns the next generation. The search leaves out hypotheses that it knows already."""
        ...

    def family(self, effects: Effects) -> Iterable[Hypothesis]:
        """Returns the `max_hypotheses` hypotheses that all proposals are from, given the effects on
        fit pairs; none if they are not known before the first test pair.
        """
        return ()

    def plan_words(self, space: int) -> str:
        """Says how many hypotheses are tested, and at which K, where the space has `space`."""
        if not self.tests_all:
            return words_of_k(self.name, self.max_hypotheses, space)
        which = (
            f"all {space}"
            if self.max_hypotheses == space
            else f"{self.max_hypotheses} of the {space}"
        )
        return f"{self.name}: tests {which}; each is judged at K = {self.max_hypotheses}"

    @staticmethod
    def family_words(tested: int) -> str:
        """Says over which hypotheses the error level holds, `tested` of which were tested."""
        return f"over all hypotheses that the job could have tested, of which these {tested} were"


def words_of_k(who: str, k: int | None, space: int) -> str:
    """Says at which K the proposals of `who` are judged, if only K is known of it."""
    if k is not None:
        return f"{who}: what it proposes is judged at K = {k}, the most that it may propose"
    return (
        f"{who}, open-ended: the n proposals of its g-th generation are judged at K = n g(g + 1), "
        f"each generation on pairs that no earlier one has seen; the chances below are of a first "
        f"generation of {space} (K = {judged_at(None, space)})"
    )


def judged_at(k: int | None, size: int, generation: int = 1) -> int:
    """Returns the K at which a generation of `size` hypotheses is judged, counted from 1, where
    all proposals are from a set of `k` hypotheses, or from no set.
    """
    return size * generation * (generation + 1) if k is None else k


class WithinSpace(Proposer):
    """A proposer that chooses from the whole space by verdicts, so that K is the size of the
    space."""

    space: HypothesisSpace

    @property
    def max_hypotheses(self) -> int:
        return len(self.space)

    def family(self, effects: Effects) -> Iterable[Hypothesis]:
        return self.space

    def plan_words(self, space: int) -> str:
        return (
            f"{self.name}: tests some of the {space}, as it learns; each is judged at "
            f"K = {self.max_hypotheses}, whichever it tests"
        )


@dataclass(frozen=True)
class Exhaustive(Proposer):
    """Proposes the whole space at once."""

    description = "all of the space"
    tests_all = True
    space: HypothesisSpace
    name: str = "exhaustive"

    @property
    def max_hypotheses(self) -> int:
        return len(self.space)

    def propose(self, known: History) -> Iterable[Hypothesis]:
        return () if known.generations else self.space

    def family(self, effects: Effects) -> Iterable[Hypothesis]:
        return self.space

    @staticmethod
    def family_words(tested: int) -> str:
        return f"over all K = {tested} hypotheses together"


@dataclass(frozen=True, slots=True)
class AttributionPlan:
    """The units (whole vectors) whose effects are computed, and the largest number of fit `pairs`
    for it; `needed_by`: what needs them, as a key of the job; None: the search goes on without."""

    units: tuple[Unit, ...]
    pairs: int
    needed_by: str | None


def attribution_plan(
    proposer: Proposer, space: HypothesisSpace, for_weights: int = 0, needed: bool = False
) -> AttributionPlan | None:
    """Returns the effects that are computed, of all sites of the space: those that a proposer
    needs, or else on `for_weights` fit pairs, which may be `needed`. None: none are.
    """
    pairs = proposer.fit_pairs or for_weights
    if not pairs:
        return None
    units = (unit for intervention in space.interventions() for unit in whole_vectors(intervention))
    needed_by = "test.weights" if needed else None
    needed_by = f"propose.use: {proposer.name}" if proposer.fit_pairs else needed_by
    return AttributionPlan(tuple(dict.fromkeys(units)), pairs, needed_by)


def whole_vectors(intervention: Intervention) -> tuple[Unit, ...]:
    """Returns the units of an intervention as whole vectors, each once: the keys of its effects."""
    return tuple(dict.fromkeys(replace(unit, subspace=Subspace()) for unit in intervention.units))


class AlphaSpending:
    """Spends the chance of a false accept over generations, and says which of them need test pairs
    that no earlier one has seen.

    Proposals that are not from a set fixed before: the g-th generation spends 1/(g(g+1)) of the
    chance, shared evenly among its hypotheses. Proposals outside of such a set that are made after
    verdicts were chosen by these, so they are tested on pairs of their own. Controls spend nothing;
    one is judged as the latest proposals were.

    Args:
        declared: ids of the hypotheses of the space; None if the proposer is known to choose among
            a set that is fixed before.

    Raises:
        SearchFailedError: more proposals than a proposer said there could be.
    """

    def __init__(self, proposer: Proposer, declared: Container[str] | None = None) -> None:
        self._proposer = proposer
        self._declared = declared
        self._proposed = 0
        self._generation = 0
        self._judged_at = 0
        self._fresh = 0
        self._of: dict[str, float] = {}
        self._parts: dict[str, int] = {}

    def weigh(self, weights: Mapping[str, float]) -> None:
        """Fixes the shares of hypotheses by id, of at most 1 together, before the first test
        pair."""
        assert not self._generation, "weights are fixed before the first generation"
        self._of |= weights

    def enter(self, hypotheses: Collection[Hypothesis]) -> None:
        """Takes the hypotheses of a generation that are new."""
        k = self._proposer.max_hypotheses
        proposed = [h for h in hypotheses if h.intervention.control is None]
        self._proposed += len(proposed)
        if k is not None and self._proposed > k:
            raise SearchFailedError(
                f"propose.use: {self._proposer.name} says that its proposals are from "
                f"{k} hypotheses (max_hypotheses), and has made "
                f"{self._proposed}; let max_hypotheses say how many there are, or be None"
            )
        if proposed:
            self._generation += 1
            self._judged_at = judged_at(None, len(proposed), self._generation)
            chosen = [h.id for h in proposed if self._generation > 1 and self._is_outside(h)]
            self._fresh += bool(chosen)
            self._parts |= dict.fromkeys(chosen, self._fresh)
        if k is None:
            self._of |= {h.id: 1 / self._judged_at for h in hypotheses}
            self._parts |= {h.id: self._fresh for h in hypotheses}

    def move(self, hypotheses: Collection[Hypothesis], share: float, part: int) -> None:
        """Tests hypotheses anew on another part of the test pairs, which have `share` together."""
        each = share / max(1, sum(h.intervention.control is None for h in hypotheses))
        self._of |= {h.id: each for h in hypotheses}
        self._parts |= {h.id: part for h in hypotheses}

    def share(self, hypothesis: Hypothesis) -> float | None:
        """Returns the share of the chance that it spends; None: the even one, 1 / K."""
        return self._of.get(hypothesis.id)

    def part_of(self, hypothesis: Hypothesis) -> int:
        """Returns the part of the test pairs that it is tested on."""
        return self._parts.get(hypothesis.id, 0)

    def _is_outside(self, hypothesis: Hypothesis) -> bool:
        if self._proposer.max_hypotheses is None:
            return True
        return self._declared is not None and hypothesis.id not in self._declared
