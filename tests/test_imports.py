"""The arrows between rooms: imports go one way, and what is heavy is imported where it belongs."""

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "raysearch"

ROOMS = (
    "_version",
    "visible_text",
    "markdown_text",
    "errors",
    "limits",
    "suggest",
    "old_paths",
    "user_folder",
    "user_code",
    "plugins",
    "user_cache",
    "storage",
    "causal",
    "core",
    "stats",
    "proposers",
    "search",
    "job",
    "problems",
    "driver",
    "engine.networks",
    "engine.encoding",
    "engine.loading",
    "engine.featurizers",
    "engine.patching",
    "engine.execution",
    "engine.attribution",
    "engine.training",
    "engine",
    "interventions",
    "store",
    "report",
    "viewer",
    "tracking",
    "cluster",
    "testing",
    "deploy",
    "runner.resolution",
    "runner.stored_run",
    "runner.session",
    "runner.plans",
    "runner.submission",
    "runner.exports",
    "runner",
    "notebook",
    "cli",
    "__main__",
)
"""The rooms, lowest first: a room may import from those above it in this list, and from itself."""

HOMES = {
    "ray": ["cluster/"],
    "ray.job_submission": ["cluster/jobs.py"],
    "mlflow": ["tracking/"],
    "packaging": ["runner/health_checks.py"],
    "torch": ["engine/", "interventions/", "cluster/", "notebook/"],
    "transformers": ["engine/"],
    "safetensors": ["engine/", "interventions/", "problems/tensor_references.py"],
    "psutil": ["engine/execution/memory.py"],
    "huggingface_hub": ["interventions/hub.py"],
    "click": ["cli/"],
    "rich": ["cli/", "runner/session/progress_display.py"],
    "duckdb": ["report/"],
    "jinja2": ["runner/starter_files.py", "deploy/"],
    "tokenizers": ["viewer/"],
    "pandas": ["notebook/"],
    "IPython": ["notebook/progress.py"],
    "matplotlib": ["report/", "notebook/"],
    "scipy": ["stats/"],
    "numpy": ["search/", "stats/", "engine/", "report/", "viewer/"],
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
            names = (
                [f"raysearch.{a.name}" for a in node.names]
                if node.module == "raysearch"
                else [node.module or ""]
            )
            yield from ((file, name) for name in names if name != "raysearch.__version__")


def _room(parts: Sequence[str]) -> str:
    """The room of a dotted path below raysearch: a sub-room of the engine, where there is one, else
    the first part."""
    two = ".".join(parts[:2])
    return two if two in ROOMS else parts[0]


def _room_of_file(file: Path) -> str:
    return _room([*file.parts[:-1], file.stem] if len(file.parts) > 1 else [file.stem])


def _is_upward(room: str, name: str) -> bool:
    """Whether a file of `room` that imports the dotted path `name` reaches for a room above its
    own."""
    other = _room(name.split(".")[1:])
    return other != room and ROOMS.index(other) > ROOMS.index(room)


def test_no_import_runs_upward() -> None:
    wrong = [
        f"{file} imports {name}"
        for file, name in _imports()
        if name.startswith("raysearch.")
        and file != Path("__init__.py")
        and _is_upward(_room_of_file(file), name)
    ]
    assert not wrong


def test_every_room_is_known() -> None:
    rooms = {_room_of_file(file.relative_to(ROOT)) for file in ROOT.rglob("*.py")} - {"__init__"}
    assert rooms == set(ROOMS)


def test_no_two_files_import_each_other() -> None:
    assert not list(_circles(_files_by_imports()))


def test_a_circle_would_be_seen() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}
    assert list(_circles(graph)) == [("b", "c")]


def _files_by_imports() -> dict[str, set[str]]:
    """For each module of raysearch, the modules that it names in an import, wherever that stands."""
    modules = {_dotted(file.relative_to(ROOT)) for file in ROOT.rglob("*.py")}
    graph: dict[str, set[str]] = {module: set() for module in modules}
    for file in sorted(ROOT.rglob("*.py")):
        here = _dotted(file.relative_to(ROOT))
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                graph[here] |= {
                    name if name in modules else node.module for name in names
                } & modules
            elif isinstance(node, ast.Import):
                graph[here] |= {alias.name for alias in node.names} & modules
    for module, found in graph.items():
        found -= {module, "raysearch"}
    return graph


def _dotted(file: Path) -> str:
    parts = file.with_suffix("").parts
    return ".".join(("raysearch", *(parts[:-1] if parts[-1] == "__init__" else parts)))


def _circles(graph: Mapping[str, set[str]]) -> Iterator[tuple[str, ...]]:
    """The circles of a graph: sets of nodes of which each can be reached from each."""
    reach = {node: _reached(graph, node) for node in graph}
    seen: set[str] = set()
    for node in sorted(graph):
        circle = tuple(sorted(other for other in reach[node] if node in reach[other]))
        if len(circle) > 1 and node not in seen:
            seen.update(circle)
            yield circle


def _reached(graph: Mapping[str, set[str]], start: str) -> set[str]:
    found, todo = set[str](), list(graph[start])
    while todo:
        node = todo.pop()
        if node not in found:
            found.add(node)
            todo += graph[node]
    return found | {start}


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
        if _room_of_file(file) == "causal" and name.split(".")[0] not in sys.stdlib_module_names
    }
    assert wrong == {"raysearch"}


@pytest.mark.parametrize(
    ("room", "line"),
    [
        ("search", "from raysearch import driver"),
        ("causal", "import raysearch.search.search"),
        ("engine", "from raysearch.store.ledger import RunLedger"),
        ("engine.networks", "from raysearch.engine.patching.rows import Row"),
    ],
)
def test_an_arrow_upward_would_be_seen(room: str, line: str) -> None:
    (name,) = [n for _, n in _imports_of(Path(room) / "x.py", line)]
    assert _is_upward(room, name)


@pytest.mark.parametrize("arguments", [["--help"], ["submit", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    script = (
        "import sys, runpy\n"
        f"sys.argv = ['raysearch', *{arguments!r}]\n"
        "try:\n    runpy.run_module('raysearch.cli.main', run_name='x')['main']()\n"
        "except SystemExit: pass\n"
        "heavy = {'ray', 'torch', 'mlflow', 'transformers', 'pyarrow', 'scipy', 'numpy', "
        "'matplotlib'} & set(sys.modules)\n"
        "print('heavy:', sorted(heavy))"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "heavy: []" in out.stdout
