"""The pages of docs/ built as `make docs` builds them, and what is in a built page."""

import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


def build_site(source: Path, to: Path) -> subprocess.CompletedProcess[str]:
    """Runs Sphinx with warnings as errors."""
    flags = ["-q", "-b", "html", "-W", "--keep-going", "-c", str(source / "docs")]
    command = [sys.executable, "-m", "sphinx", *flags, str(source), str(to)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


class Page(HTMLParser):
    """A page's links to other files, and the ids that links may name."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.links: set[str] = set()
        self.ids: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("id", "name") and value:
                self.ids.add(value)
            elif name in ("href", "src") and value and not urlsplit(value).scheme:
                self.links.add(value)


def broken_links(top: Path) -> list[str]:
    """Lists each link of a built page to a file or a heading that is not there."""
    pages = {path: Page(path) for path in sorted(top.rglob("*.html"))}
    broken = []
    for path, page in pages.items():
        for link in sorted(page.links):
            parts = urlsplit(link)
            to = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            there = to.is_file() and (
                not parts.fragment or to not in pages or unquote(parts.fragment) in pages[to].ids
            )
            if not there:
                broken.append(f"{path.relative_to(top)}: {link}")
    return broken
