"""Writes a run as one page that needs no network: the viewer, with the run's data inside where they
are small, else in files beside it.

Invariants: a page is a function of its run folder; its Content-Security-Policy names its script and
its style by their SHA-256, so that nothing else runs, and lets it ask for nothing but its own data;
data stand in it as JSON without "<".
"""

import base64
import hashlib
import html
import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files as resources
from itertools import chain, islice

from raysearch._version import __version__
from raysearch.report.heatmap_colours import level_rules
from raysearch.report.run_results import RunResults
from raysearch.storage.digests_json import FILE as DIGESTS
from raysearch.storage.digests_json import sha256
from raysearch.storage.folder import Folder
from raysearch.storage.open_folder import FolderLike, open_folder
from raysearch.store.progress_file import FILE as PROGRESS
from raysearch.store.run_folder import RunFolder
from raysearch.store.run_history import run_state
from raysearch.store.schemas import TABLES
from raysearch.viewer.page_json import call, to_json
from raysearch.viewer.run_view import RunView

FILE = "report.html"
FOLDER = "view"
MAX_INSIDE = 4_000_000
"""Characters of data that a page holds; more lie beside it, so that it opens at once."""
_ELEMENT = re.compile(r'<script type="application/json" id="([a-z0-9-]+)">(.*?)</script>')
SCRIPTS = (
    "dom", "data", "route", "run", "map", "charts", "pairs", "cell", "table", "compare", "runs",
    "report", "keys", "main",
)  # fmt: skip
"""The parts of the script, in their order."""


def write_page(run: FolderLike, results: RunResults | None = None) -> str:
    """Writes the page of a run into its folder, and its data beside it where they are many; returns
    its name. `results`: those of the run, where they were read already.

    Raises: StoreError as `run_page`, or if it cannot be written.
    """
    folder = open_folder(run)
    whole, beside = run_page(folder, results)
    stamp, _ = data_in(whole)
    data, written = folder.at(FOLDER), set()
    for name, text in beside:
        data.write(f"{name}.js", call(name, text, stamp))
        written.add(f"{name}.js")
    for name in set(data.names()) - written:
        data.delete(name)
    folder.write(FILE, whole.encode())
    return FILE


def page(run: FolderLike, results: RunResults | None = None) -> str:
    """Returns the page of a run to stand alone: of a run with many data it has no pairs. `results`:
    as `write_page`.

    Raises: StoreError as `run_page`.
    """
    whole, beside = run_page(run, results)
    first = dict(islice(beside, 2))
    folder = open_folder(run)
    return html_page("run", folder.name, first, stamp_of(folder)) if first else whole


def stamp_of(run: Folder) -> str:
    """Returns what differs when the tables of a run, its progress or its state do."""
    names = [name for name in (DIGESTS, PROGRESS) if run.exists(name)]
    parts = [] if DIGESTS in names else [run.at("tables").at(t).names() for t in TABLES]
    state = run_state(RunFolder.open(run))
    return sha256(repr([state, parts, *(run.read(name) for name in names)]).encode())


def run_page(
    run: FolderLike, results: RunResults | None = None
) -> tuple[str, Iterator[tuple[str, str]]]:
    """Returns the page of a run, and name and JSON of what lies beside it: the index, the report,
    and bundles, none where all data are inside. `results`: as `write_page`.

    Raises: StoreError if it has no hypotheses yet, or a file of it cannot be read.
    """
    stamp = stamp_of(open_folder(run))
    view = RunView(run, results)
    files = ((name, to_json(values)) for name, values in view.files())
    inside: dict[str, str] = {}
    size = 0
    for name, text in files:
        inside[name] = text
        size += len(text)
        if size > MAX_INSIDE:
            return html_page("run", view.data.facts.run, {}, stamp), chain(inside.items(), files)
    return html_page("run", view.data.facts.run, inside, stamp), iter(())


def data_in(page: str) -> tuple[str, dict[str, str]]:
    """Returns the stamp of a run's page, and the JSON of the data inside, by name."""
    elements = dict(_ELEMENT.findall(page))
    return json.loads(elements.pop("mode", "{}")).get("stamp") or "", elements


def html_page(kind: str, title: str, data: Mapping[str, str], stamp: str = "") -> str:
    """Returns the viewer as HTML.

    Args:
        kind: "run" or "runs".
        data: the JSON texts that the page holds, by name.
        stamp: identifies the state of the run that the data show; "" where a server has the data.
    """
    script, style = _script(), _style()
    elements = "\n".join(
        f'<script type="application/json" id="{name}">{text}</script>'
        for name, text in data.items()
    )
    mode = to_json({"kind": kind, "served": not stamp, "stamp": stamp})
    beside = "" if data or not stamp else " file:"
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'{beside}; "
        f"style-src '{_digest(style)}'; img-src data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'"
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="raysearch {__version__}">
<link rel="icon" href="data:,">
<title>{html.escape(title)} · raysearch</title>
<style>{style}</style>
</head>
<body>
<header id="head"><h1>{html.escape(title)}</h1></header>
<main id="main"><noscript>This page draws itself with its own script.</noscript></main>
<aside id="cell" hidden></aside>
<script type="application/json" id="mode">{mode}</script>
{elements}
<script>{script}</script>
</body>
</html>
"""


@cache
def _script() -> str:
    app = resources("raysearch.viewer") / "app"
    parts = [(app / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS]
    return f'(() => {{\n"use strict";\n{"".join(parts)}}})();\n'


@cache
def _style() -> str:
    """Returns the style, with the colours of the maps for light, dark and paper."""
    sheet = (resources("raysearch.viewer") / "app" / "viewer.css").read_text(encoding="utf-8")
    dark = f"@media screen and (prefers-color-scheme:dark){{{level_rules('dark')}}}"
    return f"{sheet}{level_rules('light')}{dark}"


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
