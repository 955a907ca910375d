"""A search from Python, asked in every way that a user may guess: objects in the place of names,
and mistakes in one line."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

import raysearch as rs
from raysearch.cli.main import cli
from raysearch.core.model_source import ModelSource
from raysearch.engine.loading.factory import load_module
from raysearch.engine.loading.given_model import content_digest
from raysearch.engine.networks.half_precision import speed_up
from raysearch.notebook.job_arguments import job_and_objects
from raysearch.problems import add_three, hierarchical_equality
from tests.cli.conftest import QUICKSTART, ROOT
from tests.edited import unended
from tests.notebook.kernel import kernel

PLANTED = QUICKSTART.parent / "planted" / "model"
NETS = QUICKSTART.parent / "models" / "hierarchical_equality.py"
SMALL: dict[str, Any] = {
    "space": {"variables": ["sum_ab"], "layers": range(1, 3), "positions": ("plus2", "last")},
    "pairs": {"test": 48, "fit": 0, "holdout": 8},
    "test": {"max_pairs": 48},
}
FOUND = [["sum_ab", 1, "plus2"]]


@pytest.fixture(scope="module")
def problem() -> rs.Problem:
    return add_three.problem()


@pytest.fixture(scope="module")
def model() -> rs.Model:
    return rs.Model.load(str(PLANTED))


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(PLANTED)


@pytest.fixture
def theirs() -> Any:
    """As its owner trains it."""
    return AutoModelForCausalLM.from_pretrained(PLANTED).train()


@pytest.fixture(scope="module")
def from_files(tmp_path_factory: pytest.TempPathFactory) -> rs.Run:
    """The same asked with names alone."""
    named = {
        "model": {"path": str(PLANTED)},
        "problem": {"use": "raysearch.problems.add_three"},
        **SMALL,
    }
    return rs.run(named, store=tmp_path_factory.mktemp("files"), quiet=True)


def cells(run: rs.Run) -> list[list[Any]]:
    found: list[list[Any]] = run.alignment[["variable", "layer", "position"]].to_numpy().tolist()
    return found


def verdicts(run: rs.Run) -> list[tuple[Any, ...]]:
    return [
        (r["hypothesis"], r["verdict"], r["n"], r["matches"]) for r in run.to_arrow().to_pylist()
    ]


@pytest.mark.slow
def test_a_problem_and_a_model_that_was_read_are_the_search_of_their_names(
    problem: rs.Problem, model: rs.Model, from_files: rs.Run, tmp_path: Path
) -> None:
    run = rs.run(problem=problem, model=model, store=tmp_path, quiet=True, **SMALL)
    assert cells(run) == FOUND
    assert verdicts(run) == verdicts(from_files)
    assert run.info.model_digest == from_files.info.model_digest
    assert (run.info.name, run.job.model.path, run.job.problem.use) == (
        "add_three",
        str(PLANTED),
        "<add_three>",
    )
    done = rs.resume(
        run, quiet=True
    )  # needs nothing in hand: the model is in its folder, the pairs in the run's
    assert verdicts(done) == verdicts(run)


@pytest.mark.slow
def test_a_model_of_transformers_is_searched_where_it_is_and_stays_as_it_is(
    problem: rs.Problem, theirs: Any, tokenizer: Any, from_files: rs.Run, tmp_path: Path
) -> None:
    frozen = theirs.model.embed_tokens.weight.requires_grad_(False)
    before = {name: value.clone() for name, value in theirs.state_dict().items()}
    run = rs.run(
        {"model": (theirs, tokenizer), "problem": problem, **SMALL}, store=tmp_path, quiet=True
    )
    assert verdicts(run) == verdicts(from_files)
    assert all(m.training for m in theirs.modules())
    assert {id(p) for p in theirs.parameters() if not p.requires_grad} == {id(frozen)}
    assert all(torch.equal(value, before[name]) for name, value in theirs.state_dict().items())
    assert (run.job.model.path, run.job.model.dtype) == ("<LlamaForCausalLM>", "float32")
    again = rs.run(problem, model=rs.Model(theirs, tokenizer), store=tmp_path, quiet=True, **SMALL)
    assert (again.info.job_hash, again.info.model_digest) == (
        run.info.job_hash,
        run.info.model_digest,
    )


@pytest.mark.slow
def test_a_run_of_a_model_that_no_file_has_goes_on_with_that_model_alone(
    problem: rs.Problem, theirs: Any, tokenizer: Any, tmp_path: Path
) -> None:
    run = rs.run(problem=problem, model=(theirs, tokenizer), store=tmp_path, quiet=True, **SMALL)
    name = str(tmp_path / run.info.id)
    assert verdicts(rs.resume(run, quiet=True)) == verdicts(run)  # it is done
    unended(Path(run.place))
    with pytest.raises(
        rs.RaysearchError,
        match=rf"began with <LlamaForCausalLM>.*rs\.resume\('{name}', model=model\)",
    ):
        rs.resume(run, quiet=True)
    for same in ((theirs, tokenizer), rs.Model(theirs, tokenizer), rs.Model.load(str(PLANTED))):
        assert verdicts(rs.resume(run, model=same, problem=problem, quiet=True)) == verdicts(run)
    other = copy.deepcopy(theirs)
    other.lm_head.weight.data += 0.1
    with pytest.raises(
        rs.RaysearchError, match=r"began with a model of digest .* their outputs do not mix"
    ):
        rs.resume(run, model=(other, tokenizer), quiet=True)
    with pytest.raises(
        rs.RaysearchError, match="the problem 'add_three' draws other pairs than the run has"
    ):
        rs.resume(run, model=(theirs, tokenizer), problem=add_three.problem(highest=4), quiet=True)


def test_a_run_from_files_takes_no_other_model_to_go_on(
    from_files: rs.Run, theirs: Any, tokenizer: Any, model: rs.Model
) -> None:
    with pytest.raises(rs.RaysearchError, match="which is read from there; leave model out"):
        rs.resume(from_files, model=(theirs, tokenizer), quiet=True)
    assert verdicts(rs.resume(from_files, model=model, quiet=True)) == verdicts(from_files)


@pytest.mark.slow
def test_the_command_line_shows_such_a_run_and_refuses_to_drive_it(
    problem: rs.Problem, theirs: Any, tokenizer: Any, tmp_path: Path
) -> None:
    run = rs.run(problem=problem, model=(theirs, tokenizer), store=tmp_path, quiet=True, **SMALL)
    accepted = run.alignment["hypothesis"].iloc[0]
    job = f"{run.place}/job.yaml"
    for command, code, said in (
        (["results", run.place, "--accepted"], 0, "sum_ab"),
        (["status", run.place], 0, "done"),
        (["report", run.place], 0, "report.html"),
        (["export", run.place, accepted, "--to", str(tmp_path / "found")], 0, "found"),
        (["resume", run.place, "--pool", "local"], 0, "is done"),
        (
            ["plan", job],
            2,
            "problem.use: <add_three> is a problem that rs.run was given as an object",
        ),
        (
            ["run", job, "--pool", "local", "--set", "problem.use=raysearch.problems.add_three"],
            2,
            "model.path: <LlamaForCausalLM>",
        ),
    ):
        done = CliRunner().invoke(cli, command)
        said_all = f"{done.output}{done.exception or ''}"
        assert (getattr(done.exception, "exit_code", done.exit_code), said in said_all) == (
            code,
            True,
        ), (
            command,
            said_all,
        )
        assert done.exception is None or isinstance(done.exception, rs.RaysearchError)
    saved = rs.load_intervention(str(tmp_path / "found"))
    assert saved.model is not None
    assert saved.model.digest == run.info.model_digest
    unended(Path(run.place))
    done = CliRunner().invoke(cli, ["resume", run.place, "--pool", "local"])
    assert "give it again, in Python: rs.resume(" in str(done.exception)


@pytest.mark.slow  # a real Ray
def test_pool_ray_takes_a_problem_and_a_model_that_was_read_and_refuses_one_that_no_file_has(
    problem: rs.Problem,
    theirs: Any,
    tokenizer: Any,
    model: rs.Model,
    from_files: rs.Run,
    tmp_path: Path,
) -> None:
    with pytest.raises(
        rs.RaysearchError, match=r"<LlamaForCausalLM> is an object of this process.*pool='local'"
    ):
        rs.run(
            problem=problem,
            model=(theirs, tokenizer),
            pool="ray",
            store=tmp_path,
            quiet=True,
            **SMALL,
        )
    one = {"resources": {"replicas": 1}}
    run = rs.run(
        problem=problem, model=model, pool="ray", store=tmp_path, quiet=True, **SMALL, **one
    )
    assert verdicts(run) == verdicts(from_files)


@pytest.mark.slow
def test_a_module_on_tensors_is_searched_as_the_factory_that_makes_it(tmp_path: Path) -> None:
    net = load_module(ModelSource(f"{NETS}:trained", is_factory=True)).module.train()
    asks: dict[str, Any] = {
        "problem": hierarchical_equality.problem(symbols=20, dimensions=4),
        "space": {
            "variables": ["left_equality", "output"],
            "layers": [0, 2],
            "positions": ["last"],
        },
        "pairs": {"test": 64, "fit": 0, "holdout": 8},
        "test": {"max_pairs": 64},
    }
    run = rs.run(**asks, model=net, store=tmp_path, quiet=True)
    assert net.training
    assert (run.job.model.path, run.job.answer.compare) == ("<Mlp on tensors>", "class")
    theirs = rs.run(
        **asks, model=f"{NETS}:trained", answer={"compare": "class"}, store=tmp_path, quiet=True
    )
    assert verdicts(run) == verdicts(theirs)
    assert "accept" in [v for _, v, _, _ in verdicts(run)]
    assert verdicts(rs.resume(run, model=rs.TensorModel(net), quiet=True)) == verdicts(run)
    unended(Path(run.place))
    with pytest.raises(rs.RaysearchError, match="began with <Mlp on tensors>"):
        rs.resume(run, quiet=True)


def net(scale: float = 1.0, twice: bool = False) -> torch.nn.Module:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.scale = torch.nn.Linear(2, 2), scale

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x) * self.scale

    class Twice(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(self.layer(x)) * self.scale

    torch.manual_seed(0)
    return Twice() if twice else Net()


def test_the_digest_of_an_object_is_of_all_that_it_computes_with() -> None:
    hooked = net()
    hooked.layer.register_forward_hook(lambda m, i, o: o + 1)  # type: ignore[union-attr, operator]
    own = net()
    own.forward = lambda x: x  # type: ignore[method-assign, assignment]
    different = [net(), net(scale=2.0), net(twice=True), net().double(), hooked, own]
    assert len({content_digest(m) for m in different}) == len(different)
    quick = net().to(torch.bfloat16)
    before = content_digest(quick)
    speed_up(quick)
    assert content_digest(quick) == before  # else it would hang on the processor
    assert (
        content_digest(net())
        == content_digest(net().train())
        == content_digest(net().requires_grad_(False))
    )


def test_the_digest_of_a_tokenizer_is_not_of_the_last_batch(theirs: Any, tokenizer: Any) -> None:
    before = content_digest(theirs, tokenizer)
    tokenizer.backend_tokenizer.enable_padding()
    assert content_digest(theirs, tokenizer) == before
    tokenizer.backend_tokenizer.no_padding()
    other = copy.deepcopy(tokenizer)
    other.add_tokens(["one more"])
    assert content_digest(theirs, other) != before


WAYS: dict[str, Callable[[Any, Any], tuple[Any, dict[str, Any]]]] = {
    "a path": lambda p, m: (QUICKSTART, {}),
    "a path as text": lambda p, m: (str(QUICKSTART), {}),
    "YAML": lambda p, m: (
        QUICKSTART.read_text().replace("planted/model", str(PLANTED)),
        {"name": "quickstart"},
    ),
    "YAML in braces": lambda p, m: (
        f"{{model: {{path: {PLANTED}}}, problem: {{use: raysearch.problems.add_three}}}}",
        {},
    ),
    "a dict": lambda p, m: ({"model": str(PLANTED), "problem": "raysearch.problems.add_three"}, {}),
    "a dict of objects": lambda p, m: ({"model": m, "problem": {"use": p}}, {}),
    "a Path in a dict": lambda p, m: ({"model": {"path": PLANTED}, "problem": p}, {}),
    "a Job": lambda p, m: (rs.Job.load(QUICKSTART), {}),
    "a Job and objects over it": lambda p, m: (rs.Job.load(QUICKSTART), {"model": m, "problem": p}),
    "a Problem": lambda p, m: (p, {"model": m}),
    "keywords": lambda p, m: (None, {"model": m, "problem": p}),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_same_job_whichever_way_it_is_asked(
    way: str, problem: rs.Problem, model: rs.Model
) -> None:
    given, keys = WAYS[way](problem, model)
    job, objects = job_and_objects(given, {**SMALL, **keys})
    assert job.model.path == str(PLANTED)
    assert job.problem.use == (
        "raysearch.problems.add_three" if objects.problem is None else "<add_three>"
    )
    assert job.space.layers == (1, 2)
    assert job.pairs.test == 48
    assert job.name in ("quickstart", "add_three")


def test_keywords_go_over_a_job_key_by_key_and_leave_the_others(model: rs.Model) -> None:
    job, _ = job_and_objects(QUICKSTART, {"test": {"threshold": 0.7}, "controls": ["placebo"]})
    was = rs.Job.load(QUICKSTART)
    assert (job.test.threshold, job.test.max_pairs) == (0.7, was.test.max_pairs)
    assert (job.controls, job.space, job.problem) == (("placebo",), was.space, was.problem)
    chats = {
        "model": {"path": "x/y", "dtype": "bfloat16", "prompt": {"chat_template": True}},
        "problem": {"use": "a:b"},
    }
    job, objects = job_and_objects(chats, {"model": model})
    assert (job.model.path, job.model.dtype, job.model.prompt.chat_template) == (
        str(PLANTED),
        "float32",
        True,
    )
    assert objects.model is model.given


def test_a_pipeline_is_its_model_and_tokenizer(
    theirs: Any, tokenizer: Any, problem: rs.Problem
) -> None:
    job, objects = job_and_objects(
        problem, {"model": pipeline("text-generation", model=theirs, tokenizer=tokenizer)}
    )
    assert objects.model is not None
    assert objects.model.module is theirs
    assert job.model.path == "<LlamaForCausalLM>"


@pytest.mark.parametrize(
    ("given", "keys", "said"),
    [
        (None, {}, "job: model: missing; a job needs it"),
        (3, {}, "rs.run: got int; give the path of a job file, its text, a dict"),
        ("nothere.yaml", {}, "nothere.yaml: cannot be read"),
        ("a: [", {}, "job: line 1"),
        ({"modle": "x", "problem": "a:b"}, {}, "job: modle: unknown key; did you mean 'model'?"),
        ({"model": "x/y", "problem": "a:b", 3: 4}, {}, "job: 3: keys should be strings"),
        (
            {"model": "x/y", "problem": "a:b"},
            {"space": {"layer": [1]}},
            "job: space.layer: unknown key; did you mean 'layers'?",
        ),
        (
            {"model": "x/y", "problem": "a:b"},
            {"space": [1]},
            "job: space: should be a mapping of keys to values",
        ),
        (
            {"model": "x/y", "problem": "a:b"},
            {"test": {"threshold": "high"}},
            "job: test.threshold: should be a number",
        ),
        ({"model": 3, "problem": "a:b"}, {}, "job: model.*should be a"),
        ({"model": object(), "problem": "a:b"}, {}, "model: got object; give a path, a rs.Model"),
        ({"model": ("x", "y"), "problem": "a:b"}, {}, "model: got str; give a path"),
        ({"model": "x/y", "problem": add_three.problem}, {}, r"call it, problem=problem\(\)"),
        (
            {"model": "x/y", "problem": {"use": add_three.problem(), "options": {"a": 1}}},
            {},
            "problem.options: is not of a problem",
        ),
        ({"model": "x/y"}, {}, "job: problem: missing"),
    ],
)
def test_a_mistake_is_one_line_without_pydantic(
    given: Any, keys: dict[str, Any], said: str
) -> None:
    with pytest.raises(rs.RaysearchError, match=said) as error:
        rs.run(given, **keys)
    text = str(error.value)
    assert "\n" not in text
    assert "pydantic" not in text
    assert (
        error.value.__suppress_context__
        or error.value.__cause__ is None
        or "pydantic" not in type(error.value.__cause__).__module__
    )


def test_objects_that_are_half_a_model_are_refused_with_the_other_half(
    theirs: Any, tokenizer: Any, model: rs.Model, problem: rs.Problem
) -> None:
    with pytest.raises(rs.RaysearchError, match="comes without its tokenizer; give both"):
        rs.run(problem, model=theirs)
    with pytest.raises(rs.RaysearchError, match="tokenizer: got int"):
        rs.Model(theirs, 3)
    with pytest.raises(rs.RaysearchError, match="Linear is no causal language model"):
        rs.Model(torch.nn.Linear(2, 2), tokenizer)
    with pytest.raises(rs.RaysearchError, match=r"give it to rs.TensorModel"):
        rs.Model(torch.nn.Linear(2, 2))
    with pytest.raises(rs.RaysearchError, match="has weights of float64"):
        rs.run(problem, model=(theirs.double(), tokenizer))
    with pytest.raises(rs.RaysearchError, match=r"model.dtype: the model is loaded already"):
        rs.run(problem, model={"path": model, "dtype": "float32"})
    with pytest.raises(
        rs.RaysearchError, match=r"'spaces' is no keyword of rs.run; did you mean 'space'"
    ):
        rs.run(problem, model=model, spaces={})
    with pytest.raises(rs.RaysearchError, match="give the object that the run began with"):
        rs.resume("latest", model="x")


def test_a_job_made_by_hand_says_its_mistake_in_one_line() -> None:
    with pytest.raises(rs.RaysearchError, match=r"^job: model: missing; a job needs it$"):
        rs.Job(name="x")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda p: rs.CausalModel(("a",), {}, {}, "a"), r"give Variables, such as Variable\('a'\)"),
        (
            lambda p: rs.CausalModel((rs.Variable("a"),), {"a": "b"}, {}, "a"),
            r"give a tuple of names, \('b',\)",
        ),
        (
            lambda p: rs.CausalModel((rs.Variable("a"),), {}, {"a": 3}, "a"),
            "the mechanism of 'a' is 3; give a function",
        ),
        (lambda p: replace(p, positions="last"), "positions is a text; give a tuple of names"),
        (lambda p: replace(p, render=None), "render is None; give a function"),
        (lambda p: replace(p, model=None), "model is None; give a CausalModel"),
        (lambda p: rs.draw_pairs(p, "sum_ab", {"test": 1}, 0), "give a tuple of names"),
        (lambda p: rs.draw_pairs(p, ("sum_ab",), {}, 0), "ask for no pair"),
        (
            lambda p: rs.fill("{a} {b}", {"a": "x"}),
            "has the gap 'b', and no word fills it; it got a",
        ),
    ],
)
def test_what_a_users_file_is_made_of_says_what_is_wrong_with_it(
    make: Callable[[Any], Any], said: str, problem: rs.Problem
) -> None:
    with pytest.raises(rs.RaysearchError, match=said):
        make(problem)


def test_in_a_notebook_an_error_is_one_line(tmp_path: Path) -> None:
    with kernel(tmp_path) as cell:
        said = cell(
            "import raysearch as rs\nrs.run({'model': 'x/y', 'problem': 'a:b', 'spac': {}})"
        )
        assert (cell.status, cell.error) == ("error", "JobError")
        assert len(said) == 1
        assert said[0].startswith("job: spac: unknown key; did you mean 'space'?")
        cell("try:\n    rs.Job(name='x')\nexcept rs.RaysearchError as e:\n    kept = e")
        shown = cell("print(kept._render_traceback_())")  # all that IPython shows of it
        assert shown == ["['JobError: job: model: missing; a job needs it']\n"]
        assert "did you mean 'Problem'?" in cell("rs.Problme")[0]


@pytest.mark.slow  # a whole job
def test_the_lines_of_the_page_on_python_run(
    problem: rs.Problem, model: rs.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [
        line.strip()
        for line in (ROOT / "docs" / "how-to" / "search-from-python.md").read_text().splitlines()
        if line.startswith("    run = rs.run(")
    ][1:]
    (tmp_path / "jobs").symlink_to(ROOT / "jobs")
    monkeypatch.chdir(tmp_path)
    first, second = lines
    names: dict[str, Any] = {"rs": rs, "problem": problem, "model": model}
    exec(first, names)
    assert len(names["run"].alignment)
    told: list[Any] = []
    exec(
        second.replace("rs.run", "ask"),
        {"ask": lambda job, **keys: told.append(job_and_objects(job, keys))},
    )
    assert told[0][0].test.threshold == 0.9


@pytest.mark.parametrize(
    "name", ["P.PARQUET", "pairs.arrow", "pairs.ndjson", "pairs.jsonl.zst", "pairs.jsonl"]
)
def test_a_file_of_pairs_beside_the_job_is_none_of_code(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("")
    (tmp_path / "job.yaml").write_text(
        f"name: x\nmodel: {{path: {PLANTED}}}\nproblem: {{use: raysearch.problems.add_three}}\n"
    )
    job, _ = job_and_objects(str(tmp_path / "job.yaml"), {"problem": name})
    assert job.problem.pairs == str(tmp_path / name)
