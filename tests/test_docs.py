"""The pages of docs/ are sorted and found, and a dead link fails their build; the built site is
looked at in tests/notebook/test_site.py."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from tests.site import build_site
from tests.test_imports import ROOMS

ROOT = Path(__file__).parents[1]
TEXTS = {".md", ".py", ".yaml", ".yml", ".json", ".toml", ".j2", ".sh", ""}
PAGE = re.compile(r"(?<![\w./-])docs/(?:[\w-]+/)*[\w-]+\.(?:md|png|ipynb|py)\b")

FILE = re.compile(r"`([a-z_]+(?:/[a-z_]+)*/(?:[a-z_]+\.(?:py|json))?)`")
"""A file or folder of the repository, or of the package, as pages name it."""
BUILT = [
    ROOT / "ARCHITECTURE.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs" / "decisions").glob("*.md")),
    *sorted((ROOT / "docs" / "explanation").glob("*.md")),
]
"""The pages that say how the code is built."""


def test_links_that_lead_nowhere_fail(tmp_path: Path) -> None:
    """A page, a file, a heading and a picture that are not there: each is named."""
    links = ["no-page.md", "../jobs/no-job.yaml", "README.md#no-heading"]
    (tmp_path / "source" / "docs").mkdir(parents=True)
    shutil.copy(ROOT / "docs" / "conf.py", tmp_path / "source" / "docs")
    shutil.copytree(ROOT / "docs" / "site", tmp_path / "source" / "docs" / "site")
    lines = ["# Title", *(f"[here]({link})" for link in links), "![there](no-picture.png)"]
    (tmp_path / "source" / "docs" / "README.md").write_text("\n\n".join(lines) + "\n")
    done = build_site(tmp_path / "source", tmp_path / "built")
    assert done.returncode != 0
    for named in ("no-page.md", "no-job.yaml", "no-heading", "no-picture.png"):
        assert len([line for line in done.stderr.splitlines() if named in line]) == 1, done.stderr


def test_every_page_that_a_file_of_this_repository_names_is_there() -> None:
    """Error texts, jobs, docstrings and pages name pages of docs/ in running text, where Sphinx
    sees no link."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    named: dict[str, str] = {}
    for name in filter(None, files.split("\0")):
        if (ROOT / name).suffix not in TEXTS or name == "tests/test_docs.py":
            continue
        for page in PAGE.findall((ROOT / name).read_text()) if (ROOT / name).is_file() else ():
            named.setdefault(page, name)
    assert len(named) > 20, "the pattern finds no pages"
    assert [f"{named[p]} names {p}" for p in sorted(named) if not (ROOT / p).is_file()] == []


def test_every_page_is_of_one_of_the_four_kinds() -> None:
    """docs/ holds tutorials, how-to guides, reference and explanation; beside them the index, the
    glossary, the decisions, the pictures and what the site adds."""
    kinds = {"tutorials", "how-to", "reference", "explanation"}
    beside = {
        "README.md",
        "glossary.md",
        "conf.py",
        "check_run.py",
        "checking",
        "decisions",
        "pictures",
        "site",
    }
    assert {p.name for p in (ROOT / "docs").iterdir()} - {"__pycache__"} == kinds | beside


def test_the_index_links_to_every_page() -> None:
    """A page that no index names is found by nobody; problems and decisions have an index each."""
    index = (ROOT / "docs" / "README.md").read_text()
    pages = [p for p in (ROOT / "docs").rglob("*.md") if p.parent.name != "decisions"]
    missing = [p for p in pages if f"]({p.relative_to(ROOT / 'docs')})" not in index]
    assert [p.name for p in missing] == ["README.md"]
    decisions = (ROOT / "docs" / "decisions" / "README.md").read_text()
    for page in (ROOT / "docs" / "decisions").glob("[0-9]*.md"):
        assert f"]({page.name})" in decisions


FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
MARKDOWN = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "deploy" / "README.md"]


def _slugs(page: Path) -> set[str]:
    """The addresses that a page's headings have where Markdown is shown as it is, as on GitHub."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    slugs: list[str] = []
    for heading in headings:
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        slugs.append(slug if slug not in slugs else f"{slug}-{slugs.count(slug)}")
    return set(slugs)


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda page: page.name)
def test_links_of_a_page_lead_somewhere_in_plain_markdown(page: Path) -> None:
    """The site's links are looked at as they are built (tests/notebook/test_site.py)."""
    text = re.sub(r"`[^`\n]*`", "", FENCE.sub("", page.read_text()))
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link or link.startswith("mailto:"):
            continue
        path, _, anchor = link.partition("#")
        to = (page.parent / path).resolve() if path else page
        assert to.exists(), link
        if anchor and to.suffix == ".md":
            assert anchor in _slugs(to), link


WRITTEN = [
    *ROOT.glob("*.md"),
    *(ROOT / "benchmarks").glob("*.md"),
    *(page for page in (ROOT / "docs").rglob("*.md") if "reference" not in page.parts),
]
"""The pages that are written by hand."""


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_prose_is_within_100_columns(page: Path) -> None:
    """Tables, code, headings, and lines that are one link may be longer."""
    text = re.sub(r"(?ms)^```.*?^```$", "", page.read_text())
    prose = [line for line in text.splitlines() if re.match(r" {0,3}[^\s|#!<]", line)]
    broken = [line for line in prose if len(line) > 100 and " " in re.sub(r"`[^`]*`", "", line)]
    assert [line for line in broken if not re.search(r"\]\(\S+$|\S{3} {3,}\S", line)] == []


def _is_there(named: str) -> bool:
    """Whether a path that a page names, from the top or from the package, is there."""
    return any((root / named).exists() for root in (ROOT, ROOT / "raysearch"))


@pytest.mark.parametrize("page", BUILT, ids=lambda page: page.name)
def test_files_and_rooms_that_a_page_on_the_code_names_are_there(page: Path) -> None:
    named = FILE.findall(page.read_text())
    assert [name for name in named if not _is_there(name)] == []


def test_the_architecture_is_two_pages_and_names_every_room() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    assert len(text.splitlines()) <= 140
    table = text.partition("## Rooms")[2].partition("\n## ")[0]
    for room in ROOMS:
        path = room.replace(".", "/")
        assert f"`{path}/`" in table or f"`{path}.py`" in table or room == "_version"


def test_decisions_have_context_decision_and_consequence() -> None:
    pages = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
    assert [int(p.name[:3]) for p in pages] == list(range(1, len(pages) + 1))
    for page in pages:
        parts = re.findall(r"^## (.*)$", page.read_text(), re.MULTILINE)
        assert parts == ["Context", "Decision", "Consequence"], page.name
        assert len(page.read_text().splitlines()) < 50, "half a page is enough"


def test_pictures_are_small() -> None:
    pictures = sorted((ROOT / "docs" / "pictures").glob("*.png"))
    made_by_tests = {"mlflow-runs.png", "mlflow-run.png", "mlflow-artifacts.png", "viewer.png"}
    assert made_by_tests <= {p.name for p in pictures}
    for picture in pictures:
        assert picture.stat().st_size < 300_000, picture
        with Image.open(picture) as opened:
            opened.verify()
