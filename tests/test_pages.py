"""The snippets of pages run in their order, print what stands beneath them, and their jobs are
jobs."""

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from raysearch.job import Job
from raysearch.store.schemas import TABLES

ROOT = Path(__file__).parents[1]
PAGES = {
    name: (ROOT / "docs" / f"{name}.md").read_text()
    for name in ("how-to/questions", "explanation/which-subspace", "explanation/cost")
}
SNIPPET = re.compile(r"^```python\n(.*?)^```\n((?:\n(?:    [^\n]*\n)+)?)", re.DOTALL | re.MULTILINE)
"""Code, and the indented lines beneath it, if there are any: what it prints."""


@pytest.mark.parametrize("page", PAGES)
def test_the_snippets_of_a_page_run_and_print_what_it_shows(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "jobs").symlink_to(ROOT / "jobs")
    monkeypatch.chdir(tmp_path)
    snippets = SNIPPET.findall(PAGES[page])
    assert snippets
    names: dict[str, Any] = {}
    for code, shown in snippets:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(code, page, "exec"), names)
        lines = [line.removeprefix("    ") for line in shown.strip("\n").splitlines()]
        assert printed.getvalue().splitlines() == lines, code


@pytest.mark.parametrize("page", PAGES)
def test_the_parts_of_jobs_in_a_page_are_parts_of_jobs(page: str) -> None:
    job = ROOT / "jobs" / "quickstart.yaml"
    whole = yaml.safe_load(job.read_text())
    for part in re.findall(r"^```yaml\n(.*?)^```", PAGES[page], re.DOTALL | re.MULTILINE):
        keys = yaml.safe_load(part)
        assert isinstance(keys, dict), part
        Job.parse({**whole, **keys}, folder=job.parent)


def test_every_yaml_block_of_every_page_is_yaml() -> None:
    for page in sorted((ROOT / "docs").rglob("*.md")):
        for block in re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
            assert isinstance(yaml.safe_load(block), dict | list), (page.name, block)


def test_the_page_on_the_run_folder_names_every_table() -> None:
    text = (ROOT / "docs" / "reference" / "run-folder.md").read_text()
    assert [name for name in TABLES if f"`{name}`" not in text] == []
