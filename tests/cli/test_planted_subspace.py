"""Planted truth: a search by the job file finds the subspace in which a variable was put, and no
other."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from raysearch.engine.featurizers.construction import from_bytes
from raysearch.store.run_folder import find_run
from tests.cli.conftest import ROOT, Shell

JOB = ROOT / "jobs" / "add_three_planted.yaml"
NARROWED = (
    "space.layers=[1]",
    "space.positions=[plus2, last]",
    "space.subspaces=[{das: [4, 8]}]",
    "fit.seeds=[0]",
    "fit.rungs=[]",
    "controls=[random_subspace, arbitrary_labels]",
)


@pytest.mark.slow
def test_the_planted_subspace_is_found_where_it_is_in_its_size_and_nowhere_else(
    shell: Shell,
) -> None:
    sets = [part for one in NARROWED for part in ("--set", one)]
    done = shell("run", str(JOB), "--pool", "local", "--tracking-uri", "none", *sets)
    assert done.returncode == 0, done.stderr
    rows = shell.json("results", "latest", "-o", "json", "--controls")
    real = {(r["position"], r["features"]): r for r in rows if r["control"] is None}
    found = real["plus2", 8]
    assert {site for site, r in real.items() if r["verdict"] == "accept"} == {("plus2", 8)}
    assert found["holdout_iia"] >= 0.97
    assert real["plus2", 4]["iia"] < 0.6
    assert all(r["verdict"] == "reject" for r in rows if r["control"] is not None)
    assert {r["control"] for r in rows} == {None, "random_subspace", "arbitrary_labels"}
    run = find_run(shell.folder / "runs", "latest").path
    trained = from_bytes(
        (run / "interventions" / f"{found['fit']}.safetensors").read_bytes()
    ).tensors()["directions"]
    assert _cosine(trained, _planted()) >= 0.95


def _planted() -> torch.Tensor:
    return load_file(Path(ROOT) / "jobs/models/add_three_planted/planted.safetensors")["directions"]


def _cosine(one: torch.Tensor, other: torch.Tensor) -> float:
    """The mean cosine of the principal angles between two subspaces, given by orthonormal columns."""
    return float(torch.linalg.svdvals(one.T @ other).mean())
