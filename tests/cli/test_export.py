"""`raysearch export`: a hypothesis of a run as a folder, and on the hub."""

import json
from pathlib import Path
from typing import Any

import pytest

from raysearch import load_intervention
from raysearch.store.run_folder import find_run
from tests.cli.conftest import QUICKSTART, ROOT, Shell
from tests.engine.hub_stand_in import READER, TOKEN, serve


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small search, done once; its run folder."""
    folder = tmp_path_factory.mktemp("exported")
    sets = ("--set", "space.variables=[total]", "--set", "space.positions=[c, last]", "--set", "pairs.test=64")
    done = Shell(folder)("run", str(QUICKSTART), "--pool", "local", "--tracking-uri", "none", "-q", *sets)
    assert done.returncode == 0, done.stderr
    return find_run(folder / "runs", "latest").path


def _rows(run: Path, shell: Shell) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = shell.json("results", str(run), "-o", "json")
    return rows


def test_an_exported_hypothesis_is_the_one_of_the_run_with_its_figures(run: Path, shell: Shell) -> None:
    rows = _rows(run, shell)
    for row in (rows[0], rows[-1]):
        done = shell("export", str(run), row["hypothesis"][:12], "--to", "out/it")
        assert (done.returncode, done.stdout) == (0, "out/it\n"), done.stderr
        saved = load_intervention(shell.folder / "out/it")
        assert saved.intervention.id == row["intervention"]
        (unit,) = saved.intervention.units
        assert (unit.site.layer, unit.site.position, saved.variable) == (row["layer"], row["position"], "total")
        assert not saved.tensors
        assert saved.finding is not None
        for name in (
            "hypothesis",
            "verdict",
            "n",
            "matches",
            "iia",
            "low",
            "high",
            "holdout_n",
            "holdout_iia",
            "claim",
        ):
            assert getattr(saved.finding, name) == row[name], name
        assert (saved.finding.threshold, saved.finding.false_accept) == (0.8, 0.05)
        assert saved.finding.run == run.name
        assert saved.model is not None
        assert saved.model.path == str(ROOT / "jobs/planted/model")
        assert saved.model.dtype == "float32"
        assert saved.model.digest == json.loads((run / "run.json").read_text())["model_digest"]
        assert f"**Verdict: {row['verdict']}.**" in (shell.folder / "out/it/README.md").read_text()


def test_a_run_is_exported_wherever_its_model_lies_by_now(run: Path, shell: Shell) -> None:
    text = (run / "job.yaml").read_text()
    moved = text.replace(str(ROOT / "jobs/planted/model"), "/elsewhere/model")
    assert moved != text
    info = json.loads((run / "run.json").read_text())
    copy = shell.folder / run.name
    copy.mkdir()
    (copy / "tables").symlink_to(run / "tables")
    (copy / "job.yaml").write_text(moved)
    (copy / "run.json").write_text(json.dumps(info))
    hypothesis = _rows(run, shell)[0]["hypothesis"]
    done = shell("export", str(copy), hypothesis, "--to", "it")
    assert done.returncode == 2
    assert "was edited since the run began" in done.stderr
    (copy / "run.json").write_text(json.dumps({**info, "job_digest": _digest(moved)}))
    assert shell("export", str(copy), hypothesis, "--to", "it").returncode == 0


def _digest(text: str) -> str:
    import yaml

    from raysearch.job import Job

    return Job.model_validate(yaml.safe_load(text)).digest()


def test_what_cannot_be_exported_is_one_line(run: Path, shell: Shell) -> None:
    for hypothesis, says in (("nosuch", "no hypothesis of run"), ("", "8 hypotheses begin so")):
        done = shell("export", str(run), hypothesis, "--to", "it")
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
        assert says in done.stderr
    assert not (shell.folder / "it").exists()
    hypothesis = _rows(run, shell)[0]["hypothesis"]
    assert shell("export", str(run), hypothesis).returncode == 2
    assert shell("export", str(run), hypothesis, "--to", "it", "--private").returncode == 2
    assert "there is no run" in shell("export", "nosuch", hypothesis, "--to", "it").stderr


def test_an_export_is_pushed_to_the_hub_that_the_environment_names(run: Path, shell: Shell) -> None:
    row = _rows(run, shell)[0]
    with serve() as hub:
        at = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(shell.folder / "hf"), "HF_HUB_DISABLE_XET": "1"}
        arguments = ("export", str(run), row["hypothesis"], "--to", "it", "--push-to-hub", "ann/it", "--private")
        done = shell(*arguments, **at, HF_TOKEN=TOKEN)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == f"it\nann/it@{hub.repositories['ann/it'].head}\n"
        assert hub.repositories["ann/it"].private
        refused = shell(*arguments, **at, HF_TOKEN=READER)
        assert (refused.returncode, len(refused.stderr.splitlines())) == (4, 1)
        assert "does not allow you to write it" in refused.stderr
