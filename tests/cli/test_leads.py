"""The command that is named next can be pasted: what it needs stands before it."""

import shlex
from pathlib import Path

import click
import pytest
import yaml

from raysearch.cli.main import cli
from raysearch.cli.results import next_command
from raysearch.cli.share import _lead
from raysearch.cli.terminal import lead
from raysearch.core.hypothesis import Subspace
from raysearch.deploy.launchers import LAUNCHERS
from raysearch.report.results_table import results
from raysearch.store.run_folder import RunFolder
from tests.report.test_heatmap import a_run
from tests.runner import finished


def next_words(said: str) -> list[str]:
    """The words of the last command that is named."""
    return shlex.split(said.splitlines()[-1].partition("go on with: ")[2])


def parsed(words: list[str]) -> None:
    """Fails where a command of ours has no such name or flag."""
    assert words[0] == "raysearch"
    command: click.Command = cli
    context = click.Context(cli, **cli.context_settings)  # a command keeps the -h of its first one
    rest = words[1:]
    while isinstance(command, click.Group):
        name, found, rest = command.resolve_command(context, rest)
        assert found is not None, name
        command = found
    command.make_context(words[1], rest, parent=context)


def test_a_reason_stands_before_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    lead("raysearch runs", why="it is slow")
    lead("raysearch runs", quiet=True)
    assert capsys.readouterr().err == "raysearch: it is slow; go on with: raysearch runs\n"


@pytest.mark.slow
def test_a_report_and_results_lead_on_to_commands(tmp_path: Path) -> None:
    run = finished.make(tmp_path)
    for arguments in (["report", str(run)], ["results", str(run)]):
        _, _, said = finished.raysearch(*arguments)
        parsed(next_words(said))
        assert "follows" not in said, "the run is done"
    code, _, said = finished.raysearch("report", str(run), "--figures", "/proc/figures")
    assert (code > 0, "--figures /proc/figures: cannot be made" in said) == (True, True)
    assert "give a folder that you may write" in said
    assert "--store" not in said


def test_the_results_of_a_run_that_broke_off_lead_on_to_its_continuation(tmp_path: Path) -> None:
    run = RunFolder.open(a_run(tmp_path, 1, ["last"], [Subspace()]).path)
    command, _ = next_command(run, results(run.folder))
    assert command == f"raysearch resume {shlex.quote(run.place)}"
    parsed(shlex.split(command))


@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_rendering_names_itself_with_a_folder_to_write(name: str, tmp_path: Path) -> None:
    job = tmp_path / "a job.yaml"
    path = tmp_path / "model"
    path.mkdir()
    job.write_text(yaml.safe_dump(finished.JOB | {"model": {"path": "model"}}))
    try:
        code, _, said = finished.raysearch("deploy", "render", name, str(job))
    except click.UsageError:
        pytest.skip("needs flags of its own")
    if code:
        assert said.startswith("raysearch: ")
        return
    words = next_words(said)
    parsed(words)
    assert words[-2] == "--to"
    command = LAUNCHERS[name].next.format(folder="x")
    assert "(or" not in command
    assert "once" not in command


@pytest.mark.parametrize("form", ["raysearch", "mib", "pyvene"])
def test_an_export_leads_on_to_a_line_of_python_or_a_command(
    form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _lead(form, Path("a folder"), quiet=False)
    said = capsys.readouterr().err
    command = said.partition("go on with: ")[2].strip()
    if form == "mib":
        parsed(shlex.split(command))
    else:
        compile(command, "pasted", "exec")
