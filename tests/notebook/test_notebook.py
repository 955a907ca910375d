"""docs/tutorials/notebook.ipynb is what a kernel makes of notebook.py today, in the outputs that
matter."""

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

from scripts.make_notebook import CELLS, NOTEBOOK, beside_jobs, cells, executed
from tests.notebook.kernel import hide_ipywidgets

VOLATILE = re.compile(r"-\d{8}T\d{6}Z-[0-9a-f]{8}| in \d+\.\d s|\S*/\S*")
"""When it ran, for how long, and where it lay."""


@pytest.fixture(scope="module")
def kept() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def _texts(notebook: Any) -> list[list[str]]:
    """Of each cell of code the text of its outputs, without what differs from one time to the next."""
    return [
        [VOLATILE.sub("*", o.get("text") or o["data"]["text/plain"]) for o in cell["outputs"]]
        for cell in notebook["cells"]
        if cell["cell_type"] == "code"
    ]


def test_the_notebook_has_the_cells_that_are_written_beside_it(kept: Any) -> None:
    nbformat.validate(kept)
    assert [(c["cell_type"], c["source"]) for c in kept["cells"]] == [
        (c["cell_type"], c["source"]) for c in cells()["cells"]
    ]


def test_no_word_of_the_cells_is_lost(kept: Any) -> None:
    """A text may begin on the line that begins its cell."""
    words = " ".join(" ".join(c["source"].split()) for c in kept["cells"])
    for line in CELLS.read_text().partition("# %%")[2].splitlines():
        text = line.removeprefix("# %%").strip().removeprefix("[markdown]").strip()
        shown = " ".join(text.removeprefix("# ").removeprefix("#").split())
        assert shown in words


@pytest.mark.slow
def test_executed_anew_it_shows_the_same(
    kept: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where ipywidgets is not there, as after `pip install`; test_widgets.py holds cells to the
    same with and without."""
    hide_ipywidgets(tmp_path / "hidden", monkeypatch)
    anew = executed(beside_jobs(tmp_path))
    assert _texts(anew) == _texts(kept)
    shown = "\n".join(text for texts in _texts(anew) for text in texts)
    for said in (
        "7 accepted, 113 rejected",
        "'12' -> '6'",
        "'12' stays",
        "(20, 20)",
        "(True, 120)",
    ):
        assert said in shown
    pictures = [
        o for c in anew["cells"] for o in c.get("outputs", []) if "image/png" in o.get("data", {})
    ]
    assert len(pictures) == 1
    assert (tmp_path / "runs").is_dir()


def test_the_kept_notebook_names_no_folder_of_ours(kept: Any) -> None:
    text = NOTEBOOK.read_text()
    assert str(Path.home()) not in text or str(Path.home()) == "/home/you"
    assert "/tmp" not in text
    assert str(NOTEBOOK.parents[2]) not in text
