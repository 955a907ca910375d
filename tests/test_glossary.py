"""docs/glossary.md has every public class of the package and every word of the domain, and the
package has no public class name twice."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_imports import ROOMS

TOP = Path(__file__).parents[1]
GLOSSARY = (TOP / "docs" / "glossary.md").read_text()
WORDS, _, CLASSES = GLOSSARY.partition("\n## Classes\n")
NEEDED = [
    "base",
    "block (of a network)",
    "block (of pairs)",
    "change pair",
    "control",
    "counterfactual",
    "featurizer",
    "holdout",
    "hypothesis",
    "IIA",
    "interchange",
    "intervention",
    "K",
    "keep pair",
    "operation",
    "pair",
    "position",
    "problem",
    "proposer",
    "replica",
    "row",
    "screening",
    "site",
    "slot",
    "source",
    "split",
    "subspace",
    "trial",
    "unit",
    "variable",
    "verdict",
]


def _public_classes() -> Iterator[tuple[str, str, str]]:
    """(room, class, first sentence of its docstring) of every public class at the top of a file."""
    package = TOP / "raysearch"
    for file in sorted(package.rglob("*.py")):
        path = ".".join(file.relative_to(package).with_suffix("").parts)
        room = max((r for r in ROOMS if f"{path}.".startswith(f"{r}.")), key=len, default="")
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                doc = " ".join((ast.get_docstring(node) or "").split())
                yield room, node.name, re.split(r"(?<=\.) ", doc)[0]


def _entries() -> Iterator[tuple[str, str]]:
    """(room, class) of every line of the glossary's second part."""
    for section in re.split(r"(?m)^### ", CLASSES)[1:]:
        title = section.partition("\n")[0].strip("`")
        room = title.removesuffix(".py").rstrip("/").replace("/", ".")
        yield from ((room, name) for name in re.findall(r"(?m)^- `(\w+)`: \w", section))


def test_every_public_class_is_in_the_glossary_under_its_room() -> None:
    listed = set(_entries())
    missing = [c for c in _public_classes() if c[:2] not in listed]
    lines = [f"under {room}: - `{name}`: {sentence}" for room, name, sentence in missing]
    assert lines == [], "docs/glossary.md lacks these lines"


def test_no_class_of_the_glossary_is_gone() -> None:
    there = {(room, name) for room, name, _ in _public_classes()}
    assert [entry for entry in _entries() if entry not in there] == []
    assert len(list(_entries())) == len(set(_entries()))


def test_each_public_class_name_stands_once_in_the_package() -> None:
    times = Counter(name for _, name, _ in _public_classes())
    assert [name for name, count in times.items() if count > 1] == []
    assert len(times) > 200, "the search for classes finds none"


@pytest.mark.parametrize("word", NEEDED)
def test_each_word_of_the_domain_is_explained(word: str) -> None:
    assert re.search(rf"(?m)^- \*\*{re.escape(word)}\*\*: [A-Z\w]", WORDS)


def test_words_are_in_order_and_each_explanation_is_short() -> None:
    words = re.findall(r"(?m)^- \*\*(.+?)\*\*: (.+(?:\n  .+)*)", WORDS)
    names = [word.lower() for word, _ in words]
    assert names == sorted(set(names))
    assert [word for word, text in words if len(text) > 130 or not text.endswith(".")] == []
