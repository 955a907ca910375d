"""A finished run of a small real search, made once for those tests that damage copies of it."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from raysearch.cli.main import cli
from raysearch.errors import RaysearchError
from raysearch.store.ledger import RunLedger

ROOT = Path(__file__).parents[2]
JOB: dict[str, Any] = {
    "name": "small",
    "model": {"path": str(ROOT / "jobs/planted/model")},
    "problem": {"use": "raysearch.problems.add_three"},
    "pairs": {"test": 32, "holdout": 16},
    "space": {"variables": ["total", "c"], "layers": [0, 3], "positions": ["c", "last"]},
    "test": {"max_pairs": 32},
}
PROPOSER = """
from pathlib import Path

Path(__file__).with_name("ran").write_text("yes")


class Proposer:
    max_hypotheses = None

    def __init__(self, space):
        self.space = space

    def propose(self, known):
        return list(self.space)[known.generations * 4 : known.generations * 4 + 4]
"""


def raysearch(*arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command, run in this process; an error of ours is its one
    line, as in a shell."""
    result: Result = CliRunner().invoke(cli, arguments, standalone_mode=False)
    if isinstance(result.exception, RaysearchError):
        return (
            result.exception.exit_code,
            result.stdout,
            f"{result.stderr}raysearch: {result.exception}\n",
        )
    if result.exception is not None:
        raise result.exception
    return int(result.return_value or 0), result.stdout, result.stderr


def make(folder: Path, job: dict[str, Any] = JOB, rows: int = 3) -> Path:
    """The folder of a run of a job, driven to its end in this process; a part of a table for each
    few rows."""
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(job))
    with pytest.MonkeyPatch.context() as patch:
        mirror, clock, _, *others = RunLedger.__init__.__defaults__ or ()
        patch.setattr(RunLedger.__init__, "__defaults__", (mirror, clock, rows, *others))
        patch.chdir(folder)
        code, _, said = raysearch(
            "run", str(path), "--pool", "local", "--tracking-uri", "none", "--quiet"
        )
    assert code == 0, said
    (run,) = (folder / "runs").iterdir()
    return run


def files(run: Path, but: Sequence[str] = ()) -> dict[str, bytes]:
    """The content of every file of a run, by its path."""
    found = {
        p.relative_to(run).as_posix(): p.read_bytes() for p in sorted(run.rglob("*")) if p.is_file()
    }
    return {
        name: content
        for name, content in found.items()
        if not name.startswith(tuple(but) or os.sep)
    }
