"""What others' machines run on each change is what .ci/run and `make check` run here."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
_MATRIX = re.compile(r"\$\{\{ matrix\.(\w+) \}\}")


def _loaded(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(path.read_text())
    return loaded


def _steps(path: Path) -> Iterator[tuple[dict[str, Any], dict[str, list[str]]]]:
    """Each step of a workflow, and the matrix of its job."""
    for job in _loaded(path)["jobs"].values():
        for step in job["steps"]:
            yield step, job.get("strategy", {}).get("matrix", {})


def _made(path: Path) -> Iterator[str]:
    """Each target that a workflow makes."""
    for step, matrix in _steps(path):
        for line in step.get("run", "").splitlines():
            words = line.split(maxsplit=1)
            if words[0] == "make":
                for target in words[1:]:
                    found = _MATRIX.fullmatch(target)
                    yield from matrix[found[1]] if found else target.split()


def _targets(makefile: str) -> set[str]:
    return set(re.findall(r"^([a-z][\w-]*):(?!=)", makefile, re.MULTILINE))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_makes_only_what_the_makefile_has(path: Path) -> None:
    made = list(_made(path))
    assert made
    assert set(made) - _targets((ROOT / "Makefile").read_text()) == set()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_runs_make_and_what_installs_programs_alone(path: Path) -> None:
    lines = [line for step, _ in _steps(path) for line in step.get("run", "").splitlines()]
    assert [line for line in lines if not re.match(r"make |sudo apt-get ", line)] == []


def test_the_workflows_make_all_that_ci_makes() -> None:
    ci = re.findall(r"^.*\bmake VENV=\S+ (.+)$", (ROOT / ".ci/run").read_text(), re.MULTILINE)
    asked = {t for line in ci for t in re.findall(r"(?:^| )([a-z][a-z-]*)(?= |$)", line)}
    assert {"check", "test-ci", "quickstart"} <= asked
    assert asked - {target for path in WORKFLOWS for target in _made(path)} == set()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_an_action_of_others_is_pinned_by_its_commit_and_may_only_read(path: Path) -> None:
    used = re.findall(r"uses: (.+)", path.read_text())
    assert used
    for action in used:
        assert re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action)
    assert _loaded(path)["permissions"] == {"contents": "read"}


def test_only_the_job_that_publishes_the_pages_may_write_and_only_these() -> None:
    more = {
        (path.stem, name): job["permissions"]
        for path in WORKFLOWS
        for name, job in _loaded(path)["jobs"].items()
        if "permissions" in job
    }
    assert more == {("docs", "publish"): {"pages": "write", "id-token": "write"}}


def test_the_workflows_begin_with_the_oldest_python_that_the_package_allows() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (matrix,) = {tuple(m["python"]) for p in WORKFLOWS for _, m in _steps(p) if "python" in m}
    assert f">={matrix[0]}" == project["requires-python"]


def test_the_workflows_are_of_the_form_that_github_reads() -> None:
    checker = Path(sys.executable).with_name("check-jsonschema")
    done = subprocess.run(
        [str(checker), "--builtin-schema", "vendor.github-workflows", *map(str, WORKFLOWS)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_a_commit_is_checked_by_the_tools_of_make_check_in_the_projects_own_environment() -> None:
    (repo,) = _loaded(ROOT / ".pre-commit-config.yaml")["repos"]
    hooks = {hook["id"]: hook for hook in repo["hooks"]}
    assert repo["repo"] == "local"
    assert {hook["language"] for hook in hooks.values()} == {"system"}
    makefile = (ROOT / "Makefile").read_text()
    check = re.search(r"^check:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert check is not None
    for hook in hooks.values():
        command = hook["entry"].replace(" --force-exclude", "")
        assert f"\t{command.replace('.venv/bin', '$(BIN)')}" in check[1]
