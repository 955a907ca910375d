"""Makes the pages of docs/reference/ that are read off the code: job keys, table columns, commands
and public names.

    python scripts/make_reference.py

tests/test_reference.py holds the pages that are in the repository to what this makes today.
"""

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import pyarrow as pa

import raysearch
from raysearch.cli.json_output import keys_page
from raysearch.cli.main import cli
from raysearch.job.schema import job_page
from raysearch.store.pairs_schema import PAIRS
from raysearch.store.schemas import TABLES

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "reference"
MADE = "Made from the code by `python scripts/make_reference.py`; do not edit.\n"
WIDTH = 100


def tables_page() -> str:
    """Lists the columns of every table of a run, with type, unit and meaning."""
    head = f"""# The tables of a run

{MADE}
A table is a folder `tables/NAME` of Parquet files; `pairs.parquet` lies beside `tables/`. The
page on [the run folder](run-folder.md) says what else a run holds. Tables join by their ids.
"""
    return "\n".join([head, *(_table(name, s) for name, s in {"pairs": PAIRS, **TABLES}.items())])


def commands_page() -> str:
    """Shows the help of every command, as `--help` prints it."""
    head = f"""# The command line

{MADE}
Results go to standard output, everything else to standard error. Every flag is also an
environment variable: `RAYSEARCH_STORE` is `--store`, `RAYSEARCH_RESULTS_TOP` is `--top` of
`results`. Only `--set` is none, so that no variable changes an answer.
"""
    keys = f"""## JSON

Every command takes `-o json`: stdout has JSON alone, and all else is on stderr: progress, the line
that names the command to go on with, and an error in one line beside its exit code.

{keys_page()}
"""
    return "\n".join([head, keys, *_commands(cli, None, "raysearch")])


def python_page() -> str:
    """Shows every public name of the package as a stub: signature and docstring, no body."""
    head = f"""# The Python interface

{MADE}
These are all public names; `import raysearch as rs` brings them. A name that is not here may
change without notice.
"""
    named = [name for names in GROUPS.values() for name in names]
    assert sorted(named) == sorted(set(raysearch.__all__) - {"__version__"}), "GROUPS has others"
    addresses = _addresses(named)
    overview = (_overview(group, names, addresses) for group, names in GROUPS.items())
    return "\n".join([head, *overview, *(part for name in named for part in _sections(name))])


GROUPS = {
    "Search": ("run", "plan", "submit", "resume", "sync", "doctor", "Run", "Job"),
    "Look into a model": ("Model", "TensorModel", "Sampling"),
    "Say what you believe": (
        "Problem", "CausalModel", "Variable", "Input", "Pair", "fill", "draw_pairs", "Setting", "Value",
    ),
    "Name what is tested": ("Hypothesis", "Intervention", "Unit", "Site", "Subspace"),
    "Keep and share what was found": (
        "SavedIntervention", "Finding", "ModelOrigin", "load_intervention", "save_intervention",
        "push_intervention", "load_mib", "save_mib",
    ),
    "Errors": ("RaysearchError",),
}  # fmt: skip
"""The public names by what one wants to do, in the order of the page."""


PAGES: dict[str, Callable[[], str]] = {
    "job-file.md": job_page,
    "tables.md": tables_page,
    "command-line.md": commands_page,
    "python.md": python_page,
}
"""The pages by file name, and the functions that make them."""


def main() -> None:
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page())


def _table(name: str, schema: pa.Schema) -> str:
    lines = [f"## `{name}`\n", "| column | type | unit | meaning |", "|---|---|---|---|"]
    for field in schema:
        about = {k.decode(): v.decode() for k, v in (field.metadata or {}).items()}
        cells = (f"`{field.name}`", f"`{field.type}`", about.get("unit"), about.get("meaning"))
        lines.append(f"| {' | '.join((c or '').replace('|', '&#124;') for c in cells)} |")
    return "\n".join(lines) + "\n"


def _commands(command: click.Command, above: click.Context | None, name: str) -> Iterator[str]:
    settings = {**command.context_settings, "terminal_width": WIDTH, "max_content_width": WIDTH}
    context = click.Context(command, info_name=name, parent=above, **settings)
    yield f"## `{context.command_path}`\n\n```text\n{command.get_help(context).rstrip()}\n```\n"
    if isinstance(command, click.Group):
        for below in sorted(command.commands):
            yield from _commands(command.commands[below], context, below)


def _addresses(names: list[str]) -> dict[str, str]:
    """The address of each name's heading, as GitHub makes it: small letters, alike ones numbered."""
    small = [f"rs{name.lower()}" for name in names]
    before = [small[:at].count(slug) for at, slug in enumerate(small)]
    return {
        name: slug + (f"-{count}" if count else "")
        for name, slug, count in zip(names, small, before, strict=True)
    }


def _overview(group: str, names: tuple[str, ...], addresses: Mapping[str, str]) -> str:
    lines = [f"**{group}**\n", "| | |", "|---|---|"]
    lines += [f"| [`rs.{name}`](#{addresses[name]}) | {_sentence(name)} |" for name in names]
    return "\n".join(lines) + "\n"


def _sentence(name: str) -> str:
    """The first sentence of a docstring, on one line."""
    value = getattr(raysearch, name)
    if not getattr(value, "__module__", "").startswith("raysearch."):
        return f"A type: `{_alias(name)[0].partition(' = ')[2]}`."
    words = " ".join((inspect.getdoc(value) or "").split())
    return (words.partition(". ")[0].rstrip(".") + ".").replace("|", "&#124;")


def _sections(name: str) -> Iterator[str]:
    """A section for a name, and one for each method of a class, so that each has an address."""
    value = getattr(raysearch, name)
    if not getattr(value, "__module__", "").startswith("raysearch."):
        yield _section(f"## `rs.{name}`", *_alias(name))
        return
    if inspect.isfunction(value):
        yield _method(f"## `rs.{name}`", _without_body(_definition(value)))
        return
    bases = [c for c in value.__mro__ if c.__module__.startswith("raysearch.")]
    node = _definition(value)
    assert isinstance(node, ast.ClassDef)
    body = [line for c in bases for line in _public(_definition(c).body)]
    methods = [line for line in body if isinstance(line, ast.FunctionDef)]
    made = [line for line in methods if line.name == "__init__"]
    fields = [line for line in body if line not in methods]
    words = [ast.get_docstring(part) or "" for part in (node, *made)]
    for line in made:
        line.body = [ast.Expr(ast.Constant(...))]
    node.body = [*fields, *made] or [ast.Expr(ast.Constant(...))]
    yield _section(f"## `rs.{name}`", ast.unparse(node), "\n\n".join(filter(None, words)))
    for method in methods:
        if method not in made:
            yield _method(f"### `{name}.{method.name}`", method)


def _method(heading: str, node: Any) -> str:
    words = ast.get_docstring(node) or ""
    node.body = [ast.Expr(ast.Constant(...))]
    return _section(heading, ast.unparse(node), words)


def _section(heading: str, code: str, words: str) -> str:
    """A heading, a signature, and the docstring as text, with a list for what it lists."""
    listed = re.sub(r"(?m)^(Args|Raises): *\n((?:(?: {4}.*)?\n?)+)", _listed, words)
    parts = [heading, f"```python\n{_formatted(code)}```", listed.strip()]
    return "\n\n".join(filter(None, parts)) + "\n"


def _listed(section: re.Match[str]) -> str:
    """The items of a section of a docstring as a list: "name: meaning", whose further lines stand
    deeper."""
    items = re.sub(r"(?m)^(\w+):", r"- `\1`:", inspect.cleandoc(section[2]))
    return f"{section[1]}:\n\n{items}\n\n"


def _definition(value: Any) -> Any:
    return ast.parse(inspect.getsource(value)).body[0]


def _doc(node: Any) -> list[ast.stmt]:
    return node.body[:1] if ast.get_docstring(node) else []


def _public(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Fields with the words beneath them, and methods without their bodies."""
    shown = False
    for line in body:
        if isinstance(line, ast.FunctionDef):
            shown = not line.name.startswith("_") or line.name == "__init__"
            if shown and "validator" not in ast.dump(ast.List(line.decorator_list)):
                yield _without_body(line)
            shown = False
        elif isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
            shown = not line.target.id.startswith("_")
            if shown:
                yield line
        elif isinstance(line, ast.Expr) and shown:
            yield line


def _without_body(node: Any) -> Any:
    public = [d for d in node.decorator_list if not getattr(d, "id", "").startswith("_")]
    node.decorator_list = public
    node.body = _doc(node) or [ast.Expr(ast.Constant(...))]
    return node


def _alias(name: str) -> tuple[str, str]:
    """The line that defines a type alias, and the words beneath it."""
    home = sys.modules[_home(name)]
    lines = ast.parse(inspect.getsource(home)).body
    for line, after in zip(lines, [*lines[1:], ast.Pass()], strict=True):
        if isinstance(line, ast.Assign) and getattr(line.targets[0], "id", "") == name:
            words = after.value.value if isinstance(after, ast.Expr) else ""  # type: ignore[attr-defined]
            return ast.unparse(line), inspect.cleandoc(words)
    raise AssertionError(f"no line defines {name}")


def _home(name: str) -> str:
    """The module whose source assigns `name`, below the one that exports it."""
    for module in sorted(m for m in sys.modules if m.startswith("raysearch.causal.")):
        if not hasattr(sys.modules[module], "__file__"):
            continue  # an old path, which has no source of its own
        if any(line.startswith(f"{name} = ") for line in _source(module)):
            return module
    raise AssertionError(f"no module assigns {name}")


def _source(module: str) -> list[str]:
    return inspect.getsource(sys.modules[module]).splitlines()


def _formatted(code: str) -> str:
    """Code as ruff writes it, so that no line is wider than a page."""
    command = [
        sys.executable,
        "-m",
        "ruff",
        "format",
        "--isolated",
        "--line-length",
        str(WIDTH),
        "-",
    ]
    return subprocess.run(command, input=code, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    main()
