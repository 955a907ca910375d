"""A forked command is one as a new process runs it: exit code, streams, environment, working
folder, signals, imports."""

import json
import signal
from pathlib import Path

import pytest

from tests.cli.conftest import QUICKSTART, Shell
from tests.command import IMPORTED, environment


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.mark.slow_unless(arguments=[("--version",), ("results", "nothing")])
@pytest.mark.parametrize(
    "arguments",
    [
        ("--version",),
        ("plan", str(QUICKSTART), "--set", "pairs.test=64"),
        ("results", "nothing"),
        ("run", str(QUICKSTART), "--pool", "cloud"),
    ],
)
def test_a_forked_command_says_and_returns_what_a_new_process_does(
    shell: Shell, arguments: tuple[str, ...]
) -> None:
    forked, fresh = shell(*arguments), shell.fresh(*arguments)
    assert (forked.returncode, forked.stdout, forked.stderr) == (
        fresh.returncode,
        fresh.stdout,
        fresh.stderr,
    )
    assert forked.stdout + forked.stderr


def test_what_a_command_sets_is_gone_with_it(shell: Shell) -> None:
    """A problem of the user's changes all that a process has; the command after it sees nothing of
    that."""
    (shell.folder / "mine.py").write_text(MINE.replace("{IMPORTED}", repr(IMPORTED)))
    seen = []
    for _ in range(2):
        done = shell(
            "plan",
            str(QUICKSTART),
            "--set",
            f"problem={{use: {shell.folder}/mine.py:problem}}",
            LEFT="here",
        )
        assert done.returncode != 0
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("{")]
        seen.append(json.loads(line))
    assert seen[0] == seen[1], "nothing is handed on"
    assert seen[0]["folder"] == str(shell.folder)
    assert seen[0]["left"] == "here"
    assert seen[0]["argv"][1:3] == ["plan", str(QUICKSTART)]
    assert not any(path in ("", str(Path(__file__).parents[1])) for path in seen[0]["path"][:2])
    assert seen[0]["imported"] == list(IMPORTED), (
        "what cannot be imported, the fork server passes over"
    )
    assert not seen[0]["tests"]
    assert Path(seen[0]["cache"]).is_dir(), "which all workers share"
    assert not Path(seen[0]["cache"]).is_relative_to(Path.home() / ".cache"), "not the user's own"
    assert seen[0]["threads"] == 1, "as tests/conftest.py says"
    assert "LEFT" not in environment()


MINE = """
import json, logging, os, signal, sys
imported = [name for name in {IMPORTED} if name in sys.modules]
import torch, mlflow

def problem():
    seen = {
        "threads": torch.get_num_threads(), "left": os.environ.get("LEFT"), "folder": os.getcwd(), "argv": sys.argv,
        "imported": imported, "uri": mlflow.get_tracking_uri(), "level": logging.getLogger().level, "path": sys.path,
        "hup": str(signal.getsignal(signal.SIGHUP)), "grad": torch.is_grad_enabled(), "tests": "pytest" in sys.modules,
        "cache": os.environ.get("RAYSEARCH_CACHE"),
    }
    torch.set_num_threads(torch.get_num_threads() + 3)
    torch.set_grad_enabled(False)
    os.environ["LEFT"] = "changed"
    mlflow.set_tracking_uri("sqlite:///elsewhere.db")
    logging.getLogger().setLevel(logging.DEBUG)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.chdir("/")
    print(json.dumps(seen), file=sys.stderr)
    raise ValueError("no pairs today")
"""


def test_a_signal_ends_a_forked_command_as_it_ends_a_process(shell: Shell) -> None:
    command = shell.begin("run", str(QUICKSTART), "--pool", "local", "--tracking-uri", "none")
    command.send_signal(signal.SIGKILL)
    command.communicate()
    assert command.wait() == -signal.SIGKILL
