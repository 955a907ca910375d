"""A driver on a cluster runs by the interpreter that runs the cluster's Ray, or by the one given."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from raysearch.runner.entrypoint import entrypoint

SUPERVISOR = "import subprocess, sys; sys.exit(subprocess.run(sys.argv[1], shell=True).returncode)"
RAYLET = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[2], sys.argv[3]])"


@pytest.fixture
def interpreter(tmp_path: Path) -> Path:
    """An interpreter that is not on the PATH; it says how it was called."""
    path = tmp_path / "env" / "bin" / "python"
    path.parent.mkdir(parents=True)
    path.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv))\n")
    path.chmod(0o755)
    return path


def said_below_a_raylet(option: str, line: str) -> list[str]:
    """What the driver says, started by a supervisor whose parent has `option` in its command."""
    done = subprocess.run(
        [sys.executable, "-c", RAYLET, option, SUPERVISOR, line],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)  # type: ignore[no-any-return]


@pytest.mark.parametrize("runtime", ["tree", "installed"])
def test_it_is_the_one_of_the_raylet(interpreter: Path, runtime: str) -> None:
    option = f"--python_worker_command={interpreter} /x/setup_worker.py /x/default_worker.py"
    line = entrypoint(["run", "a job.yaml", "--store", "$HOME"], runtime)
    said = said_below_a_raylet(option, line)
    assert said == [
        str(interpreter),
        "-m",
        "raysearch.cli",
        "run",
        "a job.yaml",
        "--store",
        "$HOME",
    ]


def test_without_one_it_is_python3_of_the_path(
    interpreter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interpreter.rename(interpreter.with_name("python3"))
    monkeypatch.setenv("PATH", f"{interpreter.parent}:/usr/bin:/bin")
    assert said_below_a_raylet("--other", entrypoint(["run"], "tree"))[1:] == [
        "-m", "raysearch.cli", "run",
    ]  # fmt: skip


def test_one_that_is_asked_for_is_taken(interpreter: Path) -> None:
    line = entrypoint(["run"], "tree", str(interpreter))
    assert said_below_a_raylet("--other", line)[0] == str(interpreter)
    assert entrypoint(["run"], "pip") == "python3 -m raysearch.cli run"
