"""docs/glossary.md has every public class of the package and every word of the domain, and the
package has no public class name twice."""

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

from scripts.update_glossary import entries, public_classes

TOP = Path(__file__).parents[1]
GLOSSARY = (TOP / "docs" / "glossary.md").read_text()
WORDS = GLOSSARY.partition("\n## Classes\n")[0]
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


def test_every_public_class_is_in_the_glossary_under_its_room() -> None:
    listed = {(room, name) for room, name, _ in entries(GLOSSARY)}
    missing = [c[:2] for c in public_classes() if c[:2] not in listed]
    assert missing == [], "run: python -m scripts.update_glossary"


def test_no_class_of_the_glossary_is_gone() -> None:
    there = {(room, name) for room, name, _ in public_classes()}
    listed = [(room, name) for room, name, _ in entries(GLOSSARY)]
    assert [entry for entry in listed if entry not in there] == []
    assert len(listed) == len(set(listed))


def test_each_class_has_one_short_sentence() -> None:
    lines = [(name, line) for _, name, line in entries(GLOSSARY)]
    assert [name for name, line in lines if len(line) > 150 or not line.endswith(".")] == []


def test_each_public_class_name_stands_once_in_the_package() -> None:
    times = Counter(name for _, name, _ in public_classes())
    assert [name for name, count in times.items() if count > 1] == []
    assert len(times) > 200, "the search for classes finds none"


def _type_names() -> list[str]:
    """The names of all classes and types of the package at the top of a file, type variables
    aside."""
    found: list[str] = []
    for file in (TOP / "raysearch").rglob("*.py"):
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ClassDef):
                found.append(node.name)
            elif isinstance(node, ast.Assign) and not _is_type_variable(node.value):
                names = [to.id for to in node.targets if isinstance(to, ast.Name)]
                found += [name for name in names if name[0].isupper() and not name.isupper()]
    return found


def _is_type_variable(value: ast.expr) -> bool:
    return isinstance(value, ast.Call) and ast.unparse(value.func) == "TypeVar"


def test_no_two_types_have_one_name_even_where_one_is_an_alias() -> None:
    times = Counter(name for name in _type_names() if not name.startswith("_"))
    assert [name for name, count in times.items() if count > 1] == []
    assert times["OperationName"] == times["TableRow"] == times["Row"] == 1


@pytest.mark.parametrize("word", NEEDED)
def test_each_word_of_the_domain_is_explained(word: str) -> None:
    assert re.search(rf"(?m)^- \*\*{re.escape(word)}\*\*: [A-Z\w]", WORDS)


def test_words_are_in_order_and_each_explanation_is_short() -> None:
    words = re.findall(r"(?m)^- \*\*(.+?)\*\*: (.+(?:\n  .+)*)", WORDS)
    names = [word.lower() for word, _ in words]
    assert names == sorted(set(names))
    assert [word for word, text in words if len(text) > 130 or not text.endswith(".")] == []
