"""The models that were trained here, loaded from jobs/models: small files, and right on texts that
they never saw."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from raysearch import Input, Problem, draw_pairs
from raysearch.engine.encoding.encode import encode
from raysearch.problems import add_three, load_problem, price_tagging
from tests.problems.swaps import Small

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS, JOBS = ROOT / "scripts", ROOT / "jobs"
SOLVED = {
    "add_three": (add_three.problem(), 0.99),
    "price_tagging": (price_tagging.problem(), 0.98),
}
"""The problem, and the least share of fresh texts that the model of that name answers rightly."""


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def small_model() -> ModuleType:
    spec = importlib.util.spec_from_file_location("small_model", SCRIPTS / "small_model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def drawn(problem: Problem, count: int) -> dict[str, tuple[Input, str]]:
    """Texts of the problem's own pairs, each once, with its input and its answer."""
    pairs = draw_pairs(problem, (problem.model.output,), {"test": count}, seed=5)
    return {
        given.text: (given, pair.answers[name])
        for pair in pairs
        for name, given in {"base": pair.base, **pair.sources}.items()
    }


@pytest.mark.parametrize("name", SOLVED)
def test_its_folder_is_under_two_megabytes_and_whole(name: str) -> None:
    files = {path.name: path.stat().st_size for path in Small(name).folder.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(files)
    assert sum(files.values()) < 2_000_000


@pytest.mark.parametrize("name", SOLVED)
def test_it_solves_its_problem_on_texts_that_it_was_not_trained_on(
    name: str, small_model: ModuleType
) -> None:
    small, (problem, least) = Small(name), SOLVED[name]
    fresh = [found for text, found in drawn(problem, 3000).items() if small_model.is_held_out(text)]
    assert len(fresh) > 80
    answers = small.answers(small.plain([given for given, _ in fresh]))
    right = sum(
        answer == expected.strip()
        for answer, (_, expected) in zip(map(str.strip, answers), fresh, strict=True)
    )
    assert right / len(fresh) >= least


def test_the_words_of_add_three_are_the_tokens_and_answers_leave_them_alone() -> None:
    small, asked = Small("add_three"), add_three.problem()
    pairs = draw_pairs(asked, asked.model.names, {"test": 200}, seed=2)
    for pair, encoded in zip(
        pairs, encode(pairs, small.tokenizer, asked.positions, asked.model.names), strict=True
    ):
        assert [encoded.base_positions[name] for name in (*asked.positions, "last")] == [
            (i,) for i in range(6)
        ]
        assert small.tokenizer.decode(encoded.base) == pair.base.text
        for variable, answer in pair.counterfactual.items():
            assert encoded.counterfactual[variable] == (int(answer),), "a number's id is the number"


@pytest.mark.parametrize("name", ["add_three", "add_three_planted", "price_tagging"])
def test_its_job_names_what_is_there(name: str) -> None:
    job = yaml.safe_load((JOBS / f"{name}.yaml").read_text())
    problem = load_problem(job["problem"]["use"], job["problem"]["options"])
    assert job["name"] == name
    assert (JOBS / job["model"]["path"] / "model.safetensors").is_file()
    assert set(job["space"]["variables"]) <= set(problem.model.names)
    assert set(job["space"]["positions"]) <= {*problem.positions, "last"}
