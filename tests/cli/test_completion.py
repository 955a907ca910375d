"""What a shell is told that completes a command line, asked as bash asks."""

import pytest

from tests.cli.conftest import ROOT, Shell
from tests.store.books import new_run

PAGE = (ROOT / "docs" / "how-to" / "write-a-job.md").read_text()


def complete(shell: Shell, line: str) -> list[str]:
    """What may stand where `line` ends."""
    words = str(len(line.split()) - (not line.endswith(" ")))
    done = shell(_RAYSEARCH_COMPLETE="bash_complete", COMP_WORDS=line, COMP_CWORD=words)
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_commands_are_completed(shell: Shell) -> None:
    assert {"plain,resume", "plain,results"} <= set(found := complete(shell, "raysearch re"))
    assert all(line.startswith("plain,re") for line in found)
    assert {"plain,doctor", "plain,schema", "plain,compact", "plain,sync"} <= set(
        complete(shell, "raysearch ")
    )


@pytest.mark.parametrize("command", ["results", "resume", "export", "compact", "sync"])
def test_runs_are_completed_by_name(shell: Shell, command: str) -> None:
    name = new_run(shell.folder / "runs").info.id
    assert complete(shell, f"raysearch {command} ") == [f"plain,{name}", "plain,latest"]
    assert complete(shell, f"raysearch {command} cap") == [f"plain,{name}"]


@pytest.mark.parametrize("command", ["submit", "run", "plan", "doctor --job"])
def test_job_files_are_completed_by_the_shell_itself(shell: Shell, command: str) -> None:
    (said,) = complete(shell, f"raysearch {command} jobs/qu")
    assert said.split(",")[0] == "file"


def test_the_line_of_the_page_on_jobs_gives_a_script_that_asks_like_this(shell: Shell) -> None:
    assert 'eval "$(_RAYSEARCH_COMPLETE=bash_source raysearch)"' in PAGE
    script = shell(_RAYSEARCH_COMPLETE="bash_source").stdout
    assert "COMP_WORDS" in script
    assert "_RAYSEARCH_COMPLETE=bash_complete" in script
