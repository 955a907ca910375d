"""Brings the second part of docs/glossary.md, the public classes by room, up to date with the code.

    python -m scripts.update_glossary

Lines that are there are kept, under the room where the class is now; a class that is gone loses its
line; a new one gets the first sentence of its docstring. tests/test_glossary.py holds the page to
the code.
"""

import ast
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

from tests.test_imports import ROOMS

TOP = Path(__file__).resolve().parents[1]
PAGE = TOP / "docs" / "glossary.md"
HEAD = "\n## Classes\n"


def public_classes() -> Iterator[tuple[str, str, str]]:
    """Yields (room, name, first sentence of the docstring) of each class at the top of a file."""
    package = TOP / "raysearch"
    for file in sorted(package.rglob("*.py")):
        path = ".".join(file.relative_to(package).with_suffix("").parts)
        room = max((r for r in ROOMS if f"{path}.".startswith(f"{r}.")), key=len, default="")
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                words = " ".join((ast.get_docstring(node) or "").split())
                yield room, node.name, re.split(r"(?<=\.) ", words)[0]


def entries(text: str) -> Iterator[tuple[str, str, str]]:
    """Yields (room, name, line) of each class of the page's second part."""
    for section in re.split(r"(?m)^### ", text.partition(HEAD)[2])[1:]:
        room = section.partition("\n")[0].strip("`").removesuffix(".py").rstrip("/")
        for name, line in re.findall(r"(?m)^- `(\w+)`: (.+(?:\n  .+)*)", section):
            yield room.replace("/", "."), name, " ".join(line.split())


def updated(text: str) -> str:
    """Returns the page with a line for each public class, by room."""
    kept = {name: line for _, name, line in entries(text)}
    found = sorted(public_classes(), key=lambda c: (ROOMS.index(c[0]), c[1].lower()))
    lines, last = [text.partition(HEAD)[0] + HEAD], ""
    for room, name, sentence in found:
        if room != last:
            is_file = (TOP / "raysearch" / f"{room}.py").exists()
            path = room.replace(".", "/") + (".py" if is_file else "/")
            lines, last = [*lines, f"{'' if not last else chr(10)}### `{path}`\n"], room
        line = f"- `{name}`: {kept.get(name, sentence)}"
        lines.append(textwrap.fill(line, 100, subsequent_indent="  ", break_on_hyphens=False))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text()))
