"""The proposer that a job names: one that is ready, or the user's, "my_file.py:Proposer" or
"package.module:Proposer".

Invariants: whatever is wrong with the user's code is one line that names it, its own exception
chained; what a user's proposer makes is held against the model before it enters the search; what is
not fit is proposed for all variables at once.
"""

import inspect
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from raysearch.causal import token_name
from raysearch.core.hypothesis import Hypothesis
from raysearch.core.model_facts import ModelFacts
from raysearch.core.space import HypothesisSpace
from raysearch.errors import JobError, RaysearchError, SearchFailedError
from raysearch.job import Job
from raysearch.job.file_keys import PROPOSER
from raysearch.plugins import load
from raysearch.proposers.base import History, Proposer, words_of_k
from raysearch.proposers.registry import GROUP, READY
from raysearch.runner.resolution.resolve_space import check_units
from raysearch.user_code import CodeKind, find
from raysearch.visible_text import one_line

log = logging.getLogger(__name__)

OWN = CodeKind(
    what="a class with propose(known), or a function that returns a Proposer",
    would_do="my_file.py:Proposer, or package.module:Proposer",
    is_one=lambda found: False,
    is_class=lambda found: callable(getattr(found, "propose", None)),
    returns="Proposer",
)
"""A proposer of the user's own, which a job may name instead."""


def fit_pairs_of(job: Job) -> int:
    """Returns how many fit pairs the proposer of a job uses: 0 for most. Runs the user's code, if
    the proposer is the user's.

    Raises: JobError for wrong options of one that uses some, or where the job has no fit pairs.
    """
    use, options = job.propose.use, job.propose.options
    make = _maker(use)
    declared = getattr(make, "fit_pairs", 0)
    if declared is Proposer.fit_pairs:
        return 0
    if isinstance(declared, property):
        declared = _made(use, make, HypothesisSpace(()), options).fit_pairs
    if isinstance(declared, bool) or not isinstance(declared, int) or declared < 0:
        raise JobError(
            f"propose.use: fit_pairs of {use} is {declared!r}; it must be a number of fit pairs, "
            f"such as 64, or 0"
        )
    if declared and not job.pairs.fit:
        raise JobError(
            f"pairs.fit: 0 leaves no pairs to choose hypotheses by, as propose.use: {use} does; "
            f"give it some, such as {declared}"
        )
    return min(declared, job.pairs.fit)


def proposer_of(
    job: Job, space: HypothesisSpace, facts: ModelFacts, positions: Sequence[str]
) -> Proposer:
    """Returns the proposer of a resolved job. `positions`: those that the pairs are encoded with.
    Raises: JobError."""
    use = job.propose.use
    make = _maker(use)
    made = _made(use, make, space, job.propose.options)
    if use in READY:
        ready: Proposer = made
        return ready
    if not callable(getattr(made, "propose", None)):
        raise JobError(
            f"propose.use: {use} made {type(made).__name__}, which has no propose(known); it must "
            f"propose a generation at a time"
        )
    k = _max_hypotheses(made, use)
    if k is not None and (isinstance(k, bool) or not isinstance(k, int) or k < 1):
        raise JobError(
            f"propose.use: max_hypotheses of {use} is {k!r}; it must be a number of hypotheses, "
            f"such as len(space), or None"
        )
    return CheckedProposer(
        made,
        _Declared(str(getattr(made, "name", use.rpartition(":")[2])), k, fit_pairs_of(job)),
        use,
        _Bounds(job, space, facts, (*positions, *map(token_name, range(facts.tokens)))),
    )


def _max_hypotheses(made: Any, use: str) -> Any:
    """Returns the K that a proposer declares; warns of one that calls it `most`, its old name."""
    own = getattr(type(made), "max_hypotheses", None)
    if hasattr(made, "most") and own in (None, Proposer.max_hypotheses):
        _warn_of_most(use)
        return made.most
    return getattr(made, "max_hypotheses", None)


@cache
def _warn_of_most(use: str) -> None:
    log.warning(
        "propose.use: %s: `most` is now called `max_hypotheses`; the old name goes with the next "
        "release",
        use,
    )


def _maker(use: str) -> Any:
    """Returns the class or function that makes a proposer; runs the code of one that is not
    ours."""
    if use in READY:
        return READY[use]
    if ":" not in use:
        return load(GROUP, use, PROPOSER)
    place, _, name = use.rpartition(":")
    return find(place, name, PROPOSER, OWN)


@dataclass(frozen=True)
class _Bounds:
    """The limits that a user's hypotheses must keep to."""

    job: Job
    space: HypothesisSpace
    facts: ModelFacts
    positions: tuple[str, ...]

    def check(self, hypothesis: object) -> Hypothesis:
        """Raises: JobError for what is no hypothesis that this job can test."""
        if not isinstance(hypothesis, Hypothesis):
            raise JobError(f"it proposed {hypothesis!r:.80}; propose a raysearch.Hypothesis")
        intervention = hypothesis.intervention
        if hypothesis.variable not in self.space.variables:
            raise JobError(
                f"{hypothesis.variable!r} is no variable of the job; it has "
                f"{', '.join(self.space.variables)}"
            )
        if (
            intervention.kind != "interchange"
            or intervention.control is not None
            or intervention.fit is not None
        ):
            raise JobError(
                f"intervention {intervention.id} has a kind, control or fit of its own; leave them "
                f"as they are"
            )
        if intervention.is_fitted and not self.job.space.is_fitted:
            raise JobError(
                "it proposed a subspace that is fit, and space.subspaces has none; name one there"
            )
        if intervention.variable != (hypothesis.variable if intervention.is_fitted else None):
            raise JobError(
                f"the intervention of {hypothesis.id} is of variable {intervention.variable!r}; of "
                "one that is fit it is the hypothesis's, else None"
            )
        check_units(self.job, self.facts, intervention.units, self.positions)
        return hypothesis


@dataclass(frozen=True, slots=True)
class _Declared:
    """The attributes of a proposer that is not raysearch's own, read once, when it is made."""

    name: str
    max_hypotheses: int | None
    fit_pairs: int


@dataclass(frozen=True)
class CheckedProposer(Proposer):
    """A proposer that is not ours, held against the model; `use`: the job's name for it."""

    proposer: Any
    declared: _Declared
    use: str
    bounds: _Bounds

    @property
    def name(self) -> str:
        return self.declared.name

    @property
    def max_hypotheses(self) -> int | None:
        return self.declared.max_hypotheses

    @property
    def fit_pairs(self) -> int:
        return self.declared.fit_pairs

    def plan_words(self, space: int) -> str:
        return words_of_k(Path(self.use).name, self.max_hypotheses, space)

    def propose(self, known: History) -> Iterable[Hypothesis]:
        try:
            proposed = list(self.proposer.propose(known))
            found = [self.bounds.check(h) for h in proposed]
        except RaysearchError as e:
            raise SearchFailedError(
                f"propose.use: {self.use}, generation {known.generations}: {e}"
            ) from e
        except (Exception, SystemExit) as e:
            raise SearchFailedError(
                f"propose.use: {self.use}, generation {known.generations}: propose raised "
                f"{type(e).__name__}: {one_line(e)}"
            ) from e
        together = [
            self.bounds.space.hypotheses_on(h.intervention)
            if not h.intervention.is_fitted
            else (h,)
            for h in found
        ]
        return [h for group in together for h in group]


def _made(use: str, make: Any, space: HypothesisSpace, options: dict[str, Any]) -> Any:
    """Raises: JobError where it cannot be called so, or raises."""
    if not callable(make):
        raise JobError(
            f"propose.use: {use} is {type(make).__name__}; it must be a class or function that "
            f"makes a proposer"
        )
    taken = [n for n in inspect.signature(make).parameters if n != "name"][1:]
    try:
        inspect.signature(make).bind(space, **options)
    except TypeError as e:
        raise JobError(f"propose.options: {use}: {e}; it takes {', '.join(taken) or 'none'}") from e
    try:
        return make(space, **options)
    except RaysearchError:
        raise
    except ValueError as e:
        raise JobError(f"propose.options: {use}: {e}") from e
    except (Exception, SystemExit) as e:
        raise JobError(
            f"propose.use: {Path(use).name} raised {type(e).__name__}: {one_line(e)}"
        ) from e
