"""From a job to a question that can be searched: variables, positions, pairs, claim; and the checks
that need no model.

Invariants: what is left open in the job (all variables, all positions, which claim) is filled in
here, once, so that the job that is written down, hashed and resumed names them.
"""

import glob
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from raysearch.causal import LAST, LeftOutCount, Pair, Problem, Split, differing_shares, draw_sample
from raysearch.core.answers import answer_matcher
from raysearch.core.events import Encoded, ModelFacts
from raysearch.core.featurizers import is_trained, names
from raysearch.core.hypothesis import Subspace
from raysearch.core.space import HypothesisSpace
from raysearch.engine.featurizers.sae_file import SaeFile
from raysearch.engine.loading.digest import digest_of
from raysearch.errors import JobError, PairsError
from raysearch.job import Job
from raysearch.job.job_files import named_files
from raysearch.job.named_files import LAYER, MODEL, PAIRS, PROBLEM, PROPOSER
from raysearch.problems import load_problem
from raysearch.problems.remote_pairs import sample_at
from raysearch.proposers.base import Proposer, attribution_plan
from raysearch.proposers.registry import READY, added
from raysearch.runner.given_objects import NOTHING, GivenObjects
from raysearch.runner.load_proposer import fit_pairs_of, proposer_of
from raysearch.runner.resolve_positions import check_positions, owned, with_positions, with_tokens
from raysearch.runner.resolve_space import space_of
from raysearch.search.criteria import DecisionRule
from raysearch.search.pair_blocks import ExpectedAnswers, check_variables, expected_answers
from raysearch.search.screening import ScreeningPlan
from raysearch.search.search import Search
from raysearch.stats.betting_test import BettingTest
from raysearch.stats.e_process import AnytimeTest
from raysearch.stats.match_test import MatchTest
from raysearch.storage.digests import sha256
from raysearch.suggest import check_known
from raysearch.user_code import source_digest

SPARE = 4
"""A generator draws at most so many times the pairs that are asked, to make up for those that the
model does not solve."""


@dataclass(frozen=True)
class ResolvedJob:
    """A job as resolved (variables, positions and claim named) its pairs, in the order of the run,
    and what was left out of them."""

    job: Job
    pairs: tuple[Pair, ...]
    left_out: tuple[LeftOutCount, ...] = field(default=(), compare=False)

    @property
    def variables(self) -> tuple[str, ...]:
        assert self.job.space.variables is not None
        return self.job.space.variables

    @property
    def positions(self) -> tuple[str, ...]:
        """The positions of the grid, then those that only units name."""
        assert self.job.space.position_names is not None
        named = (site.position for _, site in self.job.space.unit_sites)
        return tuple(dict.fromkeys((*self.job.space.position_names, *named)))

    @property
    def components(self) -> tuple[str, ...]:
        """The components of the grid, then those that only units name: all that a replica must
        know."""
        named = (site.component for _, site in self.job.space.unit_sites)
        return tuple(dict.fromkeys((*self.job.space.components, *named)))

    @property
    def these_pairs(self) -> bool:
        return self.job.test.claim == "these_pairs"

    def space(self, facts: ModelFacts) -> HypothesisSpace:
        """The hypothesis space on a model. Raises: JobError for a layer, head or coordinate that it
        lacks."""
        return space_of(self.job, facts, _shared_sources(self.pairs), self.pairs[0].base.tokens)

    def proposer(self, space: HypothesisSpace, facts: ModelFacts) -> Proposer:
        """Returns the proposer of the job. Raises: JobError."""
        return proposer_of(self.job, space, facts, self.positions)

    def test(self, proposer: Proposer, space: HypothesisSpace) -> AnytimeTest:
        """The test, at the proposer's K (an open-ended one has none: at that of `space`, and what
        is spent is the search's to say)."""
        keys = self.job.test
        kind = MatchTest if keys.score == "matches" else BettingTest
        return kind(
            keys.threshold,
            keys.false_accept,
            keys.miss,
            proposer.most or len(space),
            keys.indifference,
        )

    def search(
        self, facts: ModelFacts, encoded: Sequence[Encoded], proposer: Proposer | None = None
    ) -> Search:
        """The search. `proposer`: the job's, or what stands for it; made anew where none is given.

        Raises: JobError for what the model lacks, PairsError where variables cannot be told apart.
        """
        space = self.space(facts)
        proposer = proposer or self.proposer(space, facts)
        expecteds = self.expected_answers(encoded)
        check_variables(*self.test_pairs(expecteds))
        job = self.job
        at_end = job.test.use == "fixed"
        plan = ScreeningPlan(
            _counts(job, proposer.fit_pairs),
            job.test.most_pairs,
            job.pairs.solved_only,
            not at_end,
            self.left_out,
        )
        return Search(
            proposer,
            self.test(proposer, space),
            expecteds,
            plan,
            self.these_pairs,
            job.resources.rows,
            job.fit if job.space.is_fitted else None,
            job.controls,
            DecisionRule(job.pairs.kinds, job.test.keep_threshold, at_end, job.test.score),
            attribution_plan(proposer, space),
        )

    def expected_answers(self, encoded: Sequence[Encoded]) -> dict[int, ExpectedAnswers]:
        """Returns the answers that outputs are compared with, by pair."""
        pairs = {p.index: p for p in self.pairs}
        readings = answer_matcher(encoded)
        meant = self.job.prompt_format.meant
        found: dict[int, ExpectedAnswers] = {}
        for e in encoded:
            pair = pairs[e.index]
            said = {v: meant(pair.counterfactual[v]) for v in e.counterfactual} | {
                "": meant(pair.answers["base"])
            }
            found[e.index] = expected_answers(e, pair.split, pair.set, readings, said)
        return found

    def test_pairs(self, pairs: Mapping[int, ExpectedAnswers]) -> tuple[list[ExpectedAnswers], str]:
        """The test pairs among `pairs`, and how they are called in an error."""
        test = [p for p in pairs.values() if p.split == "test"]
        wanted = self.job.pairs.test
        at_hand = f" at hand ({wanted} wanted)" if len(test) > wanted else ""
        return test, f"{len(test)} test pairs{at_hand}"

    def hash(self, pairs_digest: str, model_digest: str = "") -> str:
        """The job hash. `model_digest`: of the model as it was opened, for one that no file has.
        Raises: ModelError where the model's files cannot be read."""
        digests = _file_digests(self.job)
        if self.job.model.is_given:
            digests[MODEL] = model_digest
        return self.job.hash(digests, pairs_digest)


def resolve(job: Job, given: GivenObjects = NOTHING) -> ResolvedJob:
    """The question of a job: pairs drawn or read. `given`: objects in the place of what it names.

    Raises: JobError, PairsError in one line.
    """
    job.refuse_placeholders("job", given.problem is not None, given.model is not None)
    _check_answer(job)
    if job.test.keep_threshold is not None and job.pairs.kinds != "both":
        raise JobError(
            f"test.keep_threshold: is of the pairs that a variable leaves alone, which do not "
            f"decide under pairs.kinds: {job.pairs.kinds}; "
            "use both"
        )
    _check_score(job)
    _check_counts(job)
    _check_controls(job)
    _check_ablations(job)
    used = fit_pairs_of(job)
    if job.problem.use is None:
        return _from_file(job, used)
    problem = given.problem or load_problem(job.problem.use, job.problem.options)
    return _from_problem(job, problem, used)


def differing(
    pairs: Mapping[int, ExpectedAnswers], variables: Sequence[str]
) -> dict[tuple[str, str], float]:
    """For every two variables the share of test pairs on which they expect different answers, by
    the compared tokens."""
    return differing_shares(
        [p.counterfactual for p in pairs.values() if p.split == "test"], variables
    )


def _from_problem(job: Job, problem: Problem, used: int) -> ResolvedJob:
    variables = job.space.variables or problem.model.names
    for name in variables:
        check_known("space.variables", "variable", name, problem.model.names, problem.name)
    check_positions(job, problem.positions, problem.name)
    for name in job.pairs.disjoint:
        check_known("pairs.disjoint", "variable", name, problem.model.names, problem.name)
    counts = _counts(job, used, SPARE if job.pairs.solved_only else 1)
    drawn = draw_sample(problem, variables, counts, job.pairs.seed, job.pairs.disjoint)
    pairs = drawn.pairs
    known = (*problem.positions, LAST)
    resolved = _resolved(job, variables, known, "sampler")
    question = ResolvedJob(resolved, with_tokens(pairs, job.space.declared), drawn.left_out)
    _check_rendered(problem, pairs, owned(question.positions, problem.positions))
    _check_sources(job, pairs, problem.name)
    _check_choices(job, pairs, f"problem {problem.name}")
    return question


def _from_file(job: Job, used: int) -> ResolvedJob:
    path = Path(job.problem.pairs or "")
    if job.pairs.disjoint:
        raise JobError(
            f"pairs.disjoint: {path.name} does not say the values of "
            f"{', '.join(job.pairs.disjoint)}; leave it out, and give its lines "
            "a split"
        )
    drawn = with_positions(
        job, sample_at(str(job.problem.pairs), _counts(job, used), job.pairs.seed), path.name
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
        _check_all_shared(path, pairs)
    shared = _shared_positions(pairs)
    check_positions(job, shared, path.name)
    _check_sources(job, pairs, path.name)
    _check_choices(job, pairs, path.name)
    known = (*shared, LAST)
    resolved = _resolved(job, variables, known, "these_pairs")
    return ResolvedJob(resolved, with_tokens(pairs, job.space.declared), drawn.left_out)


def _check_answer(job: Job) -> None:
    """Raises: JobError where what is compared is not what such a model puts out."""
    compare, model = job.answer.compare, job.model.path
    if compare == "class" and not job.model.is_factory:
        raise JobError(
            f"answer.compare: class is for a network that puts out class logits (model.path: "
            f"my_file.py:factory); {model} is a "
            "language model: use first_token"
        )
    if compare != "class" and job.model.is_factory:
        raise JobError(
            f"answer.compare: {compare} is for a language model, and {Path(model).name} makes a "
            f"network on tensors; use class"
        )


def _check_choices(job: Job, pairs: Sequence[Pair], of: str) -> None:
    """Raises: JobError where answers are to be chosen and nothing says among which."""
    if job.answer.compare == "choices" and not any(p.choices for p in pairs):
        raise JobError(
            f"answer.compare: choices, and {of} lists none; give each pair its choices (a file: "
            f"the field `choices`; a problem: "
            "Problem.choices), or use first_token"
        )


def _check_score(job: Job) -> None:
    """Raises: JobError where a score has no meaning: of several tokens; where a test on the logit
    difference has nothing to compare, or nothing to take its scale from."""
    if job.answer.compare == "sequence" and (job.answer.scores or job.test.score != "matches"):
        raise JobError(
            "answer.compare: sequence is all right or wrong, and scores are of answers of one "
            "token; leave answer.scores and test.score "
            "out, or use first_token"
        )
    if job.test.score != "logit_difference":
        return
    if job.pairs.kinds != "change":
        raise JobError(
            "test.score: logit_difference compares the counterfactual with the base's answer, "
            "which are one on pairs that a variable "
            f"leaves alone, and those decide under pairs.kinds: {job.pairs.kinds}; use change, or "
            f"test the probability"
        )
    if not job.pairs.fit:
        raise JobError(
            "pairs.fit: 0 leaves no pairs to take the scale of test.score: logit_difference from; "
            "give it some"
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
    keys = job.space
    subspaces = [
        *(keys.meant_subspaces if keys.components else ()),
        *(unit.subspace for _, unit in keys.named_units),
    ]
    if job.propose.use not in READY:
        return
    if "arbitrary_labels" in job.controls and not any(is_trained(s.featurizer) for s in subspaces):
        raise JobError(
            f"controls: arbitrary_labels is of subspaces that are trained ({', '.join(names('trained'))}), "
            f"and the job has none; leave it out"
        )
    if "random_subspace" in job.controls and all(s == Subspace() for s in subspaces):
        raise JobError(
            "controls: random_subspace is as large as the subspace it stands beside, and the job "
            "has whole vectors alone; leave it out"
        )


def _check_ablations(job: Job) -> None:
    """Raises: JobError for what has no meaning where nothing comes from a source."""
    if not job.space.ablations:
        return
    where = job.space.ablations[0]
    wrong = {
        f"test.score: {job.test.score} is of a counterfactual": job.test.score != "matches",
        "test.keep_threshold is of pairs that keep their answer": job.test.keep_threshold
        is not None,
        "propose.use: attribution estimates interchanges": job.propose.use == "attribution",
    }
    for what, is_so in wrong.items():
        if is_so:
            raise JobError(
                f"{where}: an ablation is accepted where the output is no longer the base's "
                f"answer, and {what}; leave that out, or search the ablations in a job of their own"
            )


def _check_sources(job: Job, pairs: Sequence[Pair], of: str) -> None:
    for path, unit in job.space.named_units:
        if unit.source is not None:
            check_known(f"{path}.source", "source", unit.source, _shared_sources(pairs), of)


def _shared_sources(pairs: Sequence[Pair]) -> tuple[str, ...]:
    """The names of the sources that every pair has, in the order of the first."""
    return (
        tuple(name for name in pairs[0].sources if all(name in p.sources for p in pairs))
        if pairs
        else ()
    )


def _shared_positions(pairs: Sequence[Pair]) -> tuple[str, ...]:
    """The positions that every base and source has, in the order of the first."""
    inputs = [i for p in pairs for i in (p.base, *p.sources.values())]
    return tuple(name for name in inputs[0].positions if all(name in i.positions for i in inputs))


def _check_all_shared(path: Path, pairs: Sequence[Pair]) -> None:
    """Raises: PairsError where the job asks for all positions and the pairs do not agree which
    these are."""
    first = pairs[0].base
    for pair in pairs:
        for one in (pair.base, *pair.sources.values()):
            if set(one.positions) != set(first.positions):
                names, others = (", ".join(sorted(i.positions)) or "none" for i in (one, first))
                raise PairsError(
                    f"{path}: {one.description} has the positions {names}, {first.description} has {others}; "
                    f"give all the same, "
                    "or name those to search in space.positions"
                )


def _check_rendered(problem: Problem, pairs: Sequence[Pair], positions: Sequence[str]) -> None:
    for pair in pairs:
        for one in (pair.base, *pair.sources.values()):
            for position in positions:
                if position not in one.positions:
                    raise JobError(
                        f"problem {problem.name!r}: {one.description} has no position {position!r}, "
                        f"though the problem declares it"
                    )


def _counts(job: Job, used: int, spare: int = 1) -> dict[Split, int]:
    """Returns how many pairs of each split; of fit pairs only the `used` ones of the proposer,
    where nothing is fit and no scale is taken."""
    if job.space.is_fitted or job.test.score == "logit_difference":
        used = job.pairs.fit
    used = min(used, job.pairs.fit)
    fit: dict[Split, int] = {"fit": spare * used} if used else {}
    return {**fit, "test": spare * job.pairs.test, "holdout": spare * job.pairs.holdout}


def _resolved(
    job: Job, variables: Sequence[str], positions: tuple[str, ...], default_claim: str
) -> Job:
    """`positions`: all that are known, for a grid where the job leaves them open."""
    meant = positions if job.space.positions is None else job.space.positions
    found = meant if job.space.components else ()
    space = job.space.model_copy(update={"variables": tuple(variables), "positions": found})
    claim = default_claim if job.test.claim == "auto" else job.test.claim
    judged = () if job.test.score == "matches" else (job.test.score,)
    answer = job.answer.model_copy(
        update={"scores": tuple(dict.fromkeys((*job.answer.scores, *judged)))}
    )
    return job.model_copy(
        update={
            "space": space,
            "answer": answer,
            "test": job.test.model_copy(update={"claim": claim}),
        }
    )


def _file_digests(job: Job) -> dict[str, str]:
    """Digests of the files that the job names, as `Job.hash` takes them: contents count, paths do
    not. Pairs count as pairs."""
    digests = {}
    functions = {MODEL: job.model.path, PROBLEM: job.problem.use or "", PROPOSER: job.propose.use}
    for file in named_files(job):
        if file.is_code:
            content = sha256(Path(file.path).read_bytes())
            digests[file.key] = f"{content}:{functions[file.key].rpartition(':')[2]}"
        elif file.key == MODEL:
            if Path(file.path).exists():
                digests[MODEL] = digest_of(file.path, job.model.trust_remote_code)
        elif file.key != PAIRS:
            digests[f"sae {file.path}"] = _layers_digest(file.path)
    if (point := added().get(job.propose.use)) is not None:
        digests[PROPOSER] = f"{source_digest(point.module)}:{job.propose.use}"
    return digests


def _layers_digest(path: str) -> str:
    """Returns the digest of a sparse autoencoder over all its layers."""
    whole = hashlib.sha256()
    for found in sorted(glob.glob(glob.escape(path).replace(LAYER, "*"))):
        whole.update(bytes.fromhex(SaeFile.at(Path(found)).digest))
    return whole.hexdigest()
