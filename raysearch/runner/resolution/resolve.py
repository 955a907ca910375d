"""Turns a job into one that can be searched: variables, positions, pairs and claim.

Invariants: what is left open in the job (all variables, all positions, which claim) is filled in
here, once, so that the job that is written down, hashed and resumed names them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from raysearch.causal import (
    LAST,
    Pair,
    PairSample,
    Problem,
    Split,
    draw_matched,
    draw_more,
    draw_sample,
)
from raysearch.errors import JobError, PairsError, ResumeError
from raysearch.job import Job
from raysearch.problems import load_problem
from raysearch.problems.remote_pairs import sample_at
from raysearch.runner.resolution.given_objects import NO_OBJECTS, GivenObjects
from raysearch.runner.resolution.job_checks import (
    check_all_shared,
    check_choices,
    check_keys,
    check_rendered,
    check_sources,
    check_values,
)
from raysearch.runner.resolution.load_proposer import fit_pairs_of
from raysearch.runner.resolution.resolve_pair_kinds import kinds_of
from raysearch.runner.resolution.resolve_positions import (
    check_positions,
    positions_of_inputs,
    with_positions,
    with_tokens,
)
from raysearch.runner.resolution.resolved_job import (
    ResolvedJob,
    is_open,
    pair_counts,
    population_of,
    weight_pairs,
)
from raysearch.stats.evidence import MATCHINGS, looks
from raysearch.store.pairs_table import pairs_digest
from raysearch.suggest import check_known

SPARE = 4
"""A generator draws at most so many times the pairs that are asked, to make up for those that the
model does not solve."""


def resolve(job: Job, given: GivenObjects = NO_OBJECTS) -> ResolvedJob:
    """Returns the job as resolved, with its pairs. `given`: objects in place of what the job names.

    Raises: JobError, PairsError in one line.
    """
    job.refuse_placeholders("job", given.problem is not None, given.model is not None)
    check_keys(job)
    used = fit_pairs_of(job) or weight_pairs(job)
    if job.problem.use is None:
        return _from_file(job, used)
    problem = given.problem or load_problem(job.problem.use, job.problem.options)
    return _from_problem(job, problem, used)


def _from_problem(job: Job, problem: Problem, used: int) -> ResolvedJob:
    variables = job.space.variables or problem.model.names
    for name in variables:
        check_known("space.variables", "variable", name, problem.model.names, problem.name)
    check_positions(job, problem.positions, problem.name)
    for name in job.pairs.disjoint:
        check_known("pairs.disjoint", "variable", name, problem.model.names, problem.name)
    counts = pair_counts(job, used, SPARE if job.pairs.solved_only else 1)
    drawn = _drawn(job, problem, variables, counts)
    pairs = drawn.pairs
    known = (*problem.positions, LAST)
    filled = _resolved(job, variables, known, "sampler", pairs)
    resolved = _with_pairs(filled, drawn)
    check_rendered(problem, pairs, positions_of_inputs(resolved.positions, problem.positions))
    check_sources(job, pairs, problem.name)
    check_choices(job, pairs, f"problem {problem.name}")
    check_values(job, variables, pairs, f"problem {problem.name}")
    return resolved


def _drawn(
    job: Job, problem: Problem, variables: tuple[str, ...], counts: Mapping[Split, int]
) -> PairSample:
    seed, disjoint = job.pairs.seed, job.pairs.disjoint
    if job.test.generalise == "values":
        return draw_matched(problem, variables, counts, seed, disjoint[0], looks, MATCHINGS)
    return draw_sample(
        problem,
        variables,
        counts,
        seed,
        disjoint,
        trained=job.space.is_fitted,
        listed=0 if is_open(job) or job.test.claim == "these_pairs" else job.pairs.test,
    )


def with_more_pairs(
    resolved: ResolvedJob, n: int, number: int, given: GivenObjects = NO_OBJECTS
) -> ResolvedJob:
    """Returns the job of a run with `n` further test pairs that its problem draws, for its
    continuation `number`, from 1.

    Raises:
        ResumeError: the problem draws other pairs than when the run began.
        JobError, PairsError: the problem cannot be made, or draws no more.
    """
    job, began = resolved.job, [p for p in resolved.pairs if not p.added]
    assert job.problem.use is not None
    assert job.space.variables is not None
    problem = given.problem or load_problem(job.problem.use, job.problem.options)
    counts = pair_counts(
        job, fit_pairs_of(job) or weight_pairs(job), SPARE if job.pairs.solved_only else 1
    )
    again = _drawn(job, problem, job.space.variables, counts)
    if pairs_digest(with_tokens(again.pairs, job.space.declared)) != pairs_digest(began):
        raise ResumeError(
            f"problem {problem.name!r} draws other pairs than when the run began, so what it draws "
            "further would be of another population; put it back as it was, or begin a new run"
        )
    fitted = {p.contents for p in began if p.split == "fit"} if job.space.is_fitted else set()
    drawn = draw_more(
        problem, job.space.variables, counts, job.pairs.seed, job.pairs.disjoint, n, number, fitted
    )
    check_rendered(problem, drawn, positions_of_inputs(resolved.positions, problem.positions))
    first = 1 + max(p.index for p in resolved.pairs)
    new = [replace(p, index=first + i, added=number) for i, p in enumerate(drawn)]
    return replace(
        resolved, pairs=(*resolved.pairs, *with_tokens(new, job.space.declared)), continued=True
    )


def _from_file(job: Job, used: int) -> ResolvedJob:
    path = Path(job.problem.pairs or "")
    if job.pairs.disjoint:
        raise JobError(
            f"pairs.disjoint: {path.name} does not say the values of "
            f"{', '.join(job.pairs.disjoint)}; leave it out, and give its lines a split"
        )
    drawn = with_positions(
        job,
        sample_at(
            str(job.problem.pairs),
            pair_counts(job, used),
            job.pairs.seed,
            by_line=job.test.claim == "sampler" and not job.space.is_fitted,
        ),
        path.name,
    )
    pairs = drawn.pairs
    if not any(p.split == "test" for p in pairs):
        raise PairsError(
            f'{path}: has no test pairs; give some lines the split "test", or none a split and '
            f"they are dealt out"
        )
    known = tuple(pairs[0].counterfactual)
    variables = job.space.variables or known
    for name in variables:
        check_known("space.variables", "variable", name, known, path.name)
    if job.space.is_fitted and not any(p.split == "fit" for p in pairs):
        raise PairsError(
            f"{path}: has no fit pairs, and space.subspaces are fit; give some lines the split "
            f'"fit"'
        )
    if job.space.positions is None and job.space.components:
        check_all_shared(path, pairs)
    shared = _shared_positions(pairs)
    check_positions(job, shared, path.name)
    check_sources(job, pairs, path.name)
    check_choices(job, pairs, path.name)
    check_values(job, variables, pairs, path.name)
    known = (*shared, LAST)
    filled = _resolved(job, variables, known, "these_pairs", pairs)
    return _with_pairs(filled, drawn)


def _with_pairs(job: Job, drawn: PairSample) -> ResolvedJob:
    pairs = with_tokens(drawn.pairs, job.space.declared)
    return ResolvedJob(job, pairs, drawn.left_out, population_of(job, drawn))


def _shared_positions(pairs: Sequence[Pair]) -> tuple[str, ...]:
    """Returns the positions that every base and source has, in the order of the first."""
    inputs = [i for p in pairs for i in (p.base, *p.sources.values())]
    return tuple(name for name in inputs[0].positions if all(name in i.positions for i in inputs))


def _resolved(
    job: Job,
    variables: Sequence[str],
    positions: tuple[str, ...],
    default_claim: str,
    pairs: Sequence[Pair],
) -> Job:
    """Returns the job as resolved. `positions`: all that are known, for a grid where the job leaves
    them open."""
    meant = positions if job.space.positions is None else job.space.positions
    found = meant if job.space.components else ()
    space = job.space.model_copy(update={"variables": tuple(variables), "positions": found})
    claim = default_claim if job.test.claim == "auto" else job.test.claim
    tested = () if job.test.score == "matches" else (job.test.score,)
    answer = job.answer.model_copy(
        update={"scores": tuple(dict.fromkeys((*job.answer.scores, *tested)))}
    )
    return job.model_copy(
        update={
            "space": space,
            "answer": answer,
            "pairs": job.pairs.model_copy(update={"kinds": kinds_of(job, variables, pairs)}),
            "test": job.test.model_copy(update={"claim": claim}),
        }
    )
