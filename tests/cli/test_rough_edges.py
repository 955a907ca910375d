"""Words that lead on: what a plan refuses already, numbers that are those asked for, controls by
their place."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from raysearch.cli.main import cli
from raysearch.cli.results import print_controls
from raysearch.errors import JobError, ModelError, PairsError
from raysearch.report.control_comparison import ControlComparison
from raysearch.storage.open_folder import open_folder
from raysearch.viewer import page, run_view
from tests.cli.conftest import QUICKSTART
from tests.cli.test_plan import planned
from tests.once import Once


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("space.subspaces=[{das: [65]}]", "das has 65 features, .* residual .* has 64 coordinates"),
        ("space.subspaces=[{das: [1, 64, 70]}]", "das has 70 features"),
        ("space.subspaces=[{pca: [100]}]", "pca has 100 features, .* give at most 64"),
    ],
)
def test_a_plan_refuses_more_features_than_the_vector_has(key: str, says: str) -> None:
    with pytest.raises(JobError, match=says):
        planned("text", key, "pairs.fit=32")


def test_a_plan_takes_as_many_features_as_the_vector_has() -> None:
    assert "fits" in planned("text", "space.subspaces=[{das: [64]}]", "pairs.fit=32")


def test_of_a_head_it_is_the_heads_own_width() -> None:
    with pytest.raises(JobError, match=r"das has 17 features, and the vector of head 0 .* has 16"):
        planned("text", "space.subspaces=[{das: [17]}]", "pairs.fit=32", "space.components=[head]")


def test_test_pairs_that_were_looked_at_are_told_from_those_wanted(tmp_path: Path) -> None:
    side = '{"text": "1+1+%d=", "positions": {}}'
    line = '{"base": %s, "source": %s, "answers": {"base": "3", "source": "4"}, "counterfactual": {"x": "3"}}'
    (tmp_path / "pairs.jsonl").write_text((line % (side % 1, side % 2) + "\n") * 300)
    (tmp_path / "job.yaml").write_text(
        f"name: j\nmodel: {{path: {QUICKSTART.parent}/planted/model}}\n"
        "problem: {pairs: pairs.jsonl}\npairs: {test: 100, fit: 0, holdout: 0}\n"
        "space: {layers: all, components: [residual], positions: [last]}\ntest: {max_pairs: 100}\n"
    )
    done = CliRunner().invoke(cli, ["plan", str(tmp_path / "job.yaml")])
    assert isinstance(done.exception, JobError | PairsError)
    assert "on all 300 test pairs at hand (100 wanted)" in str(done.exception)


def test_controls_name_the_component_and_the_head(capsys: pytest.CaptureFixture[str]) -> None:
    unit = {
        "site": {"layer": 3, "component": "head", "head": 5, "position": "last"},
        "subspace": {"featurizer": "identity", "features": None},
    }
    row = {
        **dict.fromkeys(("holdout_iia", "warnings", "subspace", "fit", "margin_low")),
        "variable": "v",
        **unit["site"],
        "units": json.dumps([unit]),
        "iia": 1.0,
        "low": 0.9,
    }
    print_controls([ControlComparison(row, {"self_swap": 0.1}, ())], Console(width=160))
    title, heads, cells = capsys.readouterr().out.splitlines()
    assert title.strip() == "Controls (IIA)"
    assert heads.split()[:5] == ["variable", "layer", "component", "head", "position"]
    assert cells.split()[:5] == ["v", "3", "head", "5", "last"]


def test_controls_are_in_the_order_of_results_with_those_of_the_holdout_beside_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def compared(position: str, layer: int) -> ControlComparison:
        site = {"layer": layer, "component": "residual", "head": None, "position": position}
        units = [{"site": site, "subspace": {"featurizer": "identity", "features": None}}]
        row = {
            **dict.fromkeys(("warnings", "fit", "margin_low")),
            "variable": "v",
            **site,
            "units": json.dumps(units),
            "iia": 0.97,
            "holdout_iia": 0.91,
            "low": 0.9,
        }
        iia = {"self_swap": 0.1, "placebo": 0.2, "random_source": 0.3, "baseline": 0.4}
        return ControlComparison(row, iia, ())

    found = [compared("b", 10), compared("b", 9), compared("a", 10)]
    print_controls(found, Console(width=160))
    title, heads, *rows = capsys.readouterr().out.splitlines()
    assert "right of holdout, on its pairs" in title
    assert heads.split()[3:] == [
        "iia",
        "baseline",
        "placebo",
        "holdout",
        "self_swap",
        "random_source",
    ]
    assert rows[0].split()[3:] == ["0.970", "0.400", "0.200", "0.910", "0.100", "0.300"]
    assert [row.split()[1:3] for row in rows] == [["9", "b"], ["10", "a"], ["10", "b"]]


@pytest.mark.slow
@pytest.mark.parametrize(("as_well", "alike"), [((), ("x",)), (("self_swap",), ()), ((), ())])
def test_a_page_speaks_of_a_control_that_does_as_well_only_where_there_is_one(
    once: Once, monkeypatch: pytest.MonkeyPatch, as_well: tuple[str, ...], alike: tuple[str, ...]
) -> None:
    run = open_folder(
        once.searched(
            QUICKSTART, "--set", "space.variables=[sum_ab,total]", "--set", "pairs.test=128"
        )
    )
    data = run_view.read_run(run)
    (first, *_) = data.comparisons
    row = {**first.row, "margin_low": None, "warnings": None}
    held = replace(first, row=row, iia={"self_swap": 1.0}, as_well=as_well, alike=alike)
    monkeypatch.setattr(run_view, "read_run", lambda *_: replace(data, comparisons=(held,)))
    assert ("Where it is not shown to do better than a control" in page.page(run)) == bool(as_well)


@pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes"])
def test_a_plan_says_of_a_quantised_model_what_it_cannot_do_and_that_none_was_run(
    tmp_path: Path, method: str
) -> None:
    shutil.copytree(QUICKSTART.parent / "planted/model", tmp_path / "model")
    file = tmp_path / "model/config.json"
    plain = json.loads(file.read_text())
    plain["quantization_config"] = {"quant_method": method, "bits": 4, "load_in_4bit": True}
    file.write_text(json.dumps(plain))
    path = f"model.path={tmp_path}/model"
    said = planned("text", path, "space.subspaces=[{das: [4]}]", "pairs.fit=32")
    assert f"quantised   {method}: loaded as it is" in said
    assert "a fit needs a kernel with gradients" in said
    assert "ran none" in said
    with pytest.raises((JobError, ModelError), match="random_model is not possible"):
        planned("text", path, "controls=[random_model]")


def test_a_page_of_a_job_is_below_a_megabyte(once: Once) -> None:
    """That of jobs/capitals.yaml, the largest of ours, was 291 kB."""
    run = once.searched(QUICKSTART)
    assert 10_000 < len(page.page(open_folder(run)).encode()) < 500_000
