"""Checks of a job that need no model: of its keys against each other, and of its pairs."""

from collections.abc import Sequence
from pathlib import Path

from raysearch.causal import Pair, Problem
from raysearch.core.control_kinds import control_kind
from raysearch.core.featurizers import is_trained, kind_of, names
from raysearch.core.hypothesis import Subspace
from raysearch.errors import JobError, PairsError
from raysearch.job import Job
from raysearch.proposers.base import Proposer
from raysearch.proposers.registry import READY
from raysearch.runner.resolution.resolved_job import shared_sources
from raysearch.suggest import check_known


def check_keys(job: Job) -> None:
    """Raises: JobError for keys of a job that do not go together."""
    _check_answer(job)
    if job.test.keep_threshold is not None and job.pairs.kinds not in ("both", "auto"):
        raise JobError(
            "test.keep_threshold: is of the pairs that a variable leaves alone, which do not "
            f"decide under pairs.kinds: {job.pairs.kinds}; use both"
        )
    _check_score(job)
    _check_weights(job)
    _check_generalise(job)
    _check_fresh(job)
    _check_counts(job)
    _check_controls(job)
    _check_ablations(job)


def _check_weights(job: Job) -> None:
    """Raises: JobError where there is nothing that weights could be made from."""
    if job.test.weights != "attribution":
        return
    if not job.pairs.fit:
        raise JobError(
            "test.weights: attribution computes effects on fit pairs, and pairs.fit is 0; set "
            "pairs.fit, such as 32, or weights: even"
        )
    if job.propose.use not in READY:
        raise JobError(
            f"test.weights: attribution needs hypotheses that are known before the first test "
            f"pair, and {job.propose.use} may propose any; use weights: even, or one of "
            f"{', '.join(READY)}"
        )


def _check_answer(job: Job) -> None:
    """Raises: JobError where what is compared is not what such a model puts out."""
    compare, model = job.answer.compare, job.model.path
    if compare == "class" and not job.model.is_factory:
        raise JobError(
            "answer.compare: class is for a network that puts out class logits (model.path: "
            f"my_file.py:factory); {model} is a language model: use first_token"
        )
    if compare != "class" and job.model.is_factory:
        raise JobError(
            f"answer.compare: {compare} is for a language model, and {Path(model).name} makes a "
            f"network on tensors; use class"
        )


def check_choices(job: Job, pairs: Sequence[Pair], of: str) -> None:
    """Raises: JobError where answers are to be chosen and nothing says among which."""
    if job.answer.compare == "choices" and not any(p.choices for p in pairs):
        raise JobError(
            f"answer.compare: choices, and {of} lists none; give each pair its choices (a file: "
            "the field `choices`; a problem: Problem.choices), or use first_token"
        )


def check_values(job: Job, variables: Sequence[str], pairs: Sequence[Pair], of: str) -> None:
    """Raises: JobError where a subspace is computed from the values of a variable and the fit pairs
    do not determine two of them.

    Where values are not known, the source's answer stands for its value: it does if the
    counterfactual is that answer.
    """
    named = [s.featurizer for s in job.space.all_subspaces if kind_of(s.featurizer).labelled]
    fit = [p for p in pairs if p.split == "fit"]
    for variable in variables if named else ():
        mixed = next((p for p in fit if not _determines(p, variable)), None)
        if mixed is not None:
            raise JobError(
                f"space.subspaces: {named[0]} needs the value of {variable!r} in each input, and "
                f"{of} does not say it: in pair {mixed.index} the counterfactual is not the "
                "source's answer, so that it depends on the base too; give a problem with a causal "
                "model, leave the variable out, or use das"
            )
        values = {
            value
            for p in fit
            for value in p.values.get(variable, {"": p.counterfactual[variable]}).values()
        }
        if len(values) < 2:
            raise JobError(
                f"space.subspaces: {named[0]} needs two values of {variable!r}, and the "
                f"{len(fit)} fit pairs of {of} have one; give more (pairs.fit), or use das"
            )


def _determines(pair: Pair, variable: str) -> bool:
    answers = [pair.answers.get(name) for name in pair.sources]
    return variable in pair.values or pair.counterfactual[variable] in answers


def _check_score(job: Job) -> None:
    """Raises: JobError where a score has no meaning: of several tokens; where a test on the logit
    difference has nothing to compare, or nothing to take its scale from."""
    if job.answer.compare == "sequence" and (job.answer.scores or job.test.score != "matches"):
        raise JobError(
            "answer.compare: sequence is all right or wrong, and scores are of answers of one "
            "token; leave answer.scores and test.score out, or use first_token"
        )
    if job.test.score != "logit_difference":
        return
    if job.pairs.kinds not in ("change", "auto"):
        raise JobError(
            "test.score: logit_difference compares the counterfactual with the base's answer, "
            "which are one on pairs that a variable leaves alone, and those decide under "
            f"pairs.kinds: {job.pairs.kinds}; use change, or test the probability"
        )
    if not job.pairs.fit:
        raise JobError(
            "pairs.fit: 0 leaves no pairs to take the scale of test.score: logit_difference from; "
            "give it some"
        )


def _check_fresh(job: Job) -> None:
    """Raises: JobError where a verdict would not be about what its population says."""
    if job.pairs.fresh and job.pairs.disjoint:
        raise JobError(
            "pairs.fresh leaves pairs out, and pairs.disjoint makes verdicts be about all pairs of "
            "the values that are held out; leave one of them out"
        )


def _check_generalise(job: Job) -> None:
    """Raises: JobError where a claim about new values has no values to be about, or would test
    later generations on values that chose them."""
    if job.test.generalise == "pairs":
        return
    wrong = {
        f"problem.pairs: {job.problem.pairs} does not say values": job.problem.use is None,
        f"pairs.disjoint names {len(job.pairs.disjoint)} variables": len(job.pairs.disjoint) != 1,
        "test.claim: these_pairs is about the pairs at hand": job.test.claim == "these_pairs",
        f"propose.use: {job.propose.use} may propose by verdicts, which were of the same values": (
            job.propose.use not in READY
        ),
    }
    for what, is_so in wrong.items():
        if is_so:
            raise JobError(
                "test.generalise: values tests on pairs that share no value of the one variable "
                f"in pairs.disjoint, and {what}; give a problem, one variable, claim: sampler and "
                "a proposer of raysearch's own, or leave generalise out"
            )


def _check_counts(job: Job) -> None:
    """Raises: JobError where a split is asked for more pairs than it is given."""
    if job.space.is_fitted and not job.pairs.fit:
        raise JobError(
            "pairs.fit: 0 leaves no pairs to fit subspaces to, and space.subspaces names some; "
            "give it some"
        )
    if job.test.pairs is not None and job.test.pairs > job.pairs.test:
        raise JobError(
            f"test.pairs: {job.test.pairs} pairs of every hypothesis, and pairs.test gives "
            f"{job.pairs.test}; raise it, or ask for fewer"
        )


def _check_controls(job: Job) -> None:
    """Raises: JobError for a control that nothing in this job could have; what a proposer of the
    user's own makes is not known here."""
    subspaces = job.space.all_subspaces
    if job.propose.use not in READY:
        return
    none_is_trained = not any(is_trained(s.featurizer) for s in subspaces)
    all_are_whole = all(s == Subspace() for s in subspaces)
    for name in job.controls:
        kind = control_kind(name)
        if kind.arbitrary_labels and none_is_trained:
            raise JobError(
                f"controls: {name} is of subspaces that are trained "
                f"({', '.join(names('trained'))}), and the job has none; leave it out"
            )
        if kind.random_subspace and all_are_whole:
            raise JobError(
                f"controls: {name} is as large as the subspace it stands beside, and the job "
                "has whole vectors alone; leave it out"
            )


def _check_ablations(job: Job) -> None:
    """Raises: JobError for what has no meaning where nothing comes from a source."""
    if not job.space.ablations:
        return
    where, proposer = job.space.ablations[0], READY.get(job.propose.use, Proposer)
    wrong = {
        f"test.score: {job.test.score} is of a counterfactual": job.test.score != "matches",
        "test.keep_threshold is of pairs that keep their answer": job.test.keep_threshold
        is not None,
        f"propose.use: {job.propose.use} estimates interchanges": proposer.estimates_interchanges,
    }
    for what, is_so in wrong.items():
        if is_so:
            raise JobError(
                f"{where}: an ablation is accepted where the output is no longer the base's "
                f"answer, and {what}; leave that out, or search the ablations in a job of their own"
            )


def check_sources(job: Job, pairs: Sequence[Pair], of: str) -> None:
    for path, unit in job.space.named_units:
        if unit.source is not None:
            check_known(f"{path}.source", "source", unit.source, shared_sources(pairs), of)


def check_all_shared(path: Path, pairs: Sequence[Pair]) -> None:
    """Raises: PairsError where the job asks for all positions and the pairs do not agree which
    these are."""
    first = pairs[0].base
    for pair in pairs:
        for one in (pair.base, *pair.sources.values()):
            if set(one.positions) != set(first.positions):
                names, others = (", ".join(sorted(i.positions)) or "none" for i in (one, first))
                raise PairsError(
                    f"{path}: {one.description} has the positions {names}, {first.description} has "
                    f"{others}; give all the same, or name those to search in space.positions"
                )


def check_rendered(problem: Problem, pairs: Sequence[Pair], positions: Sequence[str]) -> None:
    for pair in pairs:
        for one in (pair.base, *pair.sources.values()):
            for position in positions:
                if position not in one.positions:
                    raise JobError(
                        f"problem {problem.name!r}: {one.description} has no position "
                        f"{position!r}, though the problem declares it"
                    )
