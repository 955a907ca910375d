"""The pages of docs/reference/ that are read off the code are what the code says today."""

import importlib
import re

import pytest

import raysearch
from raysearch.store.schemas import TABLES
from scripts.make_reference import FOLDER, PAGES


def test_a_module_at_its_old_path_is_no_source_of_a_page() -> None:
    importlib.import_module("raysearch.causal.drawing")  # sorts before where types are assigned
    assert "## `rs.Setting`" in PAGES["python.md"]()


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_what_the_script_makes_today(name: str) -> None:
    assert (FOLDER / name).read_text() == PAGES[name](), "run: python scripts/make_reference.py"


def test_the_pages_have_every_command_table_and_public_name() -> None:
    def sections(name: str) -> set[str]:
        return set(re.findall(r"^## `(.*)`$", (FOLDER / name).read_text(), re.MULTILINE))

    assert {"raysearch submit", "raysearch deploy render"} <= sections("command-line.md")
    assert sections("tables.md") == {"pairs", *TABLES}
    public = {f"rs.{name}" for name in raysearch.__all__} - {"rs.__version__"}
    assert sections("python.md") == public


def test_a_stub_shows_inherited_methods_and_hides_private_ones() -> None:
    text = (FOLDER / "python.md").read_text()  # as the script makes it: see above
    model = text.partition("\n## `rs.Model`")[2].partition("\n## `")[0]
    assert "\n### `Model.swap`\n" in model
    assert "def swap(" in model
    assert "def _" not in text.replace("def __init__(", "")
