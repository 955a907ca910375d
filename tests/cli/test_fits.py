"""Searches that fit subspaces, by the command line: killed in the middle they go on to the same
tensors; controls stand beside."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import save_file

from raysearch import load_intervention
from raysearch.store.run_folder import find_run
from tests.cli.conftest import ROOT, Shell
from tests.edited import unended

pytestmark = pytest.mark.timeout(1200)  # whole searches, on machines that do other things too

LOCAL = ("--pool", "local", "--tracking-uri", "none", "--fail-on-error", "0.1")
JOB: dict[str, Any] = {
    "name": "fits",
    "model": {"path": str(ROOT / "jobs/planted/model")},
    "problem": {"use": "raysearch.problems.add_three"},
    "pairs": {"test": 60, "fit": 48, "holdout": 32},
    "space": {
        "variables": ["total", "c"],
        "layers": [1],
        "positions": ["c"],
        "subspaces": [
            "full",
            "mean_difference",
            {"das": [8]},
            {"boundless_rank": [4]},
            {"pca": [8]},
            {"random": [4]},
        ],
    },
    "fit": {
        "steps": 24,
        "batch": 8,
        "learning_rate": 0.01,
        "seeds": [0, 1],
        "rungs": [5],
        "evaluate": 4,
    },
    "controls": ["random_subspace", "random_model", "arbitrary_labels", "placebo"],
}


WARM: dict[str, Any] = {
    **JOB,
    "space": {**JOB["space"], "variables": ["total"], "subspaces": [{"das": [2, 8, 4]}]},
    "fit": {**JOB["fit"], "warm_start": True},
    "controls": [],
}


def _job(folder: Path, job: dict[str, Any] = JOB) -> str:
    path = folder / "fits.yaml"
    path.write_text(yaml.safe_dump(job))
    return str(path)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    done = Shell(folder)("run", _job(folder), *LOCAL)
    assert done.returncode == 0, done.stderr
    (folder / "said.txt").write_text(done.stderr + done.stdout)
    return find_run(folder / "runs", "latest").path


def _table(run: Path, name: str, *without: str) -> list[dict[str, Any]]:
    table = pa.concat_tables(
        pq.ParquetFile(p).read() for p in sorted((run / "tables" / name).glob("*.parquet"))
    )
    return sorted(table.drop_columns([*without]).to_pylist(), key=repr)


@pytest.mark.slow
def test_accepted_hypotheses_stand_beside_all_their_controls(undisturbed: Path) -> None:
    verdicts = {r["hypothesis"]: r for r in _table(undisturbed, "verdicts")}
    rows = [r | verdicts[r["hypothesis"]] for r in _table(undisturbed, "hypotheses")]
    real = [r for r in rows if r["control"] is None]
    assert len(real) == 2 * 6
    accepted = [r for r in real if r["verdict"] == "accept"]
    assert {r["featurizer"] for r in accepted} >= {"identity", "pca"}
    assert not [r["reason"] for r in real if r["verdict"] == "failed"]
    (of_c,) = [r for r in real if (r["variable"], r["featurizer"]) == ("c", "mean_difference")]
    assert of_c["n"] > 0  # c is no answer: its classes are the values that the problem knows
    assert all(r["self_swap_iia"] == 0 and r["random_source_iia"] < 0.5 for r in accepted)
    controls = [r for r in rows if r["control"] is not None]
    assert {r["control"] for r in controls} == {"random_subspace", "random_model", "placebo"}
    assert all(r["verdict"] == "reject" for r in controls)
    said = (undisturbed.parents[1] / "said.txt").read_text()
    assert "Controls (IIA)" in said
    assert "better than a control" not in said


@pytest.mark.slow
def test_each_accepted_hypothesis_is_a_child_run_of_mlflow_once(
    shell: Shell, tracking: str
) -> None:
    from mlflow import MlflowClient

    done = shell(
        "run",
        _job(shell.folder),
        "--pool",
        "local",
        "--tracking-uri",
        tracking,
        "-q",
        "--fail-on-error",
        "0.1",
    )
    assert done.returncode == 0, done.stderr
    run = find_run(shell.folder / "runs", "latest").path
    again = shell("resume", str(run), "--pool", "local", "-q", "--fail-on-error", "0.1")
    assert again.returncode == 0, again.stderr
    mlflow = MlflowClient(tracking)
    (experiment,) = [e for e in mlflow.search_experiments() if e.name == "raysearch/fits"]
    runs = mlflow.search_runs([experiment.experiment_id])
    children = {
        r.data.tags["raysearch.hypothesis"]: r for r in runs if "mlflow.parentRunId" in r.data.tags
    }
    accepted = {r["hypothesis"]: r for r in _table(run, "verdicts") if r["verdict"] == "accept"}
    assert len(runs) == 1 + len(children)
    assert children.keys() == accepted.keys()
    for name, child in children.items():
        assert child.data.metrics["iia"] == pytest.approx(accepted[name]["iia"])
        assert child.data.metrics["control/random_source"] == pytest.approx(
            accepted[name]["random_source_iia"]
        )
        files = [a.path for a in mlflow.list_artifacts(child.info.run_id)]
        assert files == ([f"{accepted[name]['fit']}.safetensors"] if accepted[name]["fit"] else [])


@pytest.mark.slow
def test_each_seed_ends_in_the_table_of_fits_and_what_was_fit_is_kept_by_its_digest(
    undisturbed: Path,
) -> None:
    ends = [r for r in _table(undisturbed, "fits") if r["status"] in ("done", "stopped", "dropped")]
    seeds = {(r["intervention"], r["seed"]) for r in ends}
    assert len(seeds) == len(ends)
    assert len([s for s in seeds if s[1] == 1]) >= 2 * 2
    kept = {p.stem for p in (undisturbed / "interventions").glob("*.safetensors")}
    assert {r["fit"] for r in ends} == kept
    looked = {r["step"] for r in _table(undisturbed, "fits") if r["status"] is None}
    assert looked == {5, 6, 12, 18, 24}
    tested = {r["fit"] for r in _table(undisturbed, "verdicts") if r["fit"]}
    assert tested <= kept


@pytest.mark.slow  # a whole job, killed
@pytest.mark.parametrize("after", [1, 4])
def test_a_driver_killed_in_the_middle_of_fits_resumes_to_the_same_tensors(
    undisturbed: Path, shell: Shell, after: int
) -> None:
    run = _killed(shell, after)
    done = shell("resume", str(run), "--pool", "local", "--fail-on-error", "0.1")
    assert done.returncode == 0, done.stderr
    assert _table(run, "fits") == _table(undisturbed, "fits")
    assert _table(run, "verdicts") == _table(undisturbed, "verdicts")
    volatile = ("worker", "attempt", "seconds", "device")
    assert _table(run, "observations", *volatile) == _table(undisturbed, "observations", *volatile)
    for kept in (undisturbed / "interventions").glob("*.safetensors"):
        assert (run / "interventions" / kept.name).read_bytes() == kept.read_bytes()


@pytest.mark.slow
def test_warm_starts_that_were_killed_resume_to_the_same_tensors(
    shell: Shell, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Killed once where the largest size has ended, 5 stretches of 2 seeds, and the next has begun
    within it."""
    folder = tmp_path_factory.mktemp("warm")
    whole = Shell(folder)("run", _job(folder, WARM), *LOCAL, "-q")
    assert whole.returncode == 0, whole.stderr
    undisturbed = find_run(folder / "runs", "latest").path
    sizes = {r["intervention"]: r["features"] for r in _table(undisturbed, "hypotheses")}
    ends = [r for r in _table(undisturbed, "fits") if r["status"] in ("done", "stopped", "dropped")]
    fits = {(sizes[r["intervention"]], r["seed"]): r["fit"] for r in ends}
    assert {(sizes[r["intervention"]], r["seed"]): r["start"] for r in ends} == {
        (size, seed): fits.get((2 * size, seed)) for size in (2, 4, 8) for seed in (0, 1)
    }
    run = _killed(shell, 11, WARM)
    done = shell("resume", str(run), "--pool", "local", "-q")
    assert done.returncode == 0, done.stderr
    assert _table(run, "fits") == _table(undisturbed, "fits")
    assert _table(run, "verdicts") == _table(undisturbed, "verdicts")
    for kept in (undisturbed / "interventions").glob("*.safetensors"):
        assert (run / "interventions" / kept.name).read_bytes() == kept.read_bytes()


def _killed(shell: Shell, after: int, job: dict[str, Any] = JOB) -> Path:
    """A run whose driver was killed once so many fits were journalled."""
    command = ("run", _job(shell.folder, job), *LOCAL, "-q")
    shell.killed(*command, once=lambda journal: journal.count(b'"type":"fitted"') >= after)
    run = find_run(shell.folder / "runs", "latest").path
    assert not list((run / "tables/verdicts").glob("*.parquet"))
    return run


@pytest.mark.slow
def test_fit_pairs_that_leave_nothing_to_validate_on_are_trained_on_all_the_same(
    shell: Shell,
) -> None:
    """Two pairs: none is held back, so there is no IIA to journal."""
    job = shell.folder / "two.yaml"
    space = {**JOB["space"], "subspaces": [{"das": [8]}]}
    job.write_text(
        yaml.safe_dump({**JOB, "space": space, "pairs": {**JOB["pairs"], "fit": 2}, "controls": []})
    )
    done = shell("run", str(job), *LOCAL, "-q")
    assert done.returncode == 0, done.stderr
    run = find_run(shell.folder / "runs", "latest").path
    course = [r for r in _table(run, "fits") if r["status"] is None]
    assert course
    assert all(r["validation_iia"] is None and r["loss"] is not None for r in course)
    assert len(_table(run, "verdicts")) == 2


@pytest.mark.slow
def test_a_fit_that_is_gone_from_the_run_folder_is_missed_in_one_line(
    undisturbed: Path, shell: Shell
) -> None:
    run = _killed(shell, 1)
    shutil.rmtree(run / "interventions")
    done = shell("resume", str(run), "--pool", "local", "--fail-on-error", "0.1")
    assert done.returncode == 2
    assert "and the journal says that it was fit; restore it from a copy" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow  # a whole job
def test_features_of_a_sparse_autoencoder_are_searched_by_the_digest_of_their_file(
    shell: Shell,
) -> None:
    """One that codes every coordinate by itself, twice (what is above zero, what is below), is the
    whole vector."""
    eye = torch.eye(64)
    tensors = {
        "W_enc": torch.cat((eye, -eye), 1),
        "b_enc": torch.zeros(128),
        "W_dec": torch.cat((eye, -eye)),
    }
    save_file({**tensors, "b_dec": torch.zeros(64)}, shell.folder / "layer_1.safetensors")
    chosen = [
        {"sae": {"path": "layer_{layer}.safetensors"}},
        {"sae": {"path": "layer_{layer}.safetensors", "features": [0]}},
    ]
    space = {**JOB["space"], "variables": ["c"], "subspaces": ["full", *chosen]}
    job = shell.folder / "sae.yaml"
    job.write_text(yaml.safe_dump({**JOB, "space": space, "controls": []}))
    done = shell("run", str(job), *LOCAL, "-q")
    assert done.returncode == 0, done.stderr
    run = find_run(shell.folder / "runs", "latest").path
    verdicts = {r["hypothesis"]: r for r in _table(run, "verdicts")}
    rows = [r | verdicts[r["hypothesis"]] for r in _table(run, "hypotheses")]
    by_features = {(r["featurizer"], r["features"]): r["verdict"] for r in rows}
    assert by_features == {
        ("identity", None): "accept",
        ("sae", None): "accept",
        ("sae", 1): "reject",
    }
    digest = hashlib.sha256((shell.folder / "layer_1.safetensors").read_bytes()).hexdigest()
    assert all(digest in r["units"] for r in rows if r["featurizer"] == "sae")
    accepted = next(
        r["hypothesis"] for r in rows if (r["featurizer"], r["features"]) == ("sae", None)
    )
    exported = shell("export", str(run), accepted, "--to", "exported")
    assert exported.returncode == 0, exported.stderr
    assert (
        load_intervention(shell.folder / "exported").intervention.units[0].subspace.file == digest
    )
    config = {
        "architecture": "standard",
        "apply_b_dec_to_input": False,
        "normalize_activations": "layer_norm",
    }
    (shell.folder / "cfg.json").write_text(json.dumps(config))
    refused = shell("run", str(job), *LOCAL, "-q")
    assert refused.returncode == 2
    assert (
        'cfg.json says normalize_activations: "layer_norm"; read is only "none"' in refused.stderr
    )
    unended(run)
    changed = shell("resume", str(run), "--pool", "local", "-q")
    assert changed.returncode == 2
    job.write_text(yaml.safe_dump({**JOB, "space": {**space, "layers": [2]}, "controls": []}))
    missing = shell("run", str(job), *LOCAL, "-q")
    assert missing.returncode == 2
    assert (
        "layer_2.safetensors cannot be read (No such file or directory); give a safetensors file"
        in missing.stderr
    )
