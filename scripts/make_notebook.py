"""Makes docs/tutorials/notebook.ipynb: the cells of notebook.py beside it, executed by a kernel.

    python scripts/make_notebook.py

What is kept are the outputs as they came; only the folder that raysearch lies in is written as
ROOT_SHOWN: it differs by machine.
"""

import re
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
CELLS = ROOT / "docs" / "tutorials" / "notebook.py"
NOTEBOOK = CELLS.with_suffix(".ipynb")
ROOT_SHOWN = "/home/you/raysearch"
SECONDS = 280
"""For one cell."""


def cells() -> nbformat.NotebookNode:
    """The notebook as it is before anything was executed."""
    _, *parts = re.split(r"(?m)^# %%", CELLS.read_text())
    made = []
    for i, part in enumerate(parts):
        before, marker, words = part.partition("[markdown]")
        if marker and not before.strip():  # words may begin on the marker's line
            text = re.sub(r"(?m)^# ?", "", words).strip()
            made.append(nbformat.v4.new_markdown_cell(text, id=f"cell-{i}"))
        else:
            made.append(nbformat.v4.new_code_cell(part.strip(), id=f"cell-{i}"))
    about = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return nbformat.v4.new_notebook(cells=made, metadata=about)


def executed(folder: Path) -> nbformat.NotebookNode:
    """The notebook, executed in `folder`, as `beside_jobs` makes it. Raises: CellExecutionError."""
    notebook = cells()
    about = {"metadata": {"path": str(folder)}}
    NotebookClient(
        notebook, timeout=SECONDS, kernel_name="python3", resources=about, record_timing=False
    ).execute()
    return notebook


def main() -> None:
    with TemporaryDirectory(prefix="raysearch-notebook-") as scratch:
        folder = beside_jobs(Path(scratch))
        text = (
            nbformat.writes(executed(folder))
            .replace(str(ROOT), ROOT_SHOWN)
            .replace(scratch, ROOT_SHOWN)
        )
    NOTEBOOK.write_text(text + "\n")


def beside_jobs(scratch: Path) -> Path:
    """A folder docs/tutorials/ in `scratch`, with jobs/ in `scratch`, so that the run stays
    there."""
    (scratch / "jobs").symlink_to(ROOT / "jobs")
    folder = scratch / "docs" / "tutorials"
    folder.mkdir(parents=True)
    return folder


if __name__ == "__main__":
    main()
