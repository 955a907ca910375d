"""The command line as a user calls it: a process of its own, in a folder of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / "jobs" / "quickstart.yaml"
NICENESS = "RAY_worker_niceness"


def environment(**more: str) -> dict[str, str]:
    """Of a command: ours, without what raysearch or Ray would go by; but how Ray's workers share the cores is told (tests/conftest.py)."""
    ours = {k: v for k, v in os.environ.items() if not k.startswith(("RAYSEARCH_", "RAY_")) or k == NICENESS}
    return {**ours, **more}


@dataclass(frozen=True)
class Shell:
    """Calls `raysearch` in `folder`. How long is too long is for pytest-timeout to say: the machine may be busy with other things."""

    folder: Path

    def __call__(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = [*self.command, *arguments]
        return subprocess.run(
            command, cwd=self.folder, env=environment(**more), capture_output=True, text=True, check=False
        )

    def killed(self, *arguments: str, once: Callable[[bytes], bool]) -> None:
        """Calls it, and kills it with SIGKILL once all that the journals in `folder` hold is as asked. Fails where it ends before."""
        command = [*self.command, *arguments]
        with subprocess.Popen(command, cwd=self.folder, env=environment(), stderr=subprocess.DEVNULL) as process:
            try:
                over = False
                while not once(b"".join(f.read_bytes() for f in self.folder.glob("runs/*/journal/*/*.jsonl"))):
                    assert not over, f"{arguments} ended with {process.returncode} before it could be killed"
                    over = process.poll() is not None  # what it wrote last is looked at once more
                    time.sleep(0.002)
            finally:
                process.send_signal(signal.SIGKILL)

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
