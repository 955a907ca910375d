"""The arrows between rooms: imports go one way, and what is heavy is imported where it belongs."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "raysearch"

ROOMS = {
    "literal": set(),
    "errors": set(),
    "whole_file": {"errors"},
    "folders": {"errors", "whole_file"},
    "user_folder": set(),
    "user_code": {"errors", "user_folder"},
    "in_words": set(),
    "old_paths": set(),
    "causal": {"errors", "old_paths"},
    "search": {"causal", "errors", "old_paths"},
    "job": {"search", "causal", "errors", "folders", "in_words"},
    "problems": {"causal", "errors", "user_code", "in_words", "old_paths"},
    "engine": {"search", "causal", "errors", "whole_file", "user_code"},
    "store": {"search", "causal", "errors", "folders"},
    "report": {"search", "causal", "errors", "folders"},
    "driver": {"search"},
    "deploy": {"job", "errors", "whole_file"},
    "cluster": {"engine", "search", "causal", "errors"},
    "running": {
        "cluster",
        "engine",
        "store",
        "folders",
        "report",
        "problems",
        "job",
        "driver",
        "search",
        "causal",
        "errors",
        "user_code",
    },
    "notebook": {"running", "engine", "store", "folders", "report", "job", "problems", "search", "causal", "errors"},
    "cli": {
        "running",
        "deploy",
        "cluster",
        "engine",
        "store",
        "folders",
        "report",
        "problems",
        "job",
        "driver",
        "search",
        "causal",
        "errors",
    },
}
"""What each room may import of raysearch, itself aside."""

HOMES = {
    "ray": ["cluster/"],
    "ray.job_submission": ["cluster/jobs.py"],
    "mlflow": ["store/mlflow_mirror.py"],
    "packaging": ["cli/doctor.py"],
    "torch": ["engine/", "cluster/", "notebook/"],
    "transformers": ["engine/"],
    "safetensors": ["engine/", "problems/tensor_file.py"],
    "psutil": ["engine/memory.py"],
    "huggingface_hub": ["engine/hub.py"],
    "click": ["cli/"],
    "rich": ["cli/", "running/progress.py"],
    "duckdb": ["report/"],
    "jinja2": ["deploy/", "report/"],
    "markupsafe": ["report/"],
    "plotly": ["report/"],
    "pandas": ["notebook/"],
    "IPython": ["notebook/progress.py"],
    "matplotlib": ["report/", "notebook/"],
    "scipy": ["search/"],
    "numpy": ["search/", "engine/", "report/"],
}
"""Where a package may be imported."""


def _imports() -> Iterator[tuple[Path, str]]:
    for file in sorted(ROOT.rglob("*.py")):
        yield from _imports_of(file.relative_to(ROOT), file.read_text())


def _imports_of(file: Path, text: str) -> Iterator[tuple[Path, str]]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from ((file, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names = [f"raysearch.{a.name}" for a in node.names] if node.module == "raysearch" else [node.module or ""]
            yield from ((file, name) for name in names if name != "raysearch.__version__")


def _room(file: Path) -> str:
    return file.parts[0].removesuffix(".py")


def test_no_import_runs_upward() -> None:
    wrong = [
        f"{file} imports {name}"
        for file, name in _imports()
        if name.startswith("raysearch.")
        and file != Path("__init__.py")
        and name.split(".")[1] not in ROOMS[_room(file)] | {_room(file), "literal"}
    ]
    assert not wrong


def test_every_room_is_known() -> None:
    rooms = {_room(file.relative_to(ROOT)) for file in ROOT.rglob("*.py")} - {"__init__"}
    assert rooms == set(ROOMS)


def test_packages_are_imported_where_they_belong() -> None:
    wrong = [
        f"{file} imports {name}"
        for file, name in _imports()
        for package, homes in HOMES.items()
        if name.split(".")[0] == package and not any(str(file).startswith(home) for home in homes)
    ]
    assert not wrong


def test_causal_needs_the_standard_library_only() -> None:
    wrong = {
        name.split(".")[0]
        for file, name in _imports()
        if _room(file) == "causal" and name.split(".")[0] not in sys.stdlib_module_names
    }
    assert wrong == {"raysearch"}


@pytest.mark.parametrize(
    ("room", "line"),
    [
        ("search", "from raysearch import driver"),
        ("causal", "import raysearch.search.search"),
        ("engine", "from raysearch.store.ledger import Ledger"),
    ],
)
def test_an_arrow_upward_would_be_seen(room: str, line: str) -> None:
    (name,) = [n for _, n in _imports_of(Path(room) / "x.py", line)]
    assert name.split(".")[1] not in ROOMS[room] | {room}


@pytest.mark.parametrize("arguments", [["--help"], ["submit", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    script = (
        "import sys, runpy\n"
        f"sys.argv = ['raysearch', *{arguments!r}]\n"
        "try:\n    runpy.run_module('raysearch.cli.main', run_name='x')['main']()\n"
        "except SystemExit: pass\n"
        "heavy = {'ray', 'torch', 'mlflow', 'transformers', 'pyarrow', 'scipy', 'numpy', 'matplotlib'} & set(sys.modules)\n"
        "print('heavy:', sorted(heavy))"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "heavy: []" in out.stdout
