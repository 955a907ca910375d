"""Code that a job may name, and code that it may not: refused before anything is called, or even
imported."""

import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import click
import pytest

import raysearch as raysearch_itself
from raysearch.core.model_source import ModelSource
from raysearch.core.space import HypothesisSpace
from raysearch.errors import JobError, RaysearchError
from raysearch.job import Job
from raysearch.problems import load_problem
from raysearch.runner.resolution.job_code import code_of
from raysearch.runner.resolution.load_proposer import proposer_of
from tests.runner.finished import raysearch
from tests.runner.test_resolved_job import FACTS

OURS = Path(raysearch_itself.__file__).parent

MINE = """
import functools
import os
import subprocess
from os import system
from os import system as problem_of_os
from pathlib import Path
from raysearch.problems.add_three import problem as ready

Path(__file__).with_name("imported").write_text("yes")


def make(highest=9):
    return ready(highest)


class Effect:
    def __init__(self, *given, **options):
        Path(__file__).with_name("ran").write_text("yes")


class Maker:
    def __call__(self, space):
        return Proposer(space)


class Proposer:
    max_hypotheses = None

    def __init__(self, space):
        self.space = space

    def propose(self, known):
        return []


made = ready()
partial = functools.partial(make, 3)
cached = functools.cache(make)
short = lambda highest=9: ready(highest)
shell = os.system
popen = subprocess.Popen
wrapped = functools.partial(os.system, "true")
kept = functools.cache(os.system)
bound = os.environ.get
text = "touch ran".join
proposes = lambda space: Proposer(space)
"""
PACKAGE = """
from pathlib import Path
from raysearch import Problem
from raysearch.problems.add_three import problem as ready

Path(__file__).with_name("imported").write_text("yes")


def marked() -> Problem:
    return ready()


def unmarked():
    return ready()


class Another:
    class Problem: ...


def others() -> Another.Problem:
    Path(__file__).with_name("called").write_text("yes")


def shell(command) -> int:
    return 0


given: "Problem" = ready()
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path / "mine.py"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of an installed package with a module of problems."""
    folder = tmp_path / "site" / "someones_package"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(
        "from pathlib import Path\nPath(__file__).with_name('imported').write_text('')\n"
    )
    (folder / "problems.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(folder.parent)
    yield folder
    for name in [name for name in sys.modules if name.startswith("someones_package")]:
        del sys.modules[name]


@pytest.mark.parametrize("name", ["make", "made", "partial", "cached", "short"])
def test_a_problem_that_its_file_defines_in_whatever_form_is_taken(mine: Path, name: str) -> None:
    assert load_problem(f"{mine}:{name}", {}).name == "add_three"


@pytest.mark.parametrize(
    "start", ["\ufeff".encode(), "# coding: latin-1\nwho = 'José'\n".encode("latin-1")]
)
def test_a_file_is_read_as_python_reads_it(mine: Path, start: bytes) -> None:
    mine.write_bytes(start + mine.read_bytes())
    assert load_problem(f"{mine}:make", {}).name == "add_three"


@pytest.mark.parametrize(
    "place", ["raysearch.problems.load_problem", f"{OURS / 'problems' / 'load_problem.py'}"]
)
def test_no_function_of_ours_runs_a_file_that_was_not_named(mine: Path, place: str) -> None:
    """`load_problem` says that it returns a Problem, and runs whatever file its options name."""
    use, options = f"{place}:load_problem", {"use": f"{mine}:make", "options": {}}
    with pytest.raises(JobError, match=r"of raysearch itself|of an installed package"):
        code_of(_job(mine, {"problem": {"use": use, "options": options}}))
    with pytest.raises(JobError, match=r"of raysearch itself|of an installed package"):
        load_problem(use, options)
    assert not mine.with_name("imported").exists()


def test_only_what_has_a_problem_is_named_as_a_ready_one() -> None:
    with pytest.raises(JobError) as said:
        load_problem("no_such_module", {})
    named = re.findall(r"raysearch\.problems\.\w+", str(said.value))
    assert len(named) > 5
    assert all(callable(import_module(name).problem) for name in named)


@pytest.mark.parametrize("name", ["Proposer", "proposes"])
def test_a_proposer_that_its_file_defines_in_whatever_form_is_taken(mine: Path, name: str) -> None:
    job = _job(mine, {"propose": {"use": f"mine.py:{name}"}})
    assert proposer_of(job, HypothesisSpace(()), FACTS, ()).max_hypotheses is None


@pytest.mark.parametrize(
    ("use", "says"),
    [
        ("os:system", "os is a module of Python itself"),
        ("subprocess:run", "subprocess is a module of Python itself"),
        ("builtins:exec", "builtins is a module of Python itself"),
        ("importlib:import_module", "importlib is a module of Python itself"),
        ("antigravity", "antigravity is a module of Python itself"),
        ("os.path:join", "os.path is a module of Python itself"),
        (
            "numpy:load",
            "numpy has no 'load'|does not say that it is a Problem|'load' is imported by numpy",
        ),
        ("torch.hub:load", "torch.hub:load does not say that it is a Problem"),
        ("click.utils:open_file", "does not say that it is a Problem"),
        ("raysearch.cli.main:main", "is a module of raysearch itself"),
        ("raysearch.user_code:find", "is a module of raysearch itself"),
        ("raysearch.problems:load_problem", "is a module of raysearch itself"),
        ("{mine}:os.system", "'os.system' in .*mine.py is no name"),
        ("{mine}:system", "'system' is imported by mine.py, not defined there"),
        ("{mine}:problem_of_os", "'problem_of_os' is imported by mine.py"),
        ("{mine}:os", "'os' is imported by mine.py"),
        ("{mine}:ready", "'ready' is imported by mine.py"),
        (
            "{mine}:shell",
            "mine.py:shell is of posix, not defined where it is named, and is not called",
        ),
        ("{mine}:popen", "mine.py:popen is the class Popen; it must be a Problem"),
        ("{mine}:wrapped", "mine.py:wrapped is of posix"),
        ("{mine}:kept", "mine.py:kept is of posix"),
        ("{mine}:bound", "mine.py:bound is of "),
        ("{mine}:text", "mine.py:text is of another module"),
        ("{mine}:Effect", "mine.py:Effect is the class Effect; it must be a Problem"),
        ("{mine}:__import__", "has no '__import__'"),
        (f"{subprocess.__file__}:run", "subprocess.py is of Python or of an installed package"),
        (f"{click.__file__}:echo", "is of Python or of an installed package"),
        ("{mine}:", "'' in .*mine.py is no name"),
    ],
)
def test_what_is_no_problem_is_one_line_before_it_is_called(
    mine: Path, monkeypatch: pytest.MonkeyPatch, use: str, says: str
) -> None:
    monkeypatch.chdir(mine.parent)
    called = mine.with_name("ran")
    with pytest.raises(JobError, match=says) as refused:
        load_problem(use.format(mine=mine), {"command": f"touch {called}"})
    assert "\n" not in str(refused.value)
    assert not called.exists()
    if "imported by" in says or "is no name" in says:
        assert not mine.with_name("imported").exists()


@pytest.mark.parametrize(
    "use", ["os:system", "subprocess:Popen", "mine.py:Effect", "mine.py:shell", "mine.py:system"]
)
def test_what_is_no_proposer_is_refused_before_it_is_called(mine: Path, use: str) -> None:
    job = _job(mine, {"propose": {"use": use}})
    with pytest.raises(JobError, match=r"propose\.use: "):
        proposer_of(job, HypothesisSpace(()), FACTS, ())
    assert not mine.with_name("ran").exists()


@pytest.mark.parametrize(
    "path", ["os:getcwd", "mine.py:Effect", "mine.py:shell", "mine.py:system", "click:get_app_dir"]
)
def test_what_is_no_network_is_refused_before_it_is_called(mine: Path, path: str) -> None:
    from raysearch.engine.loading.factory import load_module

    with pytest.raises(RaysearchError, match=r"model\.path: "):
        load_module(ModelSource(path.replace("mine.py", str(mine)), is_factory=True))
    assert not mine.with_name("ran").exists()


def test_of_an_installed_package_only_what_says_that_it_is_a_problem_is_imported(
    package: Path,
) -> None:
    for name in ("unmarked", "shell"):
        with pytest.raises(
            JobError, match=f"someones_package.problems:{name} does not say that it is a Problem"
        ):
            load_problem(f"someones_package.problems:{name}", {})
        assert not list(package.glob("imported"))
    with pytest.raises(JobError, match="others does not say that it returns a Problem"):
        load_problem("someones_package.problems:others", {})
    assert not list(package.glob("called"))
    for name in ("marked", "given"):
        assert load_problem(f"someones_package.problems:{name}", {}).name == "add_three"


def test_plan_runs_no_shell_line_and_names_the_code_that_it_runs(mine: Path) -> None:
    touched = mine.with_name("touched")
    bad = mine.with_name("bad.yaml")
    bad.write_text(
        f"name: x\nproblem: {{use: 'os:system', options: {{command: 'touch {touched}'}}}}\nmodel: "
        f"{{path: x/y}}\n"
    )
    code, _, error = raysearch("plan", str(bad))
    assert code == 2
    assert "problem.use: os is a module of Python itself" in error
    assert error.count("\n") == 1
    assert not touched.exists()
    job = _job(mine, {"problem": {"use": "mine.py:make"}, "propose": {"use": "mine.py:Proposer"}})
    found = code_of(job)
    assert [line.partition("(sha256")[0] for line in found] == [f"runs code of: {mine} "] * 2
    assert [line.rpartition("; ")[2] for line in found] == ["problem.use)", "propose.use)"]
    assert not mine.with_name("imported").exists()
    assert code_of(_job(mine, {})) == []


def _job(mine: Path, keys: dict[str, object]) -> Job:
    raw = {
        "name": "x",
        "model": {"path": "owner/m"},
        "problem": {"use": "raysearch.problems.add_three"},
        **keys,
    }
    return Job.parse(raw, folder=mine.parent)
