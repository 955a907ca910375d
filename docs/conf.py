"""How Sphinx builds these pages: `make docs`. The whole repository is the source, so that a link to
a job or a script is checked too. Pages are plain Markdown: what the site adds is added here."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

project, author = "raysearch", "raysearch contributors"
copyright = "raysearch contributors, Apache-2.0"
extensions = ["myst_nb", "sphinx_copybutton"]
root_doc = "docs/README"
include_patterns = [
    "*.md",
    "docs/**.md",
    "docs/**.ipynb",
    "deploy/README.md",
    "jobs/**/README.md",
    "benchmarks/*.md",
]
exclude_patterns = ["build", ".venv", "models", "docs/site"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # `make notebook` executes, and a test holds the outputs
suppress_warnings = [
    "toc.not_included",  # a page that is linked to from a text is found
    "misc.highlighting_failure",  # YAML and JSON with ... in them
]

html_theme = "furo"
html_title = "raysearch"
html_static_path = ["site/static"]
html_extra_path = ["site/top"]
html_favicon = "site/static/favicon.svg"
html_css_files = ["site.css"]
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0b5394", "color-brand-content": "#0b5394"},
    "dark_css_variables": {"color-brand-primary": "#7cb7f5", "color-brand-content": "#7cb7f5"},
}
highlight_language = "text"
copybutton_selector = "div:not(.output) > div.highlight > pre"

INDICES = (root_doc, "docs/decisions/README")
"""The pages whose links are the contents at the side."""


def setup(app: Any) -> None:
    app.connect("source-read", _contents)


def _contents(app: Any, page: str, source: list[str]) -> None:
    """A link to a folder is its text: a built page has no folders to show.

    The pages that an index links to, in their order, are the contents at the side, under the
    headings of the index; no page has to list them twice.
    """
    beside = (Path(app.srcdir) / page).parent

    def as_text(link: re.Match[str]) -> str:
        return link[1] if (beside / link[2]).is_dir() else link[0]

    source[0] = re.sub(r"\[([^\]]+)\]\(([^)]+)\)", as_text, source[0])
    if page in INDICES:
        source[0] += "".join(_trees(source[0]))


def _trees(index: str) -> Iterator[str]:
    """Yields a hidden table of contents for each heading of an index, with the titles that the
    links have there."""
    seen: set[str] = set()
    for part in re.split(r"^## ", index, flags=re.MULTILINE):
        entries = []
        for title, page in re.findall(r"\[([^\]]+)\]\(([^)#:]+)\.(?:md|ipynb)\)", part):
            if page not in seen:
                seen.add(page)
                entries.append(f"{title} <{page}>")
        if entries:
            head = ["", "```{toctree}", ":hidden:", f":caption: {part.splitlines()[0]}", ""]
            yield "\n".join([*head, *entries, "```", ""])
