"""The command line as a user calls it: a process of its own, in a folder of its own."""

import json
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.command import READ_ON_IMPORT, Running, environment, forked, program

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / "jobs" / "quickstart.yaml"


@dataclass(frozen=True)
class Shell:
    """Calls `raysearch` in `folder`. How long is too long is for pytest-timeout to say: the machine
    may be busy with other things."""

    folder: Path

    def __call__(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """The command to its end, with `more` in its environment."""
        if any(name.startswith(READ_ON_IMPORT) for name in more):
            return self.fresh(*arguments, **more)
        return forked(arguments, self.folder, environment(**more))

    def script(self, path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A Python file to its end, where torch and the like are imported already."""
        return forked(arguments, self.folder, environment(), path)

    def fresh(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """The command to its end, in a new interpreter."""
        return subprocess.run(
            [*self.command, *arguments], cwd=self.folder, env=environment(**more), capture_output=True, text=True, check=False
        )  # fmt: skip

    def begin(self, *arguments: str, **more: str) -> Running:
        """The command, which runs on."""
        assert not any(name.startswith(READ_ON_IMPORT) for name in more), (
            "it is forked from what has read that already"
        )
        return Running(arguments, self.folder, environment(**more))

    def killed(self, *arguments: str, once: Callable[[bytes], bool]) -> None:
        """Calls it, and kills it with SIGKILL once all that the journals in `folder` hold is as
        asked. Fails where it ends before."""
        command = self.begin(*arguments)
        try:
            over = False
            while not once(
                b"".join(f.read_bytes() for f in self.folder.glob("runs/*/journal/*/*.jsonl"))
            ):
                assert not over, (
                    f"{arguments} ended with {command.returncode} before it could be killed"
                )
                over = command.poll() is not None  # what it wrote last is looked at once more
                time.sleep(0.002)
        finally:
            command.send_signal(signal.SIGKILL)
            command.communicate()

    @property
    def command(self) -> list[str]:
        return [program()]

    def json(self, *arguments: str) -> Any:
        """What a command prints as JSON on stdout."""
        done = self(*arguments)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)
