"""A driver on a cluster runs by the interpreter that runs the cluster's Ray, or by the one given."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from raysearch.runner.submission.entrypoint import _OLDEST, entrypoint

SUPERVISOR = "import subprocess, sys; sys.exit(subprocess.run(sys.argv[1], shell=True).returncode)"
RAYLET = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[2], sys.argv[3]])"


@pytest.fixture
def interpreter(tmp_path: Path) -> Path:
    """An interpreter that is not on the PATH; it says how it was called."""
    path = tmp_path / "env" / "bin" / "python"
    path.parent.mkdir(parents=True)
    path.write_text(f"""#!{sys.executable}
import json, sys
if sys.argv[1] == "-c":
    exec(sys.argv[2])
print(json.dumps(sys.argv))
""")
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
    assert "python=python3; " in entrypoint(["run"], "pip")


def shell(line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, check=False)


def old_python(folder: Path) -> str:
    path = folder / "old python"
    path.write_text(f"""#!{sys.executable}
import sys
sys.version_info = (3, 10, 13, "final", 0)
exec(sys.argv[2])
""")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    "python", ["", "/no/such/python", "/tmp", "/bin/ls", "/bin/true", "it's; false", "%s\\n", "old"]
)
def test_what_is_no_python_or_too_old_is_one_line(python: str, tmp_path: Path) -> None:
    python = old_python(tmp_path) if python == "old" else python
    done = shell(entrypoint(["run"], "tree", python))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f'raysearch: the interpreter "{python}" of the head node is no Python 3.11 or later; give '
        "--python one that has Ray and raysearch's packages there\n"
    )


def test_the_oldest_python_is_that_of_the_package() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == ">=" + ".".join(map(str, _OLDEST))
