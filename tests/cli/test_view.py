"""`raysearch view`: the address that it prints answers, and Ctrl-C ends it."""

import socket
import subprocess
import urllib.request
from pathlib import Path

import pytest

from raysearch.cli.main import cli
from raysearch.errors import StoreError
from tests.cli.conftest import Shell
from tests.command import environment
from tests.viewer.books import few


@pytest.mark.parametrize("of", ["store", "run"])
def test_it_prints_an_address_that_answers_until_it_is_interrupted(
    shell: Shell, tmp_path: Path, of: str
) -> None:
    run = few(tmp_path / "store")
    command = [*shell.command, "view", str(run.path if of == "run" else tmp_path / "store")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as view:
        assert view.stdout is not None
        address = view.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:")
        assert address.endswith(f"/runs/{run.info.id}/" if of == "run" else "/")
        with urllib.request.urlopen(address, timeout=60) as answer:
            assert b"raysearch" in answer.read()
        view.terminate()  # as Ctrl-C, which a shell may have switched off for what runs behind it
    assert view.returncode == 0


def test_where_it_listens_everywhere_it_prints_the_name_of_the_machine(
    shell: Shell, tmp_path: Path
) -> None:
    few(tmp_path)
    command = [*shell.command, "view", str(tmp_path), "--host", "0.0.0.0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as view:
        assert view.stdout is not None
        address = view.stdout.readline()
        view.terminate()
    assert address.startswith(f"http://{socket.gethostname()}:")
    assert "?token=" in address


def test_a_port_that_is_taken_is_one_line(tmp_path: Path) -> None:
    few(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        with pytest.raises(StoreError, match=f"--port {port}: cannot listen there"):
            cli.main(["view", str(tmp_path), "--port", port], standalone_mode=False)
