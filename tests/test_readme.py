"""What a reader copies from the README and from the pages of docs/: the code runs and gives what
stands beneath it, and the commands are commands."""

import contextlib
import io
import itertools
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

from raysearch.cli.main import cli
from raysearch.job import Job
from raysearch.problems.pair_files import read_pairs
from tests.cli.conftest import Shell

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
LOOK = (ROOT / "docs" / "tutorials" / "look-at-one-pair.md").read_text()
OWN = (ROOT / "docs" / "tutorials" / "your-own-problem.md").read_text()
WRITE = (ROOT / "docs" / "how-to" / "write-a-job.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def _commands(page: Path) -> Iterator[list[str]]:
    """The words of each call of raysearch in a page: in its blocks, and in backticks."""
    text = page.read_text().replace("\\\n", " ")
    lines = re.findall(r"^ {4,}(raysearch .*)$", text, re.MULTILINE)
    for line in [*lines, *re.findall(r"`(raysearch [a-z-][^`]*)`", text)]:
        words = shlex.split(line.replace(";", " ; "), comments=True)
        yield list(itertools.takewhile(lambda word: word not in (";", ">", "|"), words))[1:]


def _refused(words: list[str]) -> str:
    """Why raysearch does not take the command; empty where it does, or where only the value of a
    flag is left out."""
    command: click.Command = cli
    rest = list(words)
    while isinstance(command, click.Group) and rest and rest[0] in command.commands:
        command = command.commands[rest.pop(0)]
    if isinstance(command, click.Group):
        return f"no command {rest[0]}" if rest and not rest[0].startswith("-") else ""
    try:
        parent = click.Context(cli, **cli.context_settings)  # click keeps its -h
        command.make_parser(click.Context(command, parent=parent)).parse_args(rest)
    except click.UsageError as e:
        return "" if e.message.endswith("requires an argument.") else e.message
    return ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_of_a_page_are_commands_with_such_flags(page: Path) -> None:
    assert [words for words in _commands(page) if _refused(words)] == []


def test_a_command_that_is_none_is_refused() -> None:
    assert _refused(["submitt", "JOB.yaml"])
    assert _refused(["submit", "JOB.yaml", "--adress", "x"])


def test_the_pages_name_many_commands() -> None:
    assert len([line for page in PAGES for line in _commands(page)]) > 60


@pytest.mark.slow  # a whole job
def test_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "jobs").symlink_to(ROOT / "jobs")
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict[str, object] = {}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code, names)
    assert len(names["run"].alignment) == 7
    assert "sum_ab" in printed.getvalue()


def test_the_readme_is_one_screen() -> None:
    lines = README.splitlines()
    assert len(lines) <= 80
    assert all(len(line) <= 100 for line in lines if "](" not in line)


def test_the_line_of_pairs_is_one_that_a_file_may_hold(tmp_path: Path) -> None:
    (line,) = re.findall(r"```json\n(.*?)```", WRITE, re.DOTALL)
    (tmp_path / "pairs.jsonl").write_text(json.dumps(json.loads(line)) + "\n")
    counts = {"fit": 0, "test": 1, "holdout": 1}
    (pair,) = read_pairs(tmp_path / "pairs.jsonl", counts, seed=0)
    assert pair.counterfactual == {"country": " Rome"}


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.skipif(not (ROOT / "models").is_dir(), reason="no models/: make install fetches it")
def test_the_lines_for_one_pair_run_and_print_what_the_page_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = re.findall(r"```python\n(.*?)```", LOOK, re.DOTALL)
    for beside in ("models", "jobs"):
        (tmp_path / beside).symlink_to(ROOT / beside)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(first, names)
        exec(second, names)
    shown = re.search(r"^    (residual, layer 9.*)$", LOOK, re.MULTILINE)
    assert shown
    assert printed.getvalue().strip() == shown.group(1)
    assert (tmp_path / "scan.png").read_bytes().startswith(b"\x89PNG")
    scan = names["scan"]
    changed = {
        layer: [t for t, new in enumerate(tokens) if new == " Rome"]
        for layer, tokens in enumerate(scan.next_tokens)
    }
    assert changed == {
        layer: [3] if layer <= 22 else [4] for layer in range(30)
    }  # as the text beneath says
    exec(third, names)
    assert len(names["run"].alignment) == 7


def _jobs(folder: Path) -> list[Job]:
    """The parts of a job in the page on jobs, each in a job of its own."""
    whole = {
        "name": "x",
        "model": {"path": "owner/name"},
        "problem": {"use": "raysearch.problems.capitals"},
    }
    parts = re.findall(r"```yaml\n(.*?)```", WRITE, re.DOTALL)
    return [
        Job.parse({**whole, **yaml.safe_load(part)}, folder=folder)
        for part in parts
        if part.startswith("space:")
    ]


def test_the_spaces_of_the_page_on_jobs_are_spaces(tmp_path: Path) -> None:
    job, trained = _jobs(tmp_path)
    names = [s.featurizer for s in trained.space.meant_subspaces]
    assert names == ["das"] * 3 + ["boundless", "mask", "pca", "random", "sae"]
    assert trained.fit.rungs == (100,)
    assert len(trained.controls) == 4
    assert job.space.components == ("residual", "head")
    assert [len(units) for units in job.space.units] == [2, 1, 1]


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.skipif(not (ROOT / "models").is_dir(), reason="no models/: make install fetches it")
def test_the_page_on_your_own_problem_runs_as_it_stands_and_finds_what_it_shows(
    tmp_path: Path,
) -> None:
    problem, look = re.findall(r"```python\n(.*?)```", OWN, re.DOTALL)
    (job,) = re.findall(r"```yaml\n(.*?)```", OWN, re.DOTALL)
    assert len([line for line in problem.splitlines() if line.strip()]) <= 33, (
        "the page says thirty-three lines"
    )
    (tmp_path / "drinks.py").write_text(problem)
    (tmp_path / "drinks.yaml").write_text(job)
    (tmp_path / "models").symlink_to(ROOT / "models")

    def call(*command: str) -> str:
        done = Shell(tmp_path)(*command)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def shown_after(text: str) -> list[str]:
        """The indented lines after `text`, up to the next that is not."""
        lines = OWN.split(text)[1].lstrip("\n`").splitlines()
        end = next(at for at, line in enumerate(lines) if line and not line.startswith("    "))
        return [line.strip() for line in lines[:end] if line]

    (tmp_path / "look.py").write_text(look)
    assert Shell(tmp_path).script(tmp_path / "look.py").stdout.splitlines() == shown_after(
        "print(dict(pair.counterfactual))\n"
    )
    call("plan", "drinks.yaml")
    call("run", "drinks.yaml", "--pool", "local", "--tracking-uri", "none", "-q")
    rows = json.loads(call("results", "latest", "--accepted", "-o", "json"))
    found = {(row["variable"], row["position"], row["layer"]) for row in rows}
    assert found == ACCEPTED


ACCEPTED = {("answer", "last", 23), ("answer", "last", 29), ("which", "again", 17)}
"""What the table of the page says."""
