"""The proposer that a job names: options, the user's own code, and each mistake in one line."""

from pathlib import Path
from typing import Any

import pytest

from raysearch.core.hypothesis import Hypothesis, Intervention, Site, Subspace, Unit
from raysearch.core.records import Decided
from raysearch.errors import JobError, SearchFailedError
from raysearch.job import Job
from raysearch.proposers.attribution import Attribution
from raysearch.proposers.base import History, Proposer, attribution_plan
from raysearch.proposers.refine import Refine
from raysearch.proposers.smallest_subspace import SmallestSubspace
from raysearch.runner.resolution.resolve import resolve
from raysearch.runner.resolution.resolved_job import ResolvedJob
from tests.runner.test_resolved_job import FACTS

HEAD = """
from raysearch.core.hypothesis import Hypothesis, Intervention, Site, Subspace, Unit
"""
MINE = (
    HEAD
    + """
class Proposer:
    max_hypotheses = None
    def __init__(self, space, layer=3):
        self.space, self.layer = space, layer
    def propose(self, known):
        if known.generations:
            return []
        unit = Unit(Site(self.layer, "head", "b", 2), Subspace(coordinates=(0, 1)))
        return [Hypothesis("a", Intervention((unit,)))]
"""
)


def proposer(
    folder: Path, code: str = MINE, space: dict[str, Any] | None = None, **options: Any
) -> Proposer:
    (folder / "mine.py").write_text(code)
    return _of({"use": "mine.py:Proposer", "options": options}, space, folder)


def _of(
    propose: dict[str, Any], space: dict[str, Any] | None = None, folder: Path | None = None
) -> Proposer:
    question = _asked(propose, space, folder)
    return question.proposer(question.space(FACTS), FACTS)


def _asked(
    propose: dict[str, Any],
    space: dict[str, Any] | None = None,
    folder: Path | None = None,
    fit: int = 6,
) -> ResolvedJob:
    raw = {
        "name": "x",
        "model": {"path": "owner/SmolLM2"},
        "problem": {"use": "raysearch.problems.add_three", "options": {"highest": 9}},
        "pairs": {"test": 4, "holdout": 2, "fit": fit},
        "space": {
            "variables": ["a", "b"],
            "components": ["head"],
            "positions": ["b"],
            **(space or {}),
        },
        "propose": propose,
    }
    return resolve(Job.parse(raw, folder=folder))


def first(proposer: Proposer) -> list[Hypothesis]:
    return list(proposer.propose(History(0, {})))


def test_those_that_are_ready_are_made_with_their_options_and_have_the_space_as_their_k() -> None:
    refine = _of({"use": "refine", "options": {"step": 10}})
    assert (type(refine), refine.max_hypotheses, len(first(refine))) == (
        Refine,
        30 * 9 * 2,
        4 * 9 * 2,
    )
    assert isinstance(_of({"use": "smallest_subspace"}), SmallestSubspace)
    for options, says in [
        (
            {"stp": 2},
            r"propose.options: refine: got an unexpected keyword argument 'stp'; it takes step, "
            r"promise",
        ),
        (
            {"step": 0},
            r"propose.options: refine: step is 0; it must be a whole number of layers from 1",
        ),
    ]:
        with pytest.raises(JobError, match=says):
            _of({"use": "refine", "options": options})


def test_attribution_has_what_it_proposes_as_its_k_and_its_own_fit_pairs() -> None:
    asked = _asked({"use": "attribution", "options": {"share": 0.1, "pairs": 5}})
    space = asked.space(FACTS)
    made = asked.proposer(space, FACTS)
    assert isinstance(made, Attribution)
    plan = attribution_plan(made, space)
    assert plan is not None
    assert (made.max_hypotheses, plan.pairs, len(plan.units)) == (2 * 27, 5, 30 * 9)
    assert asked.test(made, space).hypotheses == 54
    assert sum(p.split == "fit" for p in asked.pairs) == 4 * 5
    of_refine = [p for p in _asked({"use": "refine"}).pairs if p.split == "fit"]
    assert len(of_refine) == 4 * 6, "those of weights, all of pairs.fit"


@pytest.mark.parametrize(
    ("options", "fit", "says"),
    [
        (
            {"share": 0},
            6,
            r"propose.options: attribution: share is 0; it must be a share of the space above 0, "
            r"to 1",
        ),
        (
            {"pairs": 0},
            6,
            r"propose.options: attribution: pairs is 0; it must be a whole number of pairs from 1",
        ),
        (
            {"part": 1},
            6,
            r"propose.options: attribution: got an unexpected keyword argument 'part'; it takes "
            r"share, pairs",
        ),
        (
            {},
            0,
            r"pairs.fit: 0 leaves no pairs to choose hypotheses by, as propose.use: attribution "
            r"does; give it some",
        ),
    ],
)
def test_attribution_without_fit_pairs_or_with_wrong_options_is_refused_before_anything_is_loaded(
    options: dict[str, Any], fit: int, says: str
) -> None:
    with pytest.raises(JobError, match=says) as e:
        _asked({"use": "attribution", "options": options}, fit=fit)
    assert "\n" not in str(e.value)


def test_the_k_of_ones_own_is_what_it_says_not_the_size_of_the_space(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        MINE.replace("max_hypotheses = None", "max_hypotheses = 7_000")
    )
    asked = _asked({"use": "mine.py:Proposer"}, folder=tmp_path)
    space = asked.space(FACTS)
    assert asked.test(asked.proposer(space, FACTS), space).hypotheses == 7_000 > len(space)
    (tmp_path / "mine.py").write_text(MINE)
    open_ended = _asked({"use": "mine.py:Proposer"}, folder=tmp_path)
    assert open_ended.test(open_ended.proposer(space, FACTS), space).hypotheses == len(space)


@pytest.mark.parametrize("base", ["", "(Base)"])
def test_a_proposer_that_calls_its_k_most_is_taken_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, base: str
) -> None:
    code = MINE.replace("max_hypotheses = None", "most = 7").replace("Proposer:", f"Own{base}:")
    (tmp_path / "mine.py").write_text(
        f"from raysearch.proposers.base import Proposer as Base{code}"
    )
    asked = _asked({"use": f"{tmp_path}/mine.py:Own"}, folder=tmp_path)
    made = [asked.proposer(asked.space(FACTS), FACTS) for _ in range(2)]
    assert [one.max_hypotheses for one in made] == [7, 7]
    assert [r.message for r in caplog.records if "`most`" in r.message] == [
        f"propose.use: {tmp_path}/mine.py:Own: `most` is now called `max_hypotheses`; the old name "
        "goes with the next release"
    ]


def test_ones_own_proposes_for_all_variables_what_lies_outside_the_grid_too(tmp_path: Path) -> None:
    mine = proposer(tmp_path, layer=29)
    intervention = Intervention((Unit(Site(29, "head", "b", 2), Subspace(coordinates=(0, 1))),))
    assert (mine.name, mine.max_hypotheses) == ("Proposer", None)
    assert first(mine) == [Hypothesis("a", intervention), Hypothesis("b", intervention)]
    assert list(mine.propose(History(1, {}))) == []


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("class Proposer", "class Other", "mine.py has no 'Proposer'; give file.py:name"),
        ("def propose(", "def proposes(", r"Proposer, which has no propose\(known\)"),
        (
            "max_hypotheses = None",
            "max_hypotheses = 0",
            "max_hypotheses of .* is 0; it must be a number of hypotheses",
        ),
        (
            "self.space, self.layer = space, layer",
            "raise KeyError('x')",
            "mine.py:Proposer raised KeyError: 'x'",
        ),
        ("class Proposer", "class Proposer(", "cannot be run: SyntaxError"),
    ],
)
def test_code_that_makes_no_proposer_is_refused_before_the_search(
    tmp_path: Path, old: str, new: str, says: str
) -> None:
    with pytest.raises(JobError, match=rf"propose.use: .*{says}"):
        proposer(tmp_path, MINE.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            "if known.generations",
            "if known.generation",
            "propose raised AttributeError: .*'generation'",
        ),
        (
            "return [Hypothesis(",
            "return ['x' for _ in (",
            "it proposed 'x'; propose a raysearch.Hypothesis",
        ),
        ('Hypothesis("a"', 'Hypothesis("z"', "'z' is no variable of the job; it has a, b"),
        (
            "Intervention((unit,)",
            'Intervention((unit,), "zero"',
            "has a kind, control or fit of its own",
        ),
        ("Site(self.layer", "Site(30", "unit 0: 30 is no layer of SmolLM2; it has 0..29"),
        ("Site(self.layer", "Site('3'", r"unit 0: layer should be a whole number \(got '3'\)"),
        ("Site(self.layer", "Site(True", r"unit 0: layer should be a whole number \(got True\)"),
        ('"b", 2)', '"b", 2.0)', r"unit 0: head should be a whole number \(got 2.0\)"),
        ("(0, 1)", "(0, '1')", r"unit 0: coordinate should be a whole number \(got '1'\)"),
        ('"b", 2)', '"b", 9)', "unit 0: 9 is no head of head in SmolLM2; it has 0..8"),
        (
            '"head", "b"',
            '"value", "b"',
            "unit 0: 'value' is no component of the job; it has residual",
        ),
        ('"head", "b"', '"head", "c"', "unit 0: 'c' is no position of the job; it has b"),
        ("(0, 1)", "(0, 64)", "unit 0: 64 is no coordinate of a head in SmolLM2; it has 0..63"),
        ("Intervention((unit,)", "Intervention(()", "without units; name at least one"),
        (
            "Subspace(coordinates=(0, 1))",
            'Subspace("das", 2)',
            "a subspace that is fit, and space.subspaces has none",
        ),
    ],
)
def test_what_it_proposes_is_held_against_the_job_and_the_model(
    tmp_path: Path, old: str, new: str, says: str
) -> None:
    assert MINE.count(old) == 1
    with pytest.raises(
        SearchFailedError, match=rf"propose.use: .*mine.py:Proposer, generation 0: .*{says}"
    ) as e:
        first(proposer(tmp_path, MINE.replace(old, new)))
    assert "\n" not in str(e.value)


def test_what_is_fit_is_proposed_for_one_variable(tmp_path: Path) -> None:
    code = MINE.replace("Subspace(coordinates=(0, 1))", 'Subspace("das", 2)')
    fitted = {"subspaces": [{"das": [4]}]}
    with pytest.raises(
        SearchFailedError, match="is of variable None; of one that is fit it is the hypothesis's"
    ):
        first(proposer(tmp_path, code, fitted))
    (found,) = first(
        proposer(tmp_path, code.replace("((unit,))", '((unit,), variable="a")'), fitted)
    )
    assert found.intervention.variable == "a"


def test_the_proposer_of_the_docs_is_one(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "your-own-proposer.md").read_text()
    code = page.split("```python\n")[1].split("```")[0]
    mine = proposer(tmp_path, code, {"positions": ["last"]}, layer=4)
    assert (mine.name, mine.max_hypotheses) == ("quarters", None)
    quarters = first(mine)
    assert len({h.id for h in quarters}) == 8
    verdict = Decided(quarters[0], "accept", 60, 60, 0.9, 1.0, 0, 0, 0, None, 9.0, "sampler")
    halves = [
        h.intervention.units[0].subspace.coordinates
        for h in mine.propose(History(1, {quarters[0].id: verdict}))
    ]
    assert set(halves) == {tuple(range(8)), tuple(range(8, 16))}
