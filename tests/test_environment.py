"""What `make install` installs is all that tests, scripts and benchmarks import: nothing is tested
only where more happens to be there."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
CODE = ("tests", "scripts", "benchmarks", "raysearch", "jobs", "docs")
OWN = {"raysearch", "tests", "scripts", "benchmarks", "checking"}


def declared() -> set[str]:
    """The packages that pyproject.toml names, those of `dev` among them, and what these need
    themselves; by their normal names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [
        Requirement(r) for r in project["dependencies"] + project["optional-dependencies"]["dev"]
    ]
    theirs = [
        Requirement(r)
        for one in asked
        for r in requires(one.name) or ()
        if (needs := Requirement(r)).marker is None
        or any(needs.marker.evaluate({"extra": extra}) for extra in one.extras or {""})
    ]
    return {canonicalize_name(r.name) for r in asked + theirs}


def imported() -> Iterator[tuple[Path, str]]:
    """Each file, and each top-level module of others that it imports anywhere."""
    for folder in CODE:
        for file in sorted((ROOT / folder).rglob("*.py")):
            beside = {p.stem for p in file.parent.iterdir()}
            for node in ast.walk(ast.parse(file.read_text())):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and not node.level:
                    names.append(node.module or "")
                for name in (
                    {n.partition(".")[0] for n in names} - OWN - beside - sys.stdlib_module_names
                ):
                    yield file.relative_to(ROOT), name


def test_whatever_is_imported_is_installed_because_pyproject_names_it() -> None:
    homes, named = packages_distributions(), declared()
    undeclared = {
        f"{file}: {name}"
        for file, name in imported()
        if not named & {canonicalize_name(home) for home in homes.get(name, [])}
    }
    assert undeclared == set()


def test_no_test_skips_for_a_package_and_ci_installs_none() -> None:
    """A program that a machine lacks is a reason to skip; a Python package is one that `make test`
    forgot."""
    word = "importor" + "skip"
    assert not [file.name for file in (ROOT / "tests").rglob("*.py") if word in file.read_text()]
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    ci = "\n".join(line for line in lines if not line.startswith("#"))
    assert not re.search(r"\b(pip|uv|conda)\b|python3?-", ci)
    for command in ("check", "test-ci", "demo", "quickstart"):
        assert re.search(rf"\bmake .*(?<![\w-]){command}(?![\w-])", ci), (
            f"make {command} is not in .ci/run"
        )
