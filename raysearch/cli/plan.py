"""`raysearch plan`: checks a job as far as it can be without running it, and says what it would do.

Invariants: without `--calibrate` no weights of a language model are read (a factory is called, as
there is no other way to see what it makes); no search is run; what is printed is computed for this
job's K and looks.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click

from raysearch.causal import EVERY, Pair, Split
from raysearch.cli.plan_text import calibration_words, duration, memory_words, size
from raysearch.cli.terminal import in_lines
from raysearch.core.events import Encoded, ModelFacts
from raysearch.core.featurizers import is_trained
from raysearch.core.pair_counts import UNREPORTED, PairCount
from raysearch.core.space import Grid, HypothesisSpace
from raysearch.engine.encoding.positions import every
from raysearch.engine.encoding.prompt_format import PromptFormat
from raysearch.engine.loading.factory import FactorySource, look_at
from raysearch.engine.loading.load import ModelSource, ModelSummary, best_device, inspect_model
from raysearch.job import Job
from raysearch.proposers.base import Proposer
from raysearch.runner.error_context import named
from raysearch.runner.job_code import code_of
from raysearch.runner.load_proposer import READY
from raysearch.runner.memory_estimate import MemoryEstimate, footprint
from raysearch.runner.resolved_job import ResolvedJob, differing, resolve
from raysearch.runner.time_estimate import TimeEstimate, calibrate
from raysearch.search.pair_blocks import ExpectedAnswers, check_variables
from raysearch.search.pair_filters import count_pairs_before_screening
from raysearch.stats.match_test import MatchTest
from raysearch.stats.power import Power, power
from raysearch.visible_text import visible

GRID = (0.0, 0.1, 0.3, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)
"""True IIAs for which chances are told."""
LOOKED_AT = 1000
"""Pairs of a split that a plan tokenizes, or more where more are wanted; a run tokenizes all."""


_PATHS = {
    "replay": "suffix replay, from the patch on; each replica proves it against plain forward "
    "passes when it starts",
    "batched": "batched full forward passes: this model is on tensors, takes no cache, or does not "
    "say which logits to compute",
}


@dataclass(frozen=True)
class _Facts:
    name: str
    model: str
    layers: int
    path: str
    weight_bytes: int
    hypotheses: int
    proposer: str
    k: int | None
    interventions: int
    variables: tuple[str, ...]
    positions: tuple[str, ...]
    components: tuple[str, ...]
    sites: tuple[str, ...]
    sets: int
    fits: int
    claim: str
    pairs: dict[Split, int]
    inputs: int
    longest: int
    change: dict[str, float]
    apart: dict[str, float]
    powers: tuple[Power, ...]
    memory: MemoryEstimate
    dropped: tuple[PairCount, ...]
    calibration: TimeEstimate | None
    seconds: tuple[float, ...] | None
    unused: tuple[str, ...] = ()


def plan_job(path: Path, sets: Sequence[str], output: str, with_trial: bool = False) -> str:
    """What the job would do, as text or JSON; `with_trial`: and how long it would take, by a trial
    on this machine.

    Raises: JobError, PairsError, ModelError in one line; SearchFailedError where the trial fails.
    """
    job = Job.load(path, sets)
    with named(path, job):
        for line in code_of(job):
            click.echo(visible(line), err=True)
        question = resolve(job)
        facts = _facts(question)
        if with_trial:
            facts = _with_seconds(facts, question.job, calibrate(question))
    return json.dumps(asdict(facts), indent=2) if output == "json" else _text(facts, question.job)


def _facts(question: ResolvedJob) -> _Facts:
    job = question.job
    looked = looked_at(question)
    encoded = looked.encode(_first(question), question.positions, question.variables)
    tokens = every(encoded) if EVERY in question.positions else 0
    model = _model_facts(looked, job.model.dtype, tokens)
    space = question.space(model)
    proposer = question.proposer(space, model)
    expected_answers = question.expected_answers(encoded)
    test, called = question.test_pairs(expected_answers)
    check_variables(test, called)
    splits: tuple[Split, ...] = ("fit", "test", "holdout")
    used = _used(question, encoded)
    return _Facts(
        name=job.name,
        model="/".join(Path(job.model.path).parts[-2:]),
        layers=looked.layers,
        path=looked.path,
        weight_bytes=looked.weight_bytes,
        hypotheses=len(space),
        proposer=proposer.name,
        k=proposer.most,
        interventions=len(space) // len(question.variables),
        variables=question.variables,
        positions=question.positions,
        components=question.components,
        sites=tuple(_sites_words(grid) for grid in space.grids),
        sets=len(space.sets),
        fits=_fits(space, job, proposer.most),
        claim=job.test.claim,
        pairs={s: sum(p.split == s for p in question.pairs) for s in splits},
        inputs=len({ids for e in used for ids in (e.base, *e.sources.values())}),
        longest=max(e.tokens for e in encoded),
        change={v: sum(e.changes(v) for e in test) / len(test) for v in question.variables},
        apart={
            f"{v} / {w}": share
            for (v, w), share in differing(expected_answers, question.variables).items()
        },
        powers=_powers(question, proposer, space, len(test)),
        memory=_footprint(
            job, looked, used, [p.index for p in _first(question) if p.split == "test"], len(space)
        ),
        dropped=_dropped(question, expected_answers),
        calibration=None,
        seconds=None,
        unused=looked.unused,
    )


def _dropped(question: ResolvedJob, pairs: Mapping[int, ExpectedAnswers]) -> tuple[PairCount, ...]:
    """What does not count, as far as it shows before the model is run: of the pairs that are looked
    at, and of what was read or drawn."""
    counts = count_pairs_before_screening(
        pairs, question.job.pairs.kinds == "change", question.left_out
    )
    return tuple(count for count in counts if count.why)


def _dropped_words(facts: "_Facts") -> list[str]:
    """A line for each variable and reason, the way out beside it; nothing where all pairs count."""
    found: Counter[tuple[str, str, str, str]] = Counter()
    for c in facts.dropped:
        if c.reason not in UNREPORTED:
            found[c.variable, c.split or "drawn", c.why, c.way_out] += c.pairs
    lines = [
        f"  {v}: {n} {split} pairs: {why} ({out})" for (v, split, why, out), n in found.items()
    ]
    return (
        ["", "pairs that do not count, as far as it shows before the model is run", *lines]
        if lines
        else []
    )


def _first(question: ResolvedJob) -> list[Pair]:
    """The pairs that are looked at: of each split the first, as many as are wanted or a thousand,
    in the order of the run."""
    keys = question.job.pairs
    left = {
        "fit": max(keys.fit, LOOKED_AT),
        "test": max(keys.test, LOOKED_AT),
        "holdout": max(keys.holdout, LOOKED_AT),
    }
    found = []
    for pair in question.pairs:
        if left[pair.split]:
            left[pair.split] -= 1
            found.append(pair)
    return found


def _used(question: ResolvedJob, encoded: Sequence[Encoded]) -> list[Encoded]:
    """Of each split as many as are wanted, from the front: those that are run if the model solves
    them."""
    keys, found = question.job.pairs, {e.index: e for e in encoded}
    wanted = {"fit": keys.fit, "test": keys.test, "holdout": keys.holdout}
    return [
        found[p.index]
        for s, n in wanted.items()
        for p in [p for p in question.pairs if p.split == s][:n]
    ]


def _footprint(
    job: Job, looked: ModelSummary, used: Sequence[Encoded], test: Sequence[int], hypotheses: int
) -> MemoryEstimate:
    memory = None if job.resources.memory == "auto" else job.resources.memory
    most = min(job.pairs.test, job.test.most_pairs)
    models = 2 if "random_model" in job.controls else 1
    on_cpu = job.resources.gpus == 0 or (job.resources.gpus == "auto" and best_device() == "cpu")
    return footprint(
        looked, used, test[:most], job.resources.rows, memory, models, hypotheses, on_cpu
    )


def _mixed(facts: _Facts) -> float:
    """Seconds where one site in ten is true and the others are not."""
    at = dict(zip(GRID, facts.seconds or (0.0,) * len(GRID), strict=True))
    return 0.9 * at[0.1] + 0.1 * at[0.95]


def _with_seconds(facts: _Facts, job: Job, found: TimeEstimate) -> _Facts:
    """Of all replicas together, by what one here took."""
    replicas = 1 if job.resources.replicas == "auto" else job.resources.replicas
    steps = job.fit.steps * facts.fits if found.steps else 0
    holdout = min(job.pairs.holdout, facts.pairs["holdout"])
    each = [found.seconds(p, facts.inputs, _at_most(facts), steps, holdout) for p in facts.powers]
    return replace(
        facts, calibration=found, seconds=tuple(found.load + seconds / replicas for seconds in each)
    )


def looked_at(question: ResolvedJob) -> ModelSummary:
    """The model of the job, as far as it is known without its weights. Raises: ModelError."""
    model = question.job.model
    if model.is_factory:
        return look_at(FactorySource(model.path, model.dtype), question.pairs, question.components)
    source = ModelSource(
        model.path,
        model.revision,
        model.dtype,
        trust_remote_code=model.trust_remote_code,
        wording=PromptFormat(**question.job.wording),
    )
    return inspect_model(source, question.components)


def _model_facts(looked: ModelSummary, dtype: str, tokens: int) -> ModelFacts:
    """What can be known of the model before it runs."""
    return ModelFacts(
        looked.layers,
        looked.width,
        looked.heads,
        "",
        dtype,
        "",
        looked.path,
        looked.components,
        tokens,
    )


def _sites_words(grid: Grid) -> str:
    """One component in words: `head 0..8 at last`."""
    heads = [h for h in grid.heads if h is not None]
    run = len(heads) > 1 and heads == list(range(heads[0], heads[-1] + 1))
    which = f"{heads[0]}..{heads[-1]}" if run else ", ".join(map(str, heads))
    subspaces = "" if len(grid.subspaces) == 1 else f", {len(grid.subspaces)} subspaces each"
    return f"{grid.component}{' ' * bool(heads)}{which} at {', '.join(grid.positions)}{subspaces}"


def _judged_at(most: int | None, space: int) -> int:
    """The K for which chances are told: of an open-ended proposer that of its last proposal, were
    there as many as in the space."""
    return space * (space + 1) if most is None else most


def _powers(
    question: ResolvedJob, proposer: Proposer, space: HypothesisSpace, test_pairs: int
) -> tuple[Power, ...]:
    """At this job's claim, K and looks, as if the model solved every pair and every pair were a
    change pair.

    Of a test on a score, as if every score were 0 or 1: of all scores of one mean these spread
    most, and so are told latest.
    """
    job = question.job
    used = min(job.pairs.test, test_pairs)
    last = min(job.test.most_pairs, used)
    asked = replace(
        question.test(proposer, space), hypotheses=_judged_at(proposer.most, len(space))
    )
    rates = asked.threshold, asked.false_accept, asked.miss, asked.hypotheses, asked.indifference
    test = MatchTest(*rates, population=used if question.these_pairs else None)
    return tuple(power(test, iia, last, job.test.use == "fixed") for iia in GRID)


def _fits(space: HypothesisSpace, job: Job, most: int | None) -> int:
    """How many subspaces are trained or computed at most, seeds counted, where so many hypotheses
    are proposed."""
    fitted = [h.intervention for h in space if h.intervention.is_fitted]
    seeds = [
        len(job.fit.seeds) if any(is_trained(u.subspace.featurizer) for u in i.units) else 1
        for i in fitted
    ]
    return sum(sorted(seeds, reverse=True)[:most])


def _training_words(facts: "_Facts", job: Job) -> list[str]:
    if not facts.fits:
        return []
    rungs = (
        f", the hopeless dropped at {', '.join(map(str, job.fit.rungs))}" if job.fit.rungs else ""
    )
    warm = ", smaller das within larger" if job.fit.warm_start else ""
    return [
        f"  training    {facts.fits} fits (seeds counted) of at most {job.fit.steps} steps with "
        f"{job.fit.batch} pairs each{rungs}{warm}; "
        f"{facts.pairs['fit']} fit pairs at hand, {job.pairs.fit} wanted"
    ]


def _at_most(facts: "_Facts") -> int:
    """Interventions that are run, where every proposal is of another."""
    return facts.interventions if facts.k is None else min(facts.interventions, facts.k)


def _proposer_words(facts: "_Facts", job: Job) -> str:
    """Who chooses what is tested, and by which K the chance of a false accept is divided."""
    who, space = job.propose.use, facts.hypotheses
    if facts.k is None:
        last = f"the chances below are of proposal {space} (K = {_judged_at(None, space)})"
        return f"{Path(who).name}, open-ended: its j-th proposal is judged at K = j(j + 1); {last}"
    if who == "exhaustive":
        return f"exhaustive: tests all {space}; each is judged at K = {facts.k}"
    if who in READY and facts.k < space:
        return f"{who}: tests {facts.k} of the {space}; each is judged at K = {facts.k}"
    if who in READY:
        return f"{who}: tests some of the {space}, as it learns; each is judged at K = {facts.k}, whichever it tests"
    return f"{Path(who).name}: what it proposes is judged at K = {facts.k}, the most that it may propose"


def _sets_words(sets: int) -> list[str]:
    return [f"{sets} explicit set{'s' * (sets > 1)} of units"] if sets else []


def _beyond_words(facts: _Facts) -> str:
    """How many more were read, of which a search keeps no more than it can come to ask for."""
    first = facts.variables[0]
    more = sum(c.pairs for c in facts.dropped if c.variable == first and c.reason == "beyond")
    return f" ({more} more were passed over)" if more else ""


def _judged_words(job: Job) -> str:
    return (
        ""
        if job.test.score == "matches"
        else f"of the mean {job.test.score.replace('_', ' ')}, by betting; "
    )


def _powers_words(job: Job) -> str:
    if job.test.score == "matches":
        return "if every pair is solved and changes the answer:"
    return (
        "if every pair is solved and changes the answer, and every score is 0 or 1 (which needs "
        "the most pairs; scores between are told "
        "sooner):"
    )


def _text(facts: _Facts, job: Job) -> str:
    lines = [
        f"{facts.name}: {facts.hypotheses} hypotheses",
        f"  model       {facts.model}, {facts.layers or 'no'} layers, {job.model.dtype}, "
        f"{size(facts.weight_bytes)} of weights",
        *(f"  left out    {line}" for line in facts.unused),
        f"  path        {_PATHS[facts.path]}",
        f"  variables   {', '.join(facts.variables)}",
        f"  sites       {facts.interventions}: "
        f"{'; '.join([*facts.sites, *_sets_words(facts.sets)])}",
        f"  pairs       {facts.pairs['test']} test and {facts.pairs['holdout']} holdout at "
        f"hand{_beyond_words(facts)}, "
        f"{job.pairs.test} and {job.pairs.holdout} "
        f"wanted{' that the model solves' if job.pairs.solved_only else ''}; "
        f"{facts.inputs} distinct inputs of at most {facts.longest} "
        f"token{'s' * (facts.longest > 1)}",
        *_training_words(facts, job),
        f"  proposer    {_proposer_words(facts, job)}",
        f"  claim       {facts.claim}; {_judged_words(job)}threshold {job.test.threshold:g}, "
        f"false accept {job.test.false_accept:g} over all that it proposes, miss {job.test.miss:g} "
        f"each",
        "",
        "share of test pairs on which a variable changes the answer",
        *(f"  {v:<24} {share:.2f}" for v, share in facts.change.items()),
    ]
    lines += _dropped_words(facts)
    if facts.apart:
        lines += ["", "share of test pairs that tell two variables apart"]
        lines += [f"  {names:<24} {share:.2f}" for names, share in facts.apart.items()]
    lines += ["", _powers_words(job)]
    took = (
        [""] * len(facts.powers)
        if facts.seconds is None
        else [f"  {duration(s):>14}" for s in facts.seconds]
    )
    truth = "true IIA  " if job.test.score == "matches" else "true mean "
    lines += [
        f"{truth} P(accept)  P(reject)  P(undecided)  expected pairs"
        + "  if all are so" * any(took)
    ]
    lines += [
        f"{p.iia:8.2f}   {p.accept:9.3f}  {p.reject:9.3f}  {p.undecided:12.3f}  "
        f"{p.pairs:14.0f}{time}"
        for p, time in zip(facts.powers, took, strict=True)
    ]
    low, high = (
        _at_most(facts) * p.pairs
        for p in (facts.powers[0], max(facts.powers, key=lambda p: p.pairs))
    )
    all_are = job.propose.use == "exhaustive" or facts.k == _at_most(facts)
    over = "" if all_are else ", were all of the space tested"
    lines += [
        "",
        f"model runs{over}: between {low:.0f} (all sites false) and {high:.0f} (all at the "
        f"threshold), screening aside",
        "",
        *memory_words(facts.memory, job),
        *calibration_words(facts.calibration, job, _mixed(facts)),
    ]
    return in_lines(lines)
