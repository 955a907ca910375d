"""The command line as a user calls it: a process of its own, in a folder of its own."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / "jobs" / "quickstart.yaml"


@dataclass(frozen=True)
class Shell:
    """Calls `raysearch` in `folder`."""

    folder: Path

    def __call__(self, *arguments: str, seconds: float = 120, **environment: str) -> subprocess.CompletedProcess[str]:
        clean = {
            k: v
            for k, v in os.environ.items()
            if not k.startswith(("RAYSEARCH_", "RAY_")) or k == "RAY_worker_niceness"
        }
        return subprocess.run(
            [*self.command, *arguments],
            cwd=self.folder,
            env={**clean, **environment},
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    @property
    def command(self) -> list[str]:
        return [str(Path(sys.executable).with_name("raysearch"))]

    def json(self, *arguments: str) -> Any:
        """What a command prints as JSON on stdout."""
        done = self(*arguments)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)
