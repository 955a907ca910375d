"""What a reader copies from README.md and docs/tutorials/your-own-problem.md: the code runs, and gives what
stands beneath it."""

import contextlib
import io
import json
import re
from pathlib import Path

import pytest
import yaml

from raysearch.job import Job
from tests.cli.conftest import Shell

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
OWN = (ROOT / "docs" / "tutorials" / "your-own-problem.md").read_text()


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.skipif(not (ROOT / "models").is_dir(), reason="no models/: make install fetches it")
def test_the_notebook_lines_run_and_print_what_the_readme_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = README.split("## Look first")[1].split("\n## ")[0]
    first, second, third = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    for beside in ("models", "jobs"):
        (tmp_path / beside).symlink_to(ROOT / beside)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(first, names)
        exec(second, names)
    shown = re.search(r"^    (residual, layer 9.*)$", section, re.MULTILINE)
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
    """The parts of a job in the README, each in a job of its own."""
    whole = {
        "name": "x",
        "model": {"path": "owner/name"},
        "problem": {"use": "raysearch.problems.capitals"},
    }
    parts = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    return [
        Job.parse({**whole, **yaml.safe_load(part)}, folder=folder)
        for part in parts
        if part.startswith("space:")
    ]


def test_the_spaces_of_the_readme_are_spaces(tmp_path: Path) -> None:
    job, trained = _jobs(tmp_path)
    names = [s.featurizer for s in trained.space.meant_subspaces]
    assert names == ["das"] * 3 + ["boundless", "mask", "pca", "random", "sae"]
    assert trained.fit.rungs == (100,)
    assert len(trained.controls) == 4
    assert job.space.components == ("residual", "head")
    assert [len(units) for units in job.space.units] == [2, 1]


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.skipif(not (ROOT / "models").is_dir(), reason="no models/: make install fetches it")
def test_the_page_on_your_own_problem_runs_as_it_stands_and_finds_what_it_shows(
    tmp_path: Path,
) -> None:
    problem, look = re.findall(r"```python\n(.*?)```", OWN, re.DOTALL)
    (job,) = re.findall(r"```yaml\n(.*?)```", OWN, re.DOTALL)
    assert len([line for line in problem.splitlines() if line.strip()]) <= 30, (
        "the page says thirty lines"
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


ACCEPTED = {("answer", "last", 23), ("answer", "last", 29)}
"""What the table of the page says."""
