"""How Sphinx builds these pages: `make docs`. The whole repository is the source, so that a link to
a job or a script is checked too."""

import re
from pathlib import Path
from typing import Any

project, author = "raysearch", "raysearch contributors"
extensions = ["myst_parser"]
root_doc = "docs/README"
include_patterns = [
    "*.md",
    "docs/**.md",
    "deploy/README.md",
    "jobs/**/README.md",
    "benchmarks/*.md",
]
exclude_patterns = ["build", ".venv", "models"]
html_theme = "alabaster"
html_title = "raysearch"
myst_heading_anchors = 3
suppress_warnings = [
    "toc.not_included",  # a page that is linked to from a text is found
    "misc.highlighting_failure",  # YAML and JSON with ... in them
]


def setup(app: Any) -> None:
    app.connect("source-read", _contents)


def _contents(app: Any, page: str, source: list[str]) -> None:
    """A link to a folder is its text: a built page has no folders to show.

    The pages that the index links to, in their order, are the contents at the side; no page has to
    list them twice.
    """
    beside = (Path(app.srcdir) / page).parent

    def as_text(link: re.Match[str]) -> str:
        return link[1] if (beside / link[2]).is_dir() else link[0]

    source[0] = re.sub(r"\[([^\]]+)\]\(([^)]+)\)", as_text, source[0])
    if page == root_doc:
        pages = re.findall(r"\]\(((?!\.\./)[^)#]+)\.md\)", source[0])
        source[0] += "\n```{toctree}\n:hidden:\n\n" + "\n".join(dict.fromkeys(pages)) + "\n```\n"
