"""Writes a run as one page that needs no network: the viewer, with the run's data inside where they
are small, else in files beside it.

Invariants: a page is a function of its run folder; its Content-Security-Policy names its script and
its style by their SHA-256, so that nothing else runs, and lets it ask for nothing but its own data;
data stand in it as JSON without "<".
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from markupsafe import escape

from raysearch._version import __version__
from raysearch.report.cell_style import level_rules
from raysearch.storage.digests import FILE as DIGESTS
from raysearch.storage.digests import sha256
from raysearch.storage.folder import Folder
from raysearch.storage.open import FolderLike, open_folder
from raysearch.store.progress import FILE as PROGRESS
from raysearch.store.run_folder import RunFolder
from raysearch.store.schemas import TABLES
from raysearch.viewer.plain import data_file, to_json
from raysearch.viewer.run_state import run_state
from raysearch.viewer.run_view import RunView

FILE = "view.html"
FOLDER = "view"
MAX_INSIDE = 4_000_000
"""Bytes of data that a page holds; more lie beside it, so that it opens at once."""
_ELEMENT = re.compile(r'<script type="application/json" id="([a-z0-9-]+)">(.*?)</script>')
SCRIPTS = (
    "dom", "data", "route", "run", "map", "charts", "pairs", "cell", "table", "compare", "runs",
    "report", "main",
)  # fmt: skip
"""The parts of the script, in their order."""


def write_page(run: FolderLike) -> str:
    """Writes the page of a run into its folder, and its data beside it where they are many; returns
    its name.

    Raises: StoreError if a file of the run cannot be read, or the page cannot be written.
    """
    folder = open_folder(run)
    html, beside = run_page(folder)
    data = folder.at(FOLDER)
    for name, content in beside.items():
        data.write(f"{name}.js", content)
    for name in data.names():
        if name.removesuffix(".js") not in beside:
            data.delete(name)
    folder.write(FILE, html.encode())
    return FILE


def stamp_of(run: Folder) -> str:
    """Returns what differs when the tables of a run, its progress or its state do."""
    names = [name for name in (DIGESTS, PROGRESS) if run.exists(name)]
    parts = [] if DIGESTS in names else [run.at("tables").at(t).names() for t in TABLES]
    state = run_state(RunFolder.open(run))
    return sha256(repr([state, parts, *(run.read(name) for name in names)]).encode())


def run_page(run: FolderLike) -> tuple[str, dict[str, bytes]]:
    """Returns the page of a run, and the files beside it by their names, none where all data are
    inside. Raises: StoreError."""
    stamp = stamp_of(open_folder(run))
    view = RunView(run)
    inside: dict[str, Any] = {}
    beside: dict[str, bytes] = {}
    size = 0
    for name, values in view.files():
        inside[name] = values
        beside[name] = data_file(name, values)
        size += len(beside[name])
    if size <= MAX_INSIDE:
        return html_page("run", view.data.facts.run, inside, stamp), {}
    return html_page("run", view.data.facts.run, {}, stamp), beside


def data_in(page: str) -> tuple[str, dict[str, str]]:
    """Returns the stamp of a run's page, and the JSON of the data inside, by name."""
    elements = dict(_ELEMENT.findall(page))
    return json.loads(elements.pop("mode", "{}")).get("stamp") or "", elements


def html_page(kind: str, title: str, data: Mapping[str, Any], stamp: str = "") -> str:
    """Returns the viewer as HTML. `kind`: "run" or "runs"; `data`: what stands in it, by name;
    `stamp`: of the state of the run that they are of; "" where a server answers for data."""
    script, style = _script(), _style()
    elements = "\n".join(
        f'<script type="application/json" id="{name}">{to_json(values)}</script>'
        for name, values in data.items()
    )
    mode = to_json({"kind": kind, "served": not stamp, "stamp": stamp})
    beside = "" if data or not stamp else " file:"
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'{beside}; "
        f"style-src '{_digest(style)}'; img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'"
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="raysearch {__version__}">
<link rel="icon" href="data:,">
<title>{escape(title)} · raysearch</title>
<style>{style}</style>
</head>
<body>
<header id="head"><h1>{escape(title)}</h1></header>
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
    app = files("raysearch.viewer") / "app"
    parts = [(app / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS]
    return f'(() => {{\n"use strict";\n{"".join(parts)}}})();\n'


@cache
def _style() -> str:
    """Returns the style, with the colours of the maps for light, dark and paper."""
    sheet = (files("raysearch.viewer") / "app" / "viewer.css").read_text(encoding="utf-8")
    dark = f"@media screen and (prefers-color-scheme:dark){{{level_rules('dark')}}}"
    return f"{sheet}{level_rules('light')}{dark}"


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
