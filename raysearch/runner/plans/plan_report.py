"""The result of a plan, and its text.

Invariants: an estimate is called one, and says what it is of; a measured figure says how much was
measured.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from raysearch.causal import Split
from raysearch.core.baselines import Baseline
from raysearch.core.option_names import PAIR_KINDS, number_of
from raysearch.core.pair_counts import PairCount
from raysearch.job import Job
from raysearch.runner.plans.amounts import duration, size
from raysearch.runner.plans.memory_estimate import MemoryEstimate
from raysearch.runner.plans.pair_words import dropped_words
from raysearch.runner.plans.time_estimate import TimeEstimate
from raysearch.stats.power import Power
from raysearch.visible_text import visible

_PATHS = {
    "replay": "suffix replay, from the patch on; each replica proves it against plain forward "
    "passes when it starts",
    "batched": "batched full forward passes: this model is on tensors, takes no cache, or does not "
    "say which logits to compute",
}


GRID = (0.0, 0.1, 0.3, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)
"""True IIAs for which chances are told."""


@dataclass(frozen=True, repr=False)
class PlanReport:
    """A job, checked as far as it can be without running it, and what it would do.

    `path`: how the model is evaluated. `chooses`: how the proposer chooses, in words; `whole`:
    whether it tests the whole space. `k`: hypotheses that the chance of a false accept is divided
    by (None: an open-ended proposer). `sets`: explicit sets of units; `fits`: subspaces trained or
    computed, seeds counted; `trained`: those of them that take steps. `inputs`: distinct ones, of
    at most `longest` tokens. `change`: by variable the share of test pairs on which it changes the
    answer; `apart`: by pair of variables the share that tells them apart. `baselines`: by variable
    what pure policies score on its pairs, the best first. `weighed_on`: fit pairs whose effects
    weigh the hypotheses (0: all spend alike). `examples`: lines that show two test pairs. `tokens`:
    those of a wave, as the job has them. `powers`: chances of each verdict at the true IIAs of
    `GRID`; `hopeless`: why nothing can be accepted, if so; `seconds`: of the search at each IIA, by
    `calibration` (None: not measured).
    """

    job: Job
    name: str
    model: str
    layers: int
    path: str
    weight_bytes: int
    hypotheses: int
    proposer: str
    chooses: str
    k: int | None
    whole: bool
    interventions: int
    variables: tuple[str, ...]
    positions: tuple[str, ...]
    components: tuple[str, ...]
    sites: tuple[str, ...]
    sets: int
    fits: int
    trained: int
    claim: str
    pairs: dict[Split, int]
    inputs: int
    longest: int
    change: dict[str, float]
    apart: dict[str, float]
    baselines: tuple[Baseline, ...]
    weighed_on: int
    powers: tuple[Power, ...]
    memory: MemoryEstimate
    dropped: tuple[PairCount, ...]
    calibration: TimeEstimate | None = None
    seconds: tuple[float, ...] | None = None
    unused: tuple[str, ...] = ()
    quantised: str | None = None
    examples: tuple[str, ...] = ()
    hopeless: str | None = None
    tokens: int | Literal["auto"] = "auto"

    @property
    def at_most(self) -> int:
        """Interventions that are run, where every proposal is of another."""
        return self.interventions if self.k is None else min(self.interventions, self.k)

    def plain(self) -> dict[str, Any]:
        """Returns all fields by name, as JSON has them."""
        return {name: value for name, value in asdict(self).items() if name != "job"}

    def __repr__(self) -> str:
        return _text(self)


def _horizon_words(job: Job) -> str:
    if not job.test.is_exact and job.test.claim == "these_pairs":
        return "the pairs at hand: what stays undecided has no others to go on on"
    if not job.test.is_exact:
        return "open: what stays undecided may go on on further pairs (resume --more-pairs)"
    kept = f"{job.test.reserve:g} of both chances of error is kept for more pairs"
    return f"fixed: {kept if job.test.reserve else 'no more pairs, for test.reserve is 0'}"


def _text(facts: PlanReport) -> str:
    job = facts.job
    lines = _question_lines(facts) + dropped_words(facts.dropped)
    if facts.hopeless:
        lines += ["", f"warning: {facts.hopeless}"]
    if facts.examples:
        lines += [
            "",
            "test pairs as the model gets them, each with its answer; below, the counterfactual of "
            "each variable",
        ]
        lines += [f"  {line}" for line in facts.examples]
    if facts.apart:
        lines += ["", "share of test pairs that tell two variables apart"]
        lines += [f"  {names:<24} {share:.2f}" for names, share in facts.apart.items()]
    lines += _baseline_words(facts.baselines, job)
    lines += ["", *_power_lines(facts), "", _runs_line(facts), ""]
    lines += memory_words(facts.memory, job)
    lines += _calibration_words(facts.calibration, job, _mixed(facts))
    return "\n".join(map(visible, lines))


def _question_lines(facts: PlanReport) -> list[str]:
    """Says what is asked of which model, on which pairs and by which test."""
    job, layers = facts.job, number_of(facts.layers, "layer") if facts.layers else "no layers"
    return [
        f"{facts.name}: {number_of(facts.hypotheses, 'hypothesis')}",
        f"  model       {facts.model}, {layers}, {job.model.dtype}, "
        f"{size(facts.weight_bytes)} of weights",
        *(f"  left out    {line}" for line in facts.unused),
        *_quantised_words(facts),
        *_unrun_words(facts, job),
        f"  path        {_PATHS[facts.path]}",
        *([_waves_words(facts)] if facts.path == "replay" else []),
        f"  variables   {', '.join(facts.variables)}",
        f"  sites       {facts.interventions}: "
        f"{'; '.join([*facts.sites, *_sets_words(facts.sets)])}",
        f"  pairs       {facts.pairs['test']} test and {facts.pairs['holdout']} holdout at "
        f"hand{_beyond_words(facts)}, {job.pairs.test} and {job.pairs.holdout} "
        f"wanted{' that the model solves' if job.pairs.solved_only else ''}; {facts.inputs} "
        f"distinct inputs of at most {facts.longest} token{'s' * (facts.longest > 1)}",
        *_training_words(facts, job),
        f"  proposer    {facts.chooses}",
        f"  decided by  {_kinds_words(job)}",
        f"  claim       {facts.claim}; {_judged_words(job)}threshold {job.test.threshold:g}, "
        f"{_error_words(job)} {job.test.false_accept:g} over all that it proposes, miss "
        f"{job.test.miss:g} each",
        f"  horizon     {_horizon_words(job)}",
        *_weight_words(facts),
        "",
        "share of test pairs on which a variable changes the answer",
        *(f"  {v:<24} {share:.2f}" for v, share in facts.change.items()),
    ]


def _power_lines(facts: PlanReport) -> list[str]:
    """Says with which chances hypotheses of some true IIAs are accepted, and after how many
    pairs."""
    took = (
        [""] * len(facts.powers)
        if facts.seconds is None
        else [f"  {duration(s):>14}" for s in facts.seconds]
    )
    truth = "true IIA  " if facts.job.test.score == "matches" else "true mean "
    return [
        _powers_words(facts.job),
        f"{truth} P(accept)  P(reject)  P(undecided)  expected pairs"
        + "  if all are so" * any(took),
        *dict.fromkeys(  # of few pairs, two chances may be of one share
            f"{p.iia:8.3f}   {p.accept:9.3f}  {p.reject:9.3f}  {p.undecided:12.3f}  "
            f"{p.pairs:14.0f}{time}"
            for p, time in zip(facts.powers, took, strict=True)
        ),
    ]


def _runs_line(facts: PlanReport) -> str:
    """Says between which numbers the runs of the model are."""
    low, high = (
        facts.at_most * p.pairs for p in (facts.powers[0], max(facts.powers, key=lambda p: p.pairs))
    )
    all_are = facts.whole or facts.k == facts.at_most
    over = "" if all_are else ", were all of the space tested"
    return (
        f"model runs{over}: between {low:.0f} (all sites false) and {high:.0f} (all at the "
        f"threshold), screening aside"
    )


def _quantised_words(facts: PlanReport) -> list[str]:
    """Says what a quantised model cannot do, and that none was run here."""
    if facts.quantised is None:
        return []
    gradients = (
        "; a fit needs a kernel with gradients (bitsandbytes has them, GPTQ some, AWQ few)"
        if facts.trained
        else ""
    )
    return [
        f"  quantised   {facts.quantised}: loaded as it is, with the package of that method; its "
        f"weights are counted as if they were not{gradients}; raysearch's tests ran none"
    ]


def _kinds_words(job: Job) -> str:
    """Says which pairs decide, and what leaves keep pairs out."""
    out = " (where an answer is one of two by default; pairs.kinds: change leaves keep pairs out)"
    kinds = job.pairs.kinds
    return PAIR_KINDS["change" if kinds == "auto" else kinds] + out * (kinds == "both")


def _unrun_words(facts: PlanReport, job: Job) -> list[str]:
    """Says that a model was not run, where it was not: a plan reads no weights of a language
    model."""
    if job.source.is_factory or job.model.is_given or facts.calibration is not None:
        return []
    return [
        "  not run     its weights are not read, so whether it runs shows where a run begins, or "
        "here with --calibrate"
    ]


def _baseline_words(baselines: Sequence[Baseline], job: Job) -> list[str]:
    """Returns a line for each variable and policy; a policy that is never right has none."""
    gates = ", which a hypothesis must beat" if job.test.above_baselines else ""
    lines = [f"  {b.variable:<24} {b.line}" for b in baselines if b.share]
    return ["", f"what no network scores{gates}", *lines] if lines else []


def _mixed(facts: PlanReport) -> float:
    """Seconds where one site in ten is true and the others are not."""
    at = dict(zip(GRID, facts.seconds or (0.0,) * len(GRID), strict=True))
    return 0.9 * at[0.1] + 0.1 * at[0.95]


def _training_words(facts: PlanReport, job: Job) -> list[str]:
    if not facts.fits:
        return []
    rungs = (
        f", the hopeless dropped at {', '.join(map(str, job.fit.rungs))}" if job.fit.rungs else ""
    )
    warm = ", smaller das within larger" if job.fit.warm_start else ""
    trained = (
        f"{facts.trained} fits (seeds counted) of at most {job.fit.steps} steps with "
        f"{job.fit.batch} pairs each{rungs}{warm}"
    )
    computed = f"{facts.fits - facts.trained} subspaces computed from activations"
    words = [trained] * bool(facts.trained) + [computed] * (facts.fits > facts.trained)
    return [
        f"  training    {'; '.join(words)}; "
        f"{facts.pairs['fit']} fit pairs at hand, {job.pairs.fit} wanted"
    ]


def _weight_words(facts: PlanReport) -> list[str]:
    """Says how the chance of a false accept is shared."""
    if facts.k is None:
        return []
    if not facts.weighed_on or facts.job.test.weights == "even":
        return [f"  weights     even: each of {facts.k} spends 1/{facts.k} of the false accept"]
    return [
        f"  weights     by effects on {facts.weighed_on} fit pairs, fixed before the first test "
        f"pair: what has a large one is accepted after fewer pairs than below, and nothing spends "
        f"less than 1/{math.e * facts.k:.0f} of the false accept"
    ]


def _sets_words(sets: int) -> list[str]:
    return [f"{sets} explicit set{'s' * (sets > 1)} of units"] if sets else []


def _beyond_words(facts: PlanReport) -> str:
    """Says how many more pairs were read than a search can come to ask for."""
    first = facts.variables[0]
    more = sum(c.pairs for c in facts.dropped if c.variable == first and c.reason == "beyond")
    return f" ({more} more were passed over)" if more else ""


def _judged_words(job: Job) -> str:
    return (
        ""
        if job.test.score == "matches"
        else f"of the mean {job.test.score.replace('_', ' ')}, by betting; "
    )


def _error_words(job: Job) -> str:
    return "false accept" if job.test.control == "fwer" else "false discovery rate"


def _powers_words(job: Job) -> str:
    alone = "accepted alone (e-BH accepts more, beside others): " * (job.test.control == "fdr")
    if job.test.score == "matches":
        return f"{alone}if every pair is solved and changes the answer:"
    return (
        f"{alone}if every pair is solved and changes the answer, and every score is 0 or 1 (which "
        "needs the most pairs; scores between are told sooner):"
    )


def memory_words(memory: MemoryEstimate, job: Job) -> list[str]:
    """Returns lines on the memory of a replica, a block and the search."""
    kept = (
        "resources.memory"
        if job.resources.memory != "auto"
        else "half of what is free, on a CPU 2 GiB, at most"
    )
    copies = (
        f" (of these {size(memory.copies)} float32 copies, where there is room)"
        if memory.copies
        else ""
    )
    training = "; training comes on top" if job.space.is_fitted else ""
    return [
        "memory, estimated by formula (raysearch/runner/plans/memory_estimate.py)",
        f"  replica     {size(memory.replica)}: weights {size(memory.weights)}{copies}, "
        f"{size(memory.kept)} of runs kept ({kept}), "
        f"a batch of {job.resources.rows} rows {size(memory.batch)}, libraries{training}",
        f"  block       {size(memory.block)}: {memory.inputs_of_block} inputs of its largest "
        f"block, at most {size(memory.run)} each; {size(memory.inputs)} would hold all inputs",
        f"  search      {size(memory.driver)} of the driver",
    ]


def _waves_words(facts: PlanReport) -> str:
    """Says how large waves are."""
    found = facts.calibration.wave_tokens if facts.calibration else 0
    here = f"; here {found}" if found else ""
    many = (
        f"as few tokens as run at nearly the best rate (each replica measures it{here})"
        if facts.tokens == "auto"
        else f"{facts.tokens} tokens together"
    )
    return f"  waves       of at most {facts.job.resources.rows} rows, {many}"


def _calibration_words(found: TimeEstimate | None, job: Job, mixed: float) -> list[str]:
    """Returns lines on what a trial measured, or on how to run one. `mixed`: seconds where one site
    in ten is true."""
    if found is None:
        return ["", "how long it takes: --calibrate measures a few tasks on this machine"]
    replicas = job.resources.replicas
    many = (
        "one replica (as many as there is room for are started)"
        if replicas == "auto"
        else f"replicas: {replicas}"
    )
    trained = (
        f", a step of one seed {duration(found.a_step)} ({found.steps} timed)"
        if found.steps
        else ""
    )
    gpu = f" and {size(found.gpu)} of its GPU" if found.gpu else ""
    return [
        "",
        f"measured here, on one replica ({found.device}, {found.path}), while nothing else was "
        f"asked of it",
        f"  load        {duration(found.load)}, with the check of its paths",
        f"  took        an input {duration(found.an_input)} ({found.inputs} timed), a row (a pair "
        f"under an intervention) {duration(found.a_row)} ({found.rows} timed){trained}",
        f"  memory      {size(found.process)} of the process{gpu} in the end",
        f"The last column reckons from that for {many}: screening, training (no seed dropped), "
        f"rows until the verdict, the holdout of "
        "what is accepted; not Ray's start, nor pictures and the tracker at the end.",
        f"where one site in ten is true (IIA 0.95) and the others are not (0.1): about "
        f"{duration(mixed)}",
    ]
