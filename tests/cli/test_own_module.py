"""A network of one's own without a list of blocks, from plan to export: what belongs to no layer is
shown at none."""

import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient
from PIL import Image

import raysearch
from raysearch.report.results_table import results
from raysearch.store.run_folder import find_run
from raysearch.tracking.mlflow_names import as_word
from tests.cli.conftest import Shell
from tests.command import DRAWN
from tests.once import Once

NET = '''
"""(a + b) mod 5, by hand: the first stage has one number for each (a, b), the second one for each sum."""
import numpy as np
import torch
from torch import nn
from raysearch import CausalModel, Input, Problem, Variable


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.table, self.sum, self.readout = nn.Linear(10, 10), nn.Linear(10, 25), nn.Linear(25, 5), nn.Linear(5, 5)

    def forward(self, x):
        return self.readout(self.sum(torch.relu(self.table(self.embed(x)))))


def network():
    net = Net()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
        net.embed.weight.copy_(torch.eye(10))
        net.readout.weight.copy_(9 * torch.eye(5))
        net.table.bias.fill_(-1.0)
        for a in range(5):
            for b in range(5):
                net.table.weight[5 * a + b, a] = net.table.weight[5 * a + b, 5 + b] = 1.0
                net.sum.weight[(a + b) % 5, 5 * a + b] = 1.0
    return net


def one_hot(v):
    return torch.tensor([float(i in (v["a"], 5 + v["b"])) for i in range(10)])


model = CausalModel(
    variables=tuple(Variable(n, tuple(range(5))) for n in ("a", "b", "sum")),
    parents={"sum": ("a", "b")},
    mechanisms={"sum": lambda a, b: (a + b) % 5},
    output="sum",
)
sample = lambda rng: tuple({n: rng.randrange(5) for n in "ab"} for _ in range(2))
problem = Problem("own", model, sample, lambda v: Input(stimulus=one_hot(v), values=v), str, ())
arrays = Problem("own", model, sample, lambda v: Input(stimulus=one_hot(v).double().numpy(), values=v), str, ())
lists = Problem("own", model, sample, lambda v: Input(stimulus=tuple(one_hot(v).tolist()), values=v), str, ())
'''
JOB = """
name: own
model: {path: "net.py:network"}
problem: {use: "net.py:problem"}
answer: {compare: class}
pairs: {test: 100, fit: 60, holdout: 32}
space:
  components: [embed, table.input, sum.output, sum.input]
  subspaces: [full, {coordinates: {from: 0, to: 4}}, {das: [5]}]
  variables: [a, sum]
  units: [[{component: embed, position: last, subspace: {coordinates: [0]}}, {component: sum.output, position: last}]]
fit: {steps: 20, learning_rate: 1.0e-2}
test: {max_pairs: 100}
"""
SETS = ("--set", "space.subspaces=[full,{coordinates:{from: 0,to: 4}}]")


def written(folder: Path) -> Path:
    (folder / "net.py").write_text(NET)
    (folder / "job.yaml").write_text(JOB)
    return folder / "job.yaml"


@pytest.fixture(scope="module")
def own(once: Once, migrated_db: Path) -> Path:
    """Searched once; a folder with the job, its runs and its MLflow store."""

    def search(folder: Path) -> None:
        (folder / "mlflow.db").write_bytes(migrated_db.read_bytes())
        job = written(folder)
        uri = f"sqlite:///{folder / 'mlflow.db'}"
        done = Shell(folder)("run", str(job), "--pool", "local", "--tracking-uri", uri, **DRAWN)
        assert done.returncode == 0, done.stderr
        (folder / "said").write_text(done.stdout + done.stderr)

    return once("own_module", search)


def test_a_plan_names_components_and_no_layer(shell: Shell) -> None:
    done = shell("plan", str(written(shell.folder)))
    assert done.returncode == 0, done.stderr
    assert "no layers" in done.stdout
    assert "layer 0" not in done.stdout
    for component in ("embed.output", "table.input", "sum.output"):
        assert f"{component} at last, 3 subspaces each" in done.stdout


def test_each_way_to_give_a_tensor_is_the_same_question(shell: Shell) -> None:
    job = written(shell.folder)
    plans = [
        shell.json("plan", str(job), "-o", "json", "--set", f"problem.use=net.py:{p}")
        for p in ("arrays", "lists")
    ]
    assert plans[0] == plans[1]


@pytest.mark.slow  # a whole job
def test_what_is_found_is_where_it_was_put_and_at_no_layer(own: Path) -> None:
    rows = results(find_run(own / "runs", "latest").folder).to_pylist()
    assert {row["layer"] for row in rows} == {None}
    assert {u["site"]["layer"] for row in rows for u in json.loads(row["units"])} == {None}
    plain = {
        (r["variable"], r["component"], r["features"])
        for r in rows
        if r["verdict"] == "accept" and r["featurizer"] == "identity"
    }
    assert {
        ("a", "embed.output", 5),
        ("a", "table.input", 5),
        ("sum", "sum.output", None),
        ("sum", "sum.output", 5),
    } <= plain
    assert ("a", "sum.output", None) not in plain
    assert any(row["featurizer"] == "das" and row["verdict"] == "accept" for row in rows)
    (tables,) = own.glob("runs/*/tables/hypotheses")
    assert {
        layer for part in tables.iterdir() for layer in pq.read_table(part)["layer"].to_pylist()
    } == {None}


@pytest.mark.slow
def test_the_page_the_maps_and_the_tables_show_no_layer(own: Path) -> None:
    said = (own / "said").read_text()
    assert re.search(r"a\s+embed.output\s+last", said)
    shell = Shell(own)
    said = shell("results", "latest").stdout
    assert re.search(r"[0-9a-f]{6}\s+sum.output\s+last", said)
    assert "layer" not in said.splitlines()[1]
    (run,) = (own / "runs").iterdir()
    page = (run / "report.html").read_text()
    assert "embed.output at last" in page
    assert not re.search(r"\b0: (embed|table|sum)", page)
    assert "over several layers are in the tables" not in page
    for picture in (run / "heatmaps").glob("*.png"):
        with Image.open(picture) as opened:
            opened.verify()
    assert len(list((run / "heatmaps").glob("*.png"))) >= 2


@pytest.mark.slow  # a whole run
def test_the_mirror_names_the_component_where_there_is_no_layer(own: Path) -> None:
    client = MlflowClient(tracking_uri=f"sqlite:///{own / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("raysearch/own")
    assert experiment is not None
    (run, *children) = sorted(
        client.search_runs([experiment.experiment_id]),
        key=lambda r: "mlflow.parentRunId" in r.data.tags,
    )
    best = {name: value for name, value in run.data.metrics.items() if name.startswith("best_iia/")}
    word = as_word(
        "sum.output"
    )  # a dot is not MLflow's: a digest of the name keeps sum.output and sum_output apart
    assert re.fullmatch(r"sum_output-[0-9a-f]{8}", word)
    assert best[f"best_iia/sum/{word}"] == 1.0
    assert not [name for name in best if "layer" in name]
    assert children
    assert not [child for child in children if "layer" in child.data.params]


@pytest.mark.slow
def test_what_is_exported_is_of_no_layer_and_comes_back(own: Path, tmp_path: Path) -> None:
    rows = results(find_run(own / "runs", "latest").folder, accepted=True).to_pylist()
    for featurizer in ("identity", "das"):
        row = next(r for r in rows if r["featurizer"] == featurizer and r["variable"] == "sum")
        to = tmp_path / featurizer
        done = Shell(own)("export", "latest", row["hypothesis"], "--to", str(to))
        assert done.returncode == 0, done.stderr
        saved = raysearch.load_intervention(str(to))
        assert saved.intervention.id == row["intervention"]
        assert saved.intervention.units[0].site.layer is None
        assert "layer 0" not in (to / "README.md").read_text()


@pytest.mark.parametrize(
    ("sets", "match"),
    [
        (["space.components=[embed,embed.output]"], "components names 'embed.output' twice"),
        (
            ["space.components=[residual]"],
            "no layers, which residual is of: .*: embed.output, table.output, sum.output, "
            "readout.output",
        ),
        (["space.components=[resdual]"], "did you mean 'residual'"),
        (
            ["space.components=[embd]"],
            "no module 'embd', .*the model has embed, table, sum, readout",
        ),
        (
            ["space.components=[embed]", "space.positions=[token_1]"],
            "token 1, and Net has 1 \\(from 0\\)",
        ),
        (
            ["space.units=[[{component: embed, layer: 3, position: last}]]"],
            "3 is no layer of embed.output, which .* has once; leave layer out",
        ),
        (
            ["space.units=[[{component: residual, position: last}]]"],
            "layer is missing; a unit of residual needs it",
        ),
        (
            ["space.subspaces=[{coordinates: [10]}]", "space.components=[embed]"],
            "10 is no coordinate of embed.output in net.py:network; it has 0..9",
        ),
    ],
)
def test_a_mistake_is_told_in_one_line_with_what_there_is(
    sets: list[str], match: str, shell: Shell
) -> None:
    flags = [flag for one in sets for flag in ("--set", one)]
    done = shell("plan", str(written(shell.folder)), *flags)
    assert done.returncode == 2
    (told,) = [line for line in done.stderr.splitlines() if not line.startswith("runs code of")]
    assert re.search(match, told), told
