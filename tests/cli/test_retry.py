"""`resume --retry-failed` on a network that really breaks while a file lies beside it, and is
mended."""

import shlex
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

import raysearch as rs
from raysearch.cli.main import cli
from raysearch.report.results_table import results
from raysearch.storage.parquet import from_parquet
from raysearch.store.run_folder import RunFolder, find_run
from tests.cli.conftest import ROOT, Shell

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]
LOCAL = ("--pool", "local", "--tracking-uri", "none", "-q")
VOLATILE = ("worker", "attempt", "seconds", "device")
FLAKY = """

class Wire(nn.Sequential):
    "A block that gives out after so many calls as the file `broken` beside it says, while that is there."
    calls = 0

    def forward(self, numbers):
        broken = Path(__file__).with_name("broken")
        Wire.calls += 1
        if broken.exists() and Wire.calls > int(broken.read_text()):
            raise RuntimeError("the wire is broken")
        return super().forward(numbers)

def flaky():
    model = handcrafted()
    model.layers[1] = Wire(*model.layers[1])
    return model
"""
CALLS = 100
"""Fewer than the search needs: some hypotheses are decided by then, others have seen some blocks. The
self-check counts, so that nothing of it may be remembered (RAYSEARCH_CACHE)."""


def _job(folder: Path) -> Path:
    (folder / "flaky.py").write_text(
        (ROOT / "jobs/models/hierarchical_equality.py").read_text() + FLAKY
    )
    raw = yaml.safe_load((ROOT / "jobs/hierarchical_equality_handcrafted.yaml").read_text())
    raw["model"]["path"] = "flaky.py:flaky"
    raw["pairs"] = {"test": 96, "holdout": 32}
    raw["test"]["max_pairs"] = 96
    raw["resources"]["rows"] = 16
    (folder / "flaky.yaml").write_text(yaml.safe_dump(raw))
    return folder / "flaky.yaml"


def _tables(run: RunFolder, *names: str) -> dict[str, list[str]]:
    """All rows of every Parquet file there is."""
    return {
        name: sorted(
            str({k: v for k, v in row.items() if k not in VOLATILE})
            for part in run.tables.at(name).names()
            for row in from_parquet(run.tables.at(name).read(part)).to_pylist()
        )
        for name in names
    }


def test_what_a_broken_network_failed_is_tried_again_when_it_is_mended_and_a_killed_retry_resumed(
    shell: Shell,
) -> None:
    job = _job(shell.folder)
    (shell.folder / "broken").write_text(str(CALLS))
    done = shell("run", str(job), *LOCAL, RAYSEARCH_CACHE="off")
    assert done.returncode == 3, done.stderr
    run = find_run(shell.folder / "runs", "latest")
    hint = f"resume {shlex.quote(run.place)} --retry-failed --pool local"
    assert f"when that is mended: raysearch {hint}\n" in done.stderr
    before = results(run.folder).to_pylist()
    assert {"failed", "accept", "reject"} <= {r["verdict"] for r in before}
    assert any(r["n"] for r in before if r["verdict"] == "failed")
    assert any(r["self_swap_iia"] is None for r in before if r["verdict"] == "accept"), (
        "a reading broke off, too"
    )
    failures = _tables(run, "failures")
    (shell.folder / "broken").unlink()
    shell.killed(*shlex.split(hint), once=lambda journal: b'"type":"retried"' in journal)
    store = shell.folder / "undisturbed"
    rs.resume(run.place, quiet=True)
    rs.run(job, store=store, quiet=True)
    undisturbed = find_run(store, "latest")
    names = ("hypotheses", "observations", "verdicts", "sets", "fits")
    assert _tables(run, *names) == _tables(undisturbed, *names)
    assert _tables(run, "failures") == failures != _tables(undisturbed, "failures")
    journal = run.journal.folders()
    said = CliRunner().invoke(cli, shlex.split(hint))
    assert said.exit_code == 0
    assert said.stderr.startswith(
        f"raysearch: run {run.info.id} is done and nothing in it failed: there is nothing to try "
        f"again\n"
    )
    assert run.journal.folders() == journal
