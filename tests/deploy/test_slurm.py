"""`deploy render slurm` on a real Slurm of two nodes: a search over both, and one that is requeued
at its time limit.

Both jobs run at once and share a node, so they take the time of one.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from raysearch.store.run_folder import RunFolder
from tests.cli.conftest import QUICKSTART, ROOT, Shell
from tests.deploy.processes import missing, wait_until
from tests.deploy.slurm import PROGRAMS, Slurm, slurm

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(missing(*PROGRAMS)),
        reason=f"Slurm is not whole here (Debian: slurm-wlm, munge): no {missing(*PROGRAMS)}",
    ),
    pytest.mark.timeout(1500),
]

HANDCRAFTED = ROOT / "jobs" / "hierarchical_equality_handcrafted.yaml"

SLOW = f"""
import importlib.util
import time
from pathlib import Path

HURRY = Path(__file__).with_name("hurry")

def slow():
    "The network of {HANDCRAFTED.name}, in no hurry, so that a time limit can come in the middle of its search."
    spec = importlib.util.spec_from_file_location("networks", {str(HANDCRAFTED.parent / "models/hierarchical_equality.py")!r})
    networks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(networks)
    model = networks.handcrafted()
    model.score.register_forward_pre_hook(lambda *_: time.sleep(float(HURRY.read_text())))
    return model
"""

COLUMNS = (
    "hypothesis",
    "verdict",
    "n",
    "matches",
    "iia",
    "low",
    "high",
    "holdout_n",
    "holdout_iia",
    "keep_n",
    "keep_iia",
)


@dataclass(frozen=True)
class Done:
    """A job of Slurm that has come to its end."""

    facts: dict[str, str]
    log: str
    run: RunFolder
    results: list[dict[str, Any]]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    with slurm(tmp_path_factory.mktemp("logs")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def done(cluster: Slurm, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Done]:
    """The quickstart over two nodes, and the slow search, whose time limit is set when it has begun
    to search."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "slow.py").write_text(SLOW)
    _takes(folder, 0.08)
    shell = Shell(folder)
    few = (
        "--cpus",
        "2",
        "--set",
        "resources.gpus=0",
        "--set",
        "resources.cpus=1",
        "--tracking-uri",
        "none",
        "--time",
        "15",
    )
    quick = _submit(
        cluster, shell, QUICKSTART, *few, "--workers", "2", "--gpus", "1", "--set", "pairs.test=128"
    )
    slow_sets = (
        "--set",
        "model.path=slow.py:slow",
        "--set",
        "resources.rows=8",
        "--set",
        "resources.replicas=1",
    )
    job = folder / HANDCRAFTED.name
    job.write_text(HANDCRAFTED.read_text())
    slow = _submit(
        cluster, shell, job, *few, *slow_sets, "--workers", "1", "--gpus", "0", "--grace", "90"
    )
    wait_until(
        lambda: _measured(folder, slow) > 3 or _over(cluster, slow), 600, lambda: _logs(folder)
    )
    assert not _over(cluster, slow), _logs(folder)
    _takes(folder, 1.0)  # it cannot be through before its limit comes
    hours, minutes, _ = cluster.job(slow)["RunTime"].split(":")
    cluster.call(
        "scontrol", "update", f"JobId={slow}", f"TimeLimit={60 * int(hours) + int(minutes) + 2}"
    )
    wait_until(lambda: cluster.job(slow)["Restarts"] == "1", 300, lambda: _logs(folder))
    _takes(folder, 0.0)
    cluster.call("scontrol", "update", f"JobId={slow}", "TimeLimit=15")
    for number in (quick, slow):
        wait_until(lambda n=number: _over(cluster, n), 600, lambda: _logs(folder))
    return {"quick": _done(cluster, shell, quick), "slow": _done(cluster, shell, slow)}


def test_a_search_runs_over_the_nodes_of_an_allocation(done: dict[str, Done]) -> None:
    quick = done["quick"]
    assert quick.facts["JobState"] == "COMPLETED", quick.log
    assert "ray: 2 of 2 nodes" in quick.log
    accepted = {
        (r["variable"], r["layer"], r["position"])
        for r in quick.results
        if r["verdict"] == "accept"
    }
    assert accepted == {
        ("a", 0, "a"), ("b", 0, "b"), ("c", 0, "c"), ("c", 1, "c"), ("sum_ab", 1, "plus2"), ("total", 2, "last"), ("total", 3, "last")
    }  # fmt: skip
    assert len(quick.results) == 120


def test_at_its_time_limit_a_search_is_requeued_and_comes_to_the_same_verdicts(
    done: dict[str, Done], shell: Shell
) -> None:
    slow = done["slow"]
    assert slow.facts["JobState"] == "COMPLETED", slow.log
    assert slow.facts["Restarts"] == "1"
    assert "the time limit is near" in slow.log
    drivers = sorted(p.name for p in (slow.run.path / "journal").iterdir())
    assert len(drivers) == 2, "one run, which a second driver has gone on with"
    assert (
        shell("run", str(HANDCRAFTED), "--pool", "local", "--tracking-uri", "none", "-q").returncode
        == 0
    )
    undisturbed = shell.json("results", "latest", "-o", "json")
    assert _rows(slow.results) == _rows(undisturbed)


def test_a_node_of_an_allocation_asks_for_the_token_and_shows_it_to_nobody(
    done: dict[str, Done],
) -> None:
    for job in done.values():
        assert not re.search(r"\b[0-9a-f]{64}\b", job.log), (
            "the token, or what looks like it, is in the log"
        )


def test_nothing_is_left_behind_on_the_nodes(done: dict[str, Done]) -> None:
    for job in done.values():
        assert not Path(f"/tmp/ray-{job.facts['JobId']}").exists()


def _submit(cluster: Slurm, shell: Shell, job: Path, *flags: str) -> str:
    at = shell("deploy", "render", "slurm", str(job), *flags, "--to", job.stem)
    assert at.returncode == 0, at.stderr
    clean = {
        k: v for k, v in cluster.environment.items() if not k.startswith(("RAYSEARCH_", "RAY_"))
    }
    path = f"{Path(sys.executable).parent}:{clean['PATH']}"
    clean |= {"PATH": path, "TMPDIR": "/tmp", "RAYSEARCH_CACHE": "off"}
    done = subprocess.run(
        ["sbatch", "--parsable", at.stdout.strip()], cwd=shell.folder, env=clean,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _takes(folder: Path, seconds: float) -> None:
    """How long a forward pass of the slow network takes from now on."""
    (folder / "next").write_text(str(seconds))
    (folder / "next").replace(folder / "hurry")


def _over(cluster: Slurm, number: str) -> bool:
    return cluster.job(number)["JobState"] in ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED")


def _measured(folder: Path, number: str) -> int:
    files = folder.glob(f"runs/slurm-{number}/*/journal/*/*.jsonl")
    return sum(
        line.count('"type":"measured"') for f in files for line in f.read_text().splitlines()
    )


def _logs(folder: Path) -> str:
    return "\n".join(f"{p.name}:\n{p.read_text()}" for p in folder.glob("*.log"))


def _done(cluster: Slurm, shell: Shell, number: str) -> Done:
    facts = cluster.job(number)
    log = Path(facts["StdOut"]).read_text()
    (path,) = shell.folder.glob(f"runs/slurm-{number}/*/run.json")
    return Done(
        facts,
        log,
        RunFolder.open(path.parent),
        json.loads(shell("results", str(path.parent), "-o", "json").stdout),
    )


def _rows(results: list[dict[str, Any]]) -> list[list[Any]]:
    return sorted([r[c] for c in COLUMNS] for r in results)
