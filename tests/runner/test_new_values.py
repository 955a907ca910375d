"""`test.generalise: values` from a job file to a verdict: run whole, planned, and refused."""

import runpy
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from raysearch.errors import JobError
from raysearch.job import Job
from raysearch.runner.plans.plan import plan
from tests.runner.finished import ROOT, raysearch

NET = """
import torch
from torch import nn
from raysearch import CausalModel, Input, Problem, Variable
from raysearch.causal import Stimulus

ITEMS = 100


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Identity(), nn.Identity()])

    def forward(self, item):
        hidden = item.float().repeat(1, 2)
        for layer in self.layers:
            hidden = layer(hidden)
        return 10.0 * nn.functional.one_hot(hidden[:, 0].round().long(), ITEMS)


def network():
    return Net()


def problem(items=ITEMS, declared=True):
    values = tuple(range(items))
    x = Variable("x", values) if declared else Variable("x")
    model = CausalModel((x, Variable("y")), {"y": ("x",)}, {"y": lambda x: x}, "y")

    def sample(rng):
        a, b = rng.sample(values, 2)
        return {"x": a}, {"x": b}

    return Problem("items", model, sample, lambda v: Input(stimulus=Stimulus.of([float(v["x"])])), str, ())
"""
JOB: dict[str, Any] = {
    "name": "new",
    "model": {"path": "net.py:network"},
    "problem": {"use": "net.py:problem", "options": {}},
    "answer": {"compare": "class"},
    "pairs": {"test": 512, "fit": 0, "holdout": 64, "disjoint": ["x"]},
    "space": {
        "variables": ["x"],
        "layers": [0],
        "components": ["residual"],
        "positions": ["last"],
        "subspaces": [{"coordinates": {"from": i, "to": i}} for i in (0, 1)],
    },
    "test": {"generalise": "values"},
    "resources": {"replicas": 1},
}


def job_at(folder: Path, **rooms: dict[str, Any]) -> Path:
    (folder / "net.py").write_text(NET)
    job = {**JOB, **{room: {**JOB.get(room, {}), **keys} for room, keys in rooms.items()}}
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(job))
    return path


def test_a_run_is_about_new_values_and_all_follows_from_its_journal(tmp_path: Path) -> None:
    store = str(tmp_path / "runs")
    code, _, _ = raysearch(
        "run", str(job_at(tmp_path)), "--pool", "local", "--store", store, "--tracking-uri", "none"
    )
    assert code == 0
    (run,) = (p.parent for p in (tmp_path / "runs").glob("*/run.json"))
    files = sorted((run / "tables" / "verdicts").glob("*.parquet"))
    rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    assert {(r["verdict"], r["population"], r["population_size"]) for r in rows} == {
        ("accept", "new_values", None),
        ("reject", "new_values", None),
    }
    accepted = next(r for r in rows if r["verdict"] == "accept")
    assert accepted["n"] == accepted["matches"] > 4 * 20  # four matchings of some 25 pairs
    assert runpy.run_path(str(ROOT / "docs" / "check_run.py"))["check"](run) == ([], [])
    page = (run / "report.html").read_text()
    assert "any two new values of x, each as likely as any other" in page


@pytest.mark.slow
def test_a_plan_says_how_many_values_it_takes_and_refuses_a_job_that_can_accept_nothing(
    tmp_path: Path,
) -> None:
    """All match: with n disjoint pairs the wealth is (1 + b/4)^n, for the quarter that is bet whole
    (b = 1) and for the rest over all b; it is to reach K / 0.05. Of values it takes twice as many,
    of pairs four matchings."""
    wealth = lambda n: 1.25**n / 4 + 3 / 4 * (1.25 ** (n + 1) - 1) / (0.25 * (n + 1))  # noqa: E731
    least = next(n for n in range(1, 100) if wealth(n) >= 2 / 0.05)
    assert least == 21
    few = job_at(tmp_path, problem={"options": {"items": 40}})
    with pytest.raises(JobError, match=r"fewer than 42 values .* of x there are 34; give"):
        plan(Job.load(few))
    short = job_at(tmp_path, test={"max_pairs": 40})
    with pytest.raises(JobError, match=r"fewer than 84 pairs, 4 matchings of 42 values, .* 40;"):
        plan(Job.load(short))
    facts = plan(Job.load(job_at(tmp_path)))
    assert "any two new values of x" in facts.claim
    assert facts.powers[-1].accept == 1.0
    assert facts.powers[-1].pairs == 4 * least
    # None match: the spike at 0 (2/3) alone, 2/3 / 0.2^2, and the rest reach 1 / 0.05 at 2 pairs.
    assert facts.powers[0].pairs == 4 * 2


@pytest.mark.parametrize(
    ("rooms", "says"),
    [
        ({"pairs": {"disjoint": []}}, "pairs.disjoint names 0 variables"),
        ({"pairs": {"disjoint": ["x", "y"]}}, "pairs.disjoint names 2 variables"),
        ({"test": {"claim": "these_pairs"}}, "test.claim: these_pairs is about the pairs at hand"),
        ({"propose": {"use": "net.py:problem"}}, "may propose by verdicts"),
    ],
)
def test_a_claim_about_new_values_that_cannot_be_made_is_refused(
    rooms: dict[str, dict[str, Any]], says: str, tmp_path: Path
) -> None:
    with pytest.raises(JobError, match=says):
        plan(Job.load(job_at(tmp_path, **rooms)))
