"""`raysearch export`: a hypothesis of a run as a folder, and on the hub."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
import yaml

import raysearch as rs
from raysearch import Model, load_intervention, load_mib
from raysearch.engine.featurizers.construction import to_bytes
from raysearch.report.results_table import results
from raysearch.runner.exports.export import export
from raysearch.store.run_folder import find_run
from tests.cli.conftest import QUICKSTART, ROOT, Shell
from tests.edited import edit_info
from tests.interventions.hub_stand_in import READER, TOKEN, serve


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small search, done once; its run folder."""
    folder = tmp_path_factory.mktemp("exported")
    sets = (
        "--set",
        "space.variables=[total]",
        "--set",
        "space.positions=[c, last]",
        "--set",
        "pairs.test=64",
    )
    done = Shell(folder)(
        "run", str(QUICKSTART), "--pool", "local", "--tracking-uri", "none", "-q", *sets
    )
    assert done.returncode == 0, done.stderr
    return find_run(folder / "runs", "latest").path


def _rows(run: Path, shell: Shell) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = shell.json("results", str(run), "-o", "json")
    return rows


@pytest.mark.slow
def test_an_exported_hypothesis_is_the_one_of_the_run_with_its_figures(
    run: Path, shell: Shell
) -> None:
    rows = _rows(run, shell)
    for row in (rows[0], rows[-1]):
        flags = ("--to", "out/it", *(("--force",) if row is rows[-1] else ()))
        done = shell("export", str(run), row["hypothesis"][:12], *flags)
        assert (done.returncode, done.stdout) == (0, "out/it\n"), done.stderr
        saved = load_intervention(shell.folder / "out/it")
        assert saved.intervention.id == row["intervention"]
        (unit,) = saved.intervention.units
        assert (unit.site.layer, unit.site.position, saved.variable) == (
            row["layer"],
            row["position"],
            "total",
        )
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


@pytest.mark.slow
def test_of_a_hub_id_the_commit_that_was_loaded_goes_from_the_run_to_what_is_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    kept = tmp_path / "cache" / "models--ann--planted"
    shutil.copytree(ROOT / "jobs/planted/model", kept / "snapshots" / commit)
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    sets = [
        "model.path=ann/planted",
        "space.variables=[total]",
        "space.layers=[3]",
        "pairs={test: 48, holdout: 8}",
    ]
    rs.run(rs.Job.load(QUICKSTART, sets), store=tmp_path / "runs", quiet=True)
    run = find_run(tmp_path / "runs", "latest")
    (row,) = results(run.folder, accepted=True).to_pylist()
    saved = export(run, row["hypothesis"], tmp_path / "out")
    assert saved.model is not None
    assert (saved.model.path, saved.model.revision) == ("ann/planted", commit)
    assert f"revision `{commit}`" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.slow
def test_a_run_is_exported_wherever_its_model_lies_by_now(run: Path, shell: Shell) -> None:
    text = (run / "job.yaml").read_text()
    moved = text.replace(str(ROOT / "jobs/planted/model"), "/elsewhere/model")
    assert moved != text
    copy = shell.folder / run.name
    shutil.copytree(run, copy)
    (copy / "job.yaml").write_text(moved)
    hypothesis = _rows(run, shell)[0]["hypothesis"]
    done = shell("export", str(copy), hypothesis, "--to", "it")
    assert done.returncode == 2
    assert "was edited since the run began" in done.stderr
    edit_info(
        copy, job_digest=_digest(moved), job_sha256=hashlib.sha256(moved.encode()).hexdigest()
    )
    assert shell("export", str(copy), hypothesis, "--to", "it").returncode == 0


def _digest(text: str) -> str:
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


@pytest.mark.slow
def test_an_export_is_pushed_to_the_hub_that_the_environment_names(run: Path, shell: Shell) -> None:
    row = _rows(run, shell)[0]
    with serve() as hub:
        at = {
            "HF_ENDPOINT": hub.endpoint,
            "HF_HOME": str(shell.folder / "hf"),
            "HF_HUB_DISABLE_XET": "1",
        }
        arguments = (
            "export",
            str(run),
            row["hypothesis"],
            "--to",
            "it",
            "--push-to-hub",
            "ann/it",
            "--private",
        )
        done = shell(*arguments, **at, HF_TOKEN=TOKEN)
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"it\nann/it@{hub.repositories['ann/it'].head}\n"
        assert hub.repositories["ann/it"].private
        refused = shell(*arguments, "--force", **at, HF_TOKEN=READER)
        assert (refused.returncode, len(refused.stderr.splitlines())) == (4, 1)
        assert "does not allow you to write it" in refused.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small search that fits subspaces, done once; its run folder."""
    folder = tmp_path_factory.mktemp("trained")
    job = {
        "name": "trained",
        "model": {"path": str(ROOT / "jobs/planted/model")},
        "problem": {"use": "raysearch.problems.add_three"},
        "pairs": {"test": 60, "fit": 32, "holdout": 32},
        "space": {
            "variables": ["c"],
            "layers": [1],
            "positions": ["c", "last"],
            "subspaces": [
                "full",
                {"svd": [8]},
                {"pca": [8]},
                {"das": [4]},
                {"random": [4]},
                {"coordinates": [0, 3]},
            ],
        },
        "fit": {"steps": 4, "batch": 8},
    }
    (folder / "trained.yaml").write_text(yaml.safe_dump(job))
    done = Shell(folder)("run", "trained.yaml", "--pool", "local", "--tracking-uri", "none", "-q")
    assert done.returncode == 0, done.stderr
    return find_run(folder / "runs", "latest").path


def _one(rows: list[dict[str, Any]], **wanted: Any) -> dict[str, Any]:
    (row,) = [r for r in rows if all(r[k] == v for k, v in wanted.items())]
    return row


@pytest.mark.slow  # a whole job
def test_a_fitted_subspace_is_exported_as_the_run_kept_it_and_swaps_in_a_notebook(
    trained: Path, shell: Shell
) -> None:
    rows = _rows(trained, shell)
    model = Model.load(str(ROOT / "jobs/planted/model"))
    for name in ("svd", "pca", "das"):
        row = _one(rows, featurizer=name, position="c")
        done = shell("export", str(trained), row["hypothesis"], "--to", name)
        assert done.returncode == 0, done.stderr
        saved = load_intervention(shell.folder / name)
        assert saved.intervention.id == row["intervention"]
        assert (saved.variable, saved.intervention.variable, saved.intervention.fit) == (
            "c",
            "c",
            row["fit"],
        )
        featurizer = saved.featurizer
        assert featurizer is not None
        assert hashlib.sha256(to_bytes(featurizer)).hexdigest() == row["fit"]
        if row["verdict"] == "accept":
            swap = model.swap("3+5+4=", "3+5+1=", saved, position="4", source_position="1")
            assert (swap.answers.base, swap.answers.source, swap.token) == ("12", "9", "9")


@pytest.mark.slow
def test_a_random_subspace_is_exported_as_the_replicas_drew_it(trained: Path, shell: Shell) -> None:
    from raysearch.engine.patching.operations import Featurized
    from raysearch.engine.patching.subspace_operations import Featurizers

    row = _one(_rows(trained, shell), featurizer="random", position="last")
    done = shell("export", str(trained), row["hypothesis"], "--to", "it")
    assert done.returncode == 0, done.stderr
    saved = load_intervention(shell.folder / "it")
    kind = Featurizers(torch.device("cpu")).kind_of(
        saved.intervention, saved.intervention.units[0], 64
    )
    assert isinstance(kind, Featurized)
    assert torch.equal(saved.tensors["directions"], kind.featurizer.tensors()["directions"])


@pytest.mark.slow
def test_a_fit_that_is_gone_or_was_changed_is_not_exported(trained: Path, shell: Shell) -> None:
    row = _one(_rows(trained, shell), featurizer="das", position="c")
    copy = shell.folder / trained.name
    shutil.copytree(trained, copy, ignore=shutil.ignore_patterns("interventions"))
    done = shell("export", str(copy), row["hypothesis"], "--to", "it")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "restore it from a copy" in done.stderr
    (copy / "interventions").mkdir()
    (copy / "interventions" / f"{row['fit']}.safetensors").write_bytes(b"another")
    assert (
        "is not what was written"
        in shell("export", str(copy), row["hypothesis"], "--to", "it").stderr
    )
    assert not (shell.folder / "it").exists()


def test_an_alignment_is_a_submission_of_mib_and_back(trained: Path, shell: Shell) -> None:
    rows = _rows(trained, shell)
    accepted = [r for r in rows if r["verdict"] == "accept"]
    assert {r["featurizer"] for r in accepted} >= {"identity", "svd", "pca"}
    done = shell("export", str(trained), "--format", "mib", "--to", "sub")
    assert done.returncode == 0, done.stderr
    unit = "add_three_model_c/ResidualStream(Layer-1,Token-c)"
    assert done.stdout == f"sub/{unit}\n"
    *left_out, last = done.stderr.splitlines()
    assert last.endswith("; go on with: raysearch import sub --to sub-read")
    assert len(left_out) == len(accepted) - 1
    assert all(line.startswith("raysearch: left out: ") for line in left_out)
    (read,) = load_mib(shell.folder / "sub")
    best = _one(rows, featurizer="svd", position="c")
    kept = trained / "interventions" / f"{best['fit']}.safetensors"
    from raysearch.engine.featurizers.construction import from_bytes

    theirs, ours = read.featurizer, from_bytes(kept.read_bytes())
    assert theirs is not None
    base, source = torch.randn(5, 64), torch.randn(5, 64)
    assert torch.allclose(
        theirs.interchange(base, source), ours.interchange(base, source), atol=1e-6
    )
    done = shell("import", "sub", "--to", "back")
    assert (done.returncode, done.stdout) == (0, f"back/{unit}\n"), done.stderr
    back = load_intervention(shell.folder / "back" / unit)
    assert back.intervention == read.intervention
    assert torch.equal(back.tensors["directions"], read.tensors["directions"])


def test_one_hypothesis_becomes_a_submission_under_the_names_that_are_given(
    trained: Path, shell: Shell
) -> None:
    rows = _rows(trained, shell)
    names = ("--format", "mib", "--task", "arithmetic", "--model-name", "LlamaForCausalLM")
    for wanted, name in (({"features": 2}, "identity"), ({}, "das")):
        row = (
            _one(rows, position="last", featurizer=name, **wanted)
            if wanted
            else _one(rows, position="last", featurizer=name)
        )
        done = shell("export", str(trained), row["hypothesis"], "--to", name, *names)
        assert done.returncode == 0, done.stderr
        assert (
            done.stdout
            == f"{name}/arithmetic_LlamaForCausalLM_c/ResidualStream(Layer-1,Token-last_token)\n"
        )
        (shell.folder / name / "raysearch.json").unlink()
        (read,) = load_mib(shell.folder / name)
        assert read.intervention.units[0].site.position == "last"
        assert read.tensors["directions"].shape == (64, row["features"])
    row = _one(rows, featurizer="pca", position="last")
    done = shell("export", str(trained), row["hypothesis"], "--to", "none", *names)
    assert done.returncode == 2
    assert "standardised" in done.stderr
    assert "none of 1 hypotheses can be written" in done.stderr


def test_a_hypothesis_is_exported_for_pyvene_or_refused_in_one_line(
    trained: Path, shell: Shell
) -> None:
    rows = _rows(trained, shell)
    done = shell(
        "export",
        str(trained),
        _one(rows, featurizer="svd", position="c")["hypothesis"],
        "--format",
        "pyvene",
        "--to",
        "pv",
    )
    assert (done.returncode, done.stdout) == (0, "pv\n"), done.stderr
    key = "layer_1_comp_block_output_unit_pos_nunit_1#0"
    assert {p.name for p in (shell.folder / "pv").iterdir()} == {"config.json", f"intkey_{key}.bin"}
    assert json.loads((shell.folder / "pv/config.json").read_text())["sorted_keys"] == [key]
    done = shell(
        "export",
        str(trained),
        _one(rows, featurizer="pca", position="c")["hypothesis"],
        "--format",
        "pyvene",
        "--to",
        "no",
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "standardised" in done.stderr


def test_flags_that_do_not_go_together_are_usage_errors(trained: Path, shell: Shell) -> None:
    for arguments in (
        ("export", str(trained), "--to", "it"),
        ("export", str(trained), "a", "--to", "it", "--task", "t"),
        ("export", str(trained), "--format", "mib", "--to", "it", "--push-to-hub", "ann/it"),
    ):
        assert shell(*arguments).returncode == 2
    done = shell("import", "nowhere", "--to", "it")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "there is no such folder" in done.stderr
