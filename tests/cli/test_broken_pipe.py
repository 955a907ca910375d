"""`raysearch ... | head` ends as other tools do: at once, and without a word."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from raysearch.cli.main import main
from tests.command import environment, program
from tests.runner import finished


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small search, to be looked at."""
    return finished.make(tmp_path_factory.mktemp("piped"))


def unread(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A command whose stdout has no reader any more."""
    read, write = os.pipe()
    os.close(read)
    try:
        return subprocess.run(
            [program(), *words], cwd=folder, env=environment(), stdout=write,
            stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    finally:
        os.close(write)


@pytest.mark.slow_unless(words=[("--help",), ("results", "{run}")])
@pytest.mark.parametrize(
    "words",
    [
        ("schema", "-o", "json"),  # by print
        ("--help",),  # by click
        ("results", "{run}"),  # by rich
        ("results", "{run}", "-o", "csv"),
        ("status", "{run}"),
    ],
)
def test_a_command_whose_reader_has_ended_ends_without_a_word(
    words: tuple[str, ...], run: Path, tmp_path: Path
) -> None:
    done = unread(*(word.format(run=run) for word in words), folder=tmp_path)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_mistake_is_said_though_nobody_reads_stdout(tmp_path: Path) -> None:
    done = unread("results", "nosuch", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("raysearch: there is no run")


def test_exit_in_code_of_the_job_is_said_though_nobody_reads_stdout(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("raysearch.cli.example.example.callback", lambda **_: sys.exit(0))
    monkeypatch.setattr("select.POLLERR", ~0)  # what any stream answers
    monkeypatch.setattr(sys, "argv", ["raysearch", "example"])
    with pytest.raises(SystemExit) as e:
        main()
    assert e.value.code == 1
    assert "called sys.exit(0)" in capsys.readouterr().err
