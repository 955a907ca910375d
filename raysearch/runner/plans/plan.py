"""A plan: a job checked as far as it can be without running it, and what it would do.

Invariants: without a calibration no weights of a language model are read (a factory is called, as
there is no other way to see what it makes); no search is run; chances are of this job's K and
looks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from raysearch.causal import EVERY, Pair, Split
from raysearch.core.control_kinds import control_kind
from raysearch.core.events import Encoded
from raysearch.core.featurizers import is_trained
from raysearch.core.model_facts import ModelFacts
from raysearch.core.space import Grid, HypothesisSpace
from raysearch.engine.encoding.positions import common_length
from raysearch.engine.loading.inspect_model import best_device, inspect_model
from raysearch.engine.loading.model_summary import ModelSummary
from raysearch.engine.loading.quantisation import refuse_random_model
from raysearch.job import Job
from raysearch.proposers.base import Proposer, judged_at
from raysearch.runner.plans.example_pairs import example_lines
from raysearch.runner.plans.memory_estimate import MemoryEstimate, estimate_memory
from raysearch.runner.plans.plan_report import GRID, PlanReport
from raysearch.runner.plans.time_estimate import TimeEstimate, calibrate
from raysearch.runner.resolution.given_objects import NO_OBJECTS, GivenObjects
from raysearch.runner.resolution.resolve import resolve
from raysearch.runner.resolution.resolved_job import (
    ResolvedJob,
    pair_counts,
    shares_by_tokens,
    weight_pairs,
)
from raysearch.runner.session.too_few_pairs import too_few_pairs
from raysearch.search.baseline_policies import policies_of
from raysearch.search.pair_blocks import ExpectedAnswers, check_variables
from raysearch.search.pair_filters import count_pairs_before_screening
from raysearch.stats.clopper_pearson import pairs_for_width
from raysearch.stats.evidence import MATCHINGS
from raysearch.stats.exact_test import ExactTest
from raysearch.stats.match_test import MatchTest
from raysearch.stats.power import Power, power

LIKELY = 100, 95
"""Test pairs and matches of an accepted hypothesis, about."""
_SPLITS: tuple[Split, ...] = ("fit", "test", "holdout")
LOOKED_AT = 1000
"""Pairs of a split that a plan tokenizes, or more where more are wanted; a run tokenizes all."""


def plan(job: Job, given: GivenObjects = NO_OBJECTS, with_trial: bool = False) -> PlanReport:
    """Checks the job and computes what it would do; `with_trial`: and how long that would take, by
    a trial on this machine.

    Raises: JobError, PairsError, ModelError in one line; SearchFailedError where the trial fails.
    """
    resolved = resolve(job, given)
    with given.borrowed():
        report = _facts(resolved, model_summary(resolved, given))
        if with_trial:
            report = _with_seconds(report, resolved.job, calibrate(resolved, given))
    return report


def _needs_random_weights(job: Job) -> bool:
    """Says whether a control runs a second model, of random weights."""
    return any(control_kind(name).random_weights for name in job.controls)


def _facts(resolved: ResolvedJob, summary: ModelSummary) -> PlanReport:
    job = resolved.job
    if _needs_random_weights(job):
        refuse_random_model(job.model.path, summary.quantised)
    encoded = summary.encode(_first(resolved), resolved.positions, resolved.variables)
    tokens = common_length(encoded) if EVERY in resolved.positions else 0
    model = _model_facts(summary, job.model.dtype, tokens)
    space = resolved.space(model)
    proposer = resolved.proposer(space, model)
    expected = resolved.expected_answers(encoded)
    test, called = resolved.test_pairs(expected)
    check_variables(test, called)
    weighed_on = proposer.fit_pairs or weight_pairs(job, len(space))
    used = _used(resolved, encoded, weighed_on)
    powers, hopeless = _powers(resolved, proposer, space, len(test), bool(weighed_on))
    return PlanReport(
        job=job,
        name=job.name,
        model="/".join(Path(job.model.path).parts[-2:]),
        layers=summary.layers,
        path=summary.path,
        weight_bytes=summary.weight_bytes,
        **_search_facts(resolved, space, proposer),
        **_pair_facts(resolved, expected, test),
        claim=f"{job.test.claim}, about {resolved.about}",
        inputs=len({ids for e in used for ids in (e.base, *e.sources.values())}),
        longest=max(e.tokens for e in encoded),
        weighed_on=weighed_on,
        powers=powers,
        hopeless=hopeless,
        memory=_footprint(resolved, summary, used, len(space)),
        unused=summary.unused,
        quantised=summary.quantised,
        tokens=job.resources.tokens,
        examples=example_lines(resolved.pairs, encoded, summary.read),
    )


def _search_facts(
    resolved: ResolvedJob, space: HypothesisSpace, proposer: Proposer
) -> dict[str, Any]:
    """Returns the fields of a report that say what is searched, and by which proposer."""
    most = proposer.max_hypotheses
    fits, trained = _fits(space, resolved.job, most)
    return {
        "hypotheses": len(space),
        "proposer": proposer.name,
        "chooses": proposer.plan_words(len(space)),
        "k": most,
        "whole": proposer.tests_all and most == len(space),
        "interventions": len(space) // len(resolved.variables),
        "variables": resolved.variables,
        "positions": resolved.positions,
        "components": resolved.components,
        "sites": tuple(map(_sites_words, space.grids)),
        "sets": len(space.sets),
        "fits": fits,
        "trained": trained,
    }


def _pair_facts(
    resolved: ResolvedJob, pairs: Mapping[int, ExpectedAnswers], test: Sequence[ExpectedAnswers]
) -> dict[str, Any]:
    """Returns the fields of a report that say what the pairs can show before the model is run.

    `pairs`: those that are looked at; what drops pairs counts those that were read or drawn too.
    """
    variables = resolved.variables
    counts = count_pairs_before_screening(pairs, resolved.kinds == "change", resolved.left_out)
    return {
        "pairs": {s: sum(p.split == s for p in resolved.pairs) for s in _SPLITS},
        "change": {v: sum(e.changes(v) for e in test) / len(test) for v in variables},
        "apart": {" / ".join(vs): x for vs, x in shares_by_tokens(pairs, variables).items()},
        "baselines": tuple(
            p.baseline for v in variables for p in policies_of(pairs, v, resolved.kinds)
        ),
        "dropped": tuple(count for count in counts if count.why),
    }


def _first(resolved: ResolvedJob) -> list[Pair]:
    """Returns the first pairs of each split, in the order of the run: a thousand, or as many as the
    job wants, if that is more."""
    keys = resolved.job.pairs
    left = {
        "fit": max(keys.fit, LOOKED_AT),
        "test": max(keys.test, LOOKED_AT),
        "holdout": max(keys.holdout, LOOKED_AT),
    }
    found = []
    for pair in resolved.pairs:
        if left[pair.split]:
            left[pair.split] -= 1
            found.append(pair)
    return found


def _used(resolved: ResolvedJob, encoded: Sequence[Encoded], effects: int) -> list[Encoded]:
    """Returns the first pairs of each split, as many as are wanted: those that are run if the model
    solves them. `effects`: fit pairs that effects are computed on."""
    keys, found = resolved.job.pairs, {e.index: e for e in encoded}
    fit = pair_counts(resolved.job, effects).get("fit", 0)  # more are drawn before K is known
    wanted = {"fit": fit, "test": keys.test, "holdout": keys.holdout}
    return [
        found[p.index]
        for s, n in wanted.items()
        for p in [p for p in resolved.pairs if p.split == s][:n]
    ]


def _footprint(
    resolved: ResolvedJob,
    summary: ModelSummary,
    used: Sequence[Encoded],
    hypotheses: int,
) -> MemoryEstimate:
    job = resolved.job
    memory = None if job.resources.memory == "auto" else job.resources.memory
    test = [p.index for p in _first(resolved) if p.split == "test"]
    most = min(job.pairs.test, job.test.most_pairs)
    models = 2 if _needs_random_weights(job) else 1
    on_cpu = job.resources.gpus == 0 or (job.resources.gpus == "auto" and best_device() == "cpu")
    return estimate_memory(
        *(summary, used, test[:most], job.resources.rows, memory, models, hypotheses, on_cpu),
        *(resolved.positions, resolved.layers),
    )


def _with_seconds(facts: PlanReport, job: Job, found: TimeEstimate) -> PlanReport:
    """Adds the seconds of all replicas together, by those of one here."""
    replicas = 1 if job.resources.replicas == "auto" else job.resources.replicas
    steps = job.fit.steps * facts.trained if found.steps else 0
    most = min(job.pairs.holdout, facts.pairs["holdout"])
    holdout = pairs_for_width(LIKELY[0], LIKELY[1], job.pairs.holdout_width, most)
    each = [found.seconds(p, facts.inputs, facts.at_most, steps, holdout) for p in facts.powers]
    return replace(
        facts, calibration=found, seconds=tuple(found.load + seconds / replicas for seconds in each)
    )


def model_summary(resolved: ResolvedJob, given: GivenObjects = NO_OBJECTS) -> ModelSummary:
    """Returns what is known of the job's model without its weights. Raises: ModelError."""
    source = resolved.job.source
    if given.model is not None:
        return given.loaded(resolved.job).summary(resolved.pairs, resolved.components)
    if source.is_factory:
        from raysearch.engine.loading.factory import load_module

        return load_module(source).summary(resolved.pairs, resolved.components)
    return inspect_model(source, resolved.components)


def _model_facts(summary: ModelSummary, dtype: str, tokens: int) -> ModelFacts:
    """Returns the facts that are known of the model before it runs."""
    return ModelFacts(
        summary.layers,
        summary.width,
        summary.heads,
        "",
        dtype,
        "",
        summary.path,
        summary.components,
        tokens,
    )


def _sites_words(grid: Grid) -> str:
    """Returns one component in words: `head 0..8 at last`."""
    heads = [h for h in grid.heads if h is not None]
    run = len(heads) > 1 and heads == list(range(heads[0], heads[-1] + 1))
    which = f"{heads[0]}..{heads[-1]}" if run else ", ".join(map(str, heads))
    subspaces = "" if len(grid.subspaces) == 1 else f", {len(grid.subspaces)} subspaces each"
    return f"{grid.component}{' ' * bool(heads)}{which} at {', '.join(grid.positions)}{subspaces}"


def _powers(
    resolved: ResolvedJob,
    proposer: Proposer,
    space: HypothesisSpace,
    test_pairs: int,
    weighed: bool,
) -> tuple[tuple[Power, ...], str | None]:
    """Computes the chances of a verdict at this job's claim, K and looks, as if the model solved
    every pair and every pair were a change pair; and why nothing can be accepted, if so.

    Of a test on a score, as if every score were 0 or 1: of all scores of one mean these spread
    most, and so are told latest. Of a claim about new values, as if by one matching of them; that
    of several is more powerful.
    """
    job = resolved.job
    used = min(job.pairs.test, test_pairs)
    last = min(job.test.most_pairs, used)
    matchings = 1
    if resolved.population.name == "new_values":
        matchings = MATCHINGS
        last = min(last // matchings, (resolved.population.values or 0) // 2)
    test = replace(
        resolved.test(proposer, space), hypotheses=judged_at(proposer.max_hypotheses, len(space))
    )
    rates = test.threshold, test.false_accept, test.miss, test.hypotheses, test.indifference
    by_matches = job.test.score == "matches" and job.test.generalise == "pairs"
    futility = test.futility if by_matches else 0.0
    size = used if resolved.population.fixed else None
    kind = ExactTest if isinstance(test, ExactTest) else MatchTest
    test = kind(*rates, population=size, futility=futility)
    found = (power(test, iia, last, job.test.use == "fixed") for iia in GRID)
    powers = tuple(replace(p, pairs=p.pairs * matchings) for p in found)
    if matchings > 1:
        return powers, None  # too few values are refused before
    # One that weighs more, or is accepted beside others (e-BH), spends all at the most.
    most = replace(test, hypotheses=1) if weighed or job.test.control == "fdr" else test
    return powers, too_few_pairs(most, last, job, test.hypotheses, weighed)


def _fits(space: HypothesisSpace, job: Job, most: int | None) -> tuple[int, int]:
    """Returns the largest number of subspaces that are trained, seeds counted, or computed, and of
    those that are trained alone, if `most` hypotheses are proposed."""
    seeds = [
        len(job.fit.seeds) if any(is_trained(u.subspace.featurizer) for u in i.units) else 0
        for i in (h.intervention for h in space)
        if i.is_fitted
    ]
    largest = sorted(seeds, reverse=True)[:most]
    return sum(max(n, 1) for n in largest), sum(largest)
