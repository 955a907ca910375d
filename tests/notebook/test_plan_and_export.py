"""A notebook plans, exports, syncs and looks at a run, as the command line does."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

import raysearch as rs
from raysearch.cli.plan import make_plan, plan_text
from raysearch.errors import JobError, TrackingError
from raysearch.job import Job
from raysearch.problems import add_three
from tests.cli.conftest import QUICKSTART

SMALL = ("pairs.test=96", "pairs.holdout=4", "space.layers=[0, 1]")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> rs.Run:
    store = tmp_path_factory.mktemp("runs")
    return rs.run(Job.load(QUICKSTART, SMALL), store=store, quiet=True)


def test_a_plan_in_a_notebook_says_what_the_command_says() -> None:
    plan = rs.plan(Job.load(QUICKSTART, SMALL))
    assert repr(plan) == plan_text(make_plan(QUICKSTART, SMALL), "text")
    plain = json.loads(json.dumps(plan.plain()))
    assert plain == json.loads(plan_text(make_plan(QUICKSTART, SMALL), "json"))
    assert plan.hypotheses == plain["hypotheses"] > 0


def test_keys_go_over_those_of_the_job_and_an_unknown_one_is_refused() -> None:
    planned = rs.plan(QUICKSTART, space={"layers": [0]}, pairs={"test": 24, "holdout": 4})
    assert planned.hypotheses < rs.plan(QUICKSTART).hypotheses
    with pytest.raises(JobError, match=r"'spaces' is no keyword of rs.plan; did you mean 'space'"):
        rs.plan(QUICKSTART, spaces={})


def test_a_plan_counts_the_inputs_of_fit_pairs_only_where_they_are_run() -> None:
    space, pairs = {"layers": [0]}, {"fit": 32, "test": 24, "holdout": 4}
    planned = rs.plan(QUICKSTART, space=space, pairs=pairs)
    weighed = rs.plan(QUICKSTART, space=space, pairs=pairs, test={"weights": "attribution"})
    assert planned.pairs == weighed.pairs
    assert (planned.weighed_on, weighed.weighed_on) == (0, 32)
    assert planned.inputs <= 2 * (24 + 4) < weighed.inputs


def test_a_model_given_as_an_object_is_planned_for_as_its_files_are() -> None:
    job = Job.load(QUICKSTART, SMALL)
    read = rs.Model.load(job.model.path)
    given = rs.plan(job, model=read.given.language)
    by_files = rs.plan(job)
    assert given.powers == by_files.powers
    assert given.memory == by_files.memory
    assert (given.layers, given.path, given.inputs) == (
        by_files.layers,
        by_files.path,
        by_files.inputs,
    )


@pytest.mark.parametrize("form", ["raysearch", "mib", "pyvene"])
def test_an_accepted_hypothesis_is_exported_in_each_format(
    run: rs.Run, tmp_path: Path, form: str
) -> None:
    accepted = run.results(accepted=True)
    written = run.export(accepted["hypothesis"][0], tmp_path / "it", form)  # type: ignore[arg-type]
    assert written
    assert any(file.is_file() for file in (tmp_path / "it").rglob("*"))
    if form == "raysearch":
        saved = rs.load_intervention(written[0])
        assert saved.intervention.id == accepted["intervention"][0]


def test_a_task_called_after_a_users_object_says_how_it_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    space = {"variables": ["sum_ab"], "layers": [1], "positions": ["plus2"]}
    given = replace(add_three.problem(), name="<my toy>")
    run = rs.run(QUICKSTART, problem=given, space=space, store=tmp_path / "runs", quiet=True)
    with caplog.at_level("WARNING", "raysearch"):
        (unit,) = run.export(None, tmp_path / "it", "mib")
    assert unit.parent.name == "my-toy_model_sum_ab"
    said = "the task is called my-toy, after <my toy>; --task NAME (in Python task=...) calls it"
    assert said in caplog.text
    (unit,) = run.export(None, tmp_path / "named", "mib", task="sums")
    assert unit.parent.name == "sums_model_sum_ab"
    assert caplog.text.count("--task NAME") == 1


def test_no_file_is_written_over_unless_that_is_said(run: rs.Run, tmp_path: Path) -> None:
    first, second = run.results(accepted=True)["hypothesis"][:2]
    folder = run.export(first, tmp_path / "it")[0]
    with pytest.raises(JobError, match=r"is not empty.*or force=True"):
        run.export(second, folder)
    before = (folder / "intervention.json").read_text()
    run.export(second, folder, force=True)
    assert (folder / "intervention.json").read_text() != before


def test_what_is_no_format_or_names_no_hypothesis_is_refused(run: rs.Run, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="'onnx' is no format; it may be raysearch, mib, pyvene"):
        run.export("0", tmp_path, "onnx")  # type: ignore[arg-type]
    with pytest.raises(JobError, match="is of one hypothesis; give its id"):
        run.export(None, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_run_says_how_it_stands(run: rs.Run) -> None:
    assert "status    done" in run.status().splitlines()


@pytest.mark.slow
def test_a_run_is_reported_to_mlflow_afterwards(run: rs.Run, tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match="no tracker was told of it"):
        rs.sync(run)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    said = rs.sync(run, uri, children=1)
    assert f"experiment raysearch/{run.job.name} at {uri}" in said
    assert rs.sync(run.place) == said, "the run remembers its server, and is not reported twice"
    assert f"mlflow    run {rs.Run.open(run.place).info.tracking_run_id} at {uri}" in run.status()
