"""Keep pairs decide too where an answer is one of two, unless the job says otherwise."""

from collections.abc import Sequence
from typing import Any

import pytest

from raysearch import Input, Pair
from raysearch.errors import JobError
from raysearch.job import Job
from raysearch.runner.plans.plan import plan
from raysearch.runner.resolution.resolve import resolve
from raysearch.runner.resolution.resolve_pair_kinds import answers_are_two, kinds_of
from tests.runner.finished import ROOT

PLAIN: dict[str, Any] = {
    "name": "x",
    "model": {"path": "owner/SmolLM2"},
    "problem": {"use": "raysearch.problems.add_three"},
}


def job(**rooms: Any) -> Job:
    return Job.parse({**PLAIN, **rooms})


def pair(base: str, counterfactual: str, other: str, choices: Sequence[str] = ()) -> Pair:
    answers = {"base": base, "source": other}
    one = Input("a"), {"source": Input("b")}, answers, {"v": counterfactual}
    return Pair(0, *one, "test", choices=tuple(choices))


YES_NO = [pair("yes", "no", "no"), pair("yes", "yes", "no"), pair("no", "no", "yes")]
NAMES = [pair("Ann", "Bob", "Cid"), pair("Ann", "Ann", "Bob")]
BY_CHOICE = [pair("Ann", "Bob", "Bob", ("Ann", "Bob")), pair("Cid", "Cid", "Dan", ("Cid", "Dan"))]


def test_of_two_answers_what_should_stay_decides_too() -> None:
    assert kinds_of(job(), ("v",), YES_NO) == "both"
    assert kinds_of(job(), ("v",), NAMES) == "change"


def test_two_choices_of_each_pair_are_two_answers() -> None:
    chosen = job(answer={"compare": "choices"})
    assert answers_are_two(chosen, BY_CHOICE)
    assert not answers_are_two(job(), BY_CHOICE)
    assert not answers_are_two(chosen, [pair("A", "B", "C", ("A", "B", "C"))])


def test_the_job_may_say_otherwise() -> None:
    assert kinds_of(job(pairs={"kinds": "change"}), ("v",), YES_NO) == "change"
    assert kinds_of(job(pairs={"kinds": "unfiltered"}), ("v",), YES_NO) == "unfiltered"
    assert kinds_of(job(test={"keep_threshold": 0.7}), ("v",), NAMES) == "both"


def test_keep_pairs_that_are_too_few_do_not_decide() -> None:
    """They would leave all that is true undecided."""
    few = [pair("yes", "no", "no")] * 7 + [pair("yes", "yes", "no")] * 2
    assert kinds_of(job(), ("v",), few) == "change"
    assert kinds_of(job(), ("v",), [*few, pair("no", "no", "yes")]) == "both"


def test_where_keep_pairs_mean_nothing_they_do_not_decide() -> None:
    assert kinds_of(job(test={"score": "logit_difference"}), ("v",), YES_NO) == "change"
    assert kinds_of(job(test={"score": "probability"}), ("v",), YES_NO) == "both"
    with pytest.raises(JobError, match=r"keep_threshold.* under pairs.kinds: change; use both"):
        resolve(job(test={"keep_threshold": 0.7}, pairs={"kinds": "change"}))


@pytest.mark.parametrize(("name", "kinds"), [("price_tagging", "both"), ("quickstart", "change")])
def test_a_plan_says_which_pairs_decide(name: str, kinds: str) -> None:
    found = Job.load(ROOT / "jobs" / f"{name}.yaml")
    few = found.pairs.model_copy(update={"test": 64, "fit": 64, "holdout": 8})
    facts = plan(found.model_copy(update={"pairs": few}))
    assert facts.job.pairs.kinds == kinds
    words = "keep pairs (whose answer should stay; an ablation should change it) beside them: both must do (where"
    assert (words in repr(facts)) == (kinds == "both")
    assert "  decided by  change pairs" in repr(facts)
