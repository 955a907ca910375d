"""Renders a run as one self-contained HTML page that makes no network requests.

Invariants: everything from users is escaped (autoescape); the page has no script, and its
Content-Security-Policy forbids every script and request; long tables show their first rows and say
so.
"""

import json
import shlex
import statistics
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from raysearch._version import __version__
from raysearch.core.controls import JOB_CONTROLS
from raysearch.report.cell_style import level_rules
from raysearch.report.charts import intervals, pairs_to_verdict, training_curves
from raysearch.report.control_comparison import RunResults
from raysearch.report.control_rows import COLUMNS
from raysearch.report.heat_tables import effect_maps, heat_maps
from raysearch.report.rows import Row
from raysearch.report.run_data import MAX_ACCEPTED, RunData, read_run
from raysearch.report.sentences import LIMITATIONS, claim, every_threshold, question, title
from raysearch.report.unit_text import words
from raysearch.report.warnings import warning_lines
from raysearch.storage.open import FolderLike, open_folder
from raysearch.visible_text import visible, visible_lines

FILE = "report.html"
MAX_OTHERS = 50
MAX_SETS = 400
MAX_WORKERS = 64
"""Maximum of rows in each table."""
MAX_JOB = 200_000
"""Maximum of characters of job.yaml."""
_TEMPLATES = Path(__file__).parent / "templates"


def write_page(run: FolderLike, results: RunResults | None = None) -> str:
    """Writes report.html into the run folder and returns its name. `results`: as `page`.

    Raises: StoreError as `page`, or if it cannot be written.
    """
    folder = open_folder(run)
    folder.write(FILE, page(folder, results).encode())
    return FILE


def page(run: FolderLike, results: RunResults | None = None) -> str:
    """Returns the page of a run in its current state. `results`: its results, where they were read
    already.

    Raises: StoreError if it has no hypotheses yet, or a file of it cannot be read.
    """
    found = read_run(run, results)
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            run=found,
            score=found.facts.score,
            scores=_scores(found),
            version=__version__,
            style=_style(),
            title=title(found),
            question=question(found),
            claim=claim(found),
            limitations=LIMITATIONS,
            threshold=found.facts.threshold or 0,
            every_threshold=every_threshold(found),
            heat_maps=heat_maps(found),
            effect_maps=effect_maps(found),
            charts={
                "intervals": intervals(found),
                "stops": pairs_to_verdict(found),
                "courses": training_curves(found),
            },
            controls=_controls(found),
            warnings=warning_lines(found.rows.where("verdict", "accept")),
            by_variable=_by_variable(found),
            others=_others(found),
            sets=_sets(found),
            seeds=_seeds(found),
            limits={
                "accepted": MAX_ACCEPTED,
                "others": MAX_OTHERS,
                "sets": MAX_SETS,
                "seeds": MAX_SETS,
                "workers": MAX_WORKERS,
                "variables": MAX_SETS,
                "job": MAX_JOB,
            },
        )
    )


def _controls(found: RunData) -> list[str]:
    """Returns the controls that some accepted hypothesis has, in the order of `results`."""
    return [
        name for name in (*COLUMNS, *JOB_CONTROLS) if any(name in b.iia for b in found.comparisons)
    ]


def _by_variable(found: RunData) -> list[dict[str, Any]]:
    """Counts each variable's verdicts, and how many pairs it took to reject half and all of the
    rejected."""
    rows_of = []
    for variable in found.proposed.values("variable"):
        rows = found.rows.only("variable", "verdict", "n").where("variable", variable)
        counts = Counter(rows.table["verdict"].to_pylist())
        gone = sorted(rows.where("verdict", "reject").table["n"].to_pylist())
        rows_of.append(
            {
                "variable": variable,
                "hypotheses": len(rows),
                "counts": counts,
                "median": statistics.median_low(gone) if gone else None,
                "last": gone[-1] if gone else None,
                "pairs": found.facts.pairs.get(variable),
            }
        )
    return rows_of


def _others(found: RunData) -> list[tuple[str, Sequence[Row], int]]:
    """Returns (heading, first rows, count) for each verdict but accept, highest score first."""
    kinds = (
        ("undecided", "Undecided"),
        ("failed", "Failed"),
        ("reject", f"Rejected, the highest {found.facts.score.name} first"),
    )
    rows_of: list[tuple[str, Sequence[Row], int]] = []
    for verdict, name in kinds:
        at = [i for i, row in enumerate(found.rows.only("verdict")) if row["verdict"] == verdict]
        if at:
            rows_of.append((name, found.rows.take(at[:MAX_OTHERS]), len(at)))
    return rows_of


def _sets(found: RunData) -> list[tuple[Row, Row]]:
    """Returns (accepted hypothesis, one of its sets)."""
    of: dict[str, list[Row]] = {}
    for row in found.sets:
        of.setdefault(row["hypothesis"], []).append(row)
    return [(b.row, row) for b in found.comparisons for row in of.get(b.row["hypothesis"], ())]


def _scores(found: RunData) -> dict[str, Any] | None:
    """Returns the declared scores' names and accepted hypotheses' means; None without any."""
    rows = [(b.row, json.loads(b.row["scores"])) for b in found.comparisons if b.row.get("scores")]
    return {"names": sorted(rows[0][1]), "rows": rows} if rows else None


def _seeds(found: RunData) -> list[tuple[Row, Row, Row | None]]:
    """Returns (accepted hypothesis, final state of one seed, holdout estimate of that seed)."""
    ends = {
        (f["intervention"], f["seed"]): f
        for f in found.fits
        if f["status"] not in (None, "holdout")
    }
    holdout = {(f["intervention"], f["seed"]): f for f in found.fits if f["status"] == "holdout"}
    rows_of = []
    for b in found.comparisons:
        own = sorted(key for key in ends if key[0] == b.row["intervention"])
        rows_of += [(b.row, ends[key], holdout.get(key)) for key in own]
    return rows_of


def _style() -> Markup:
    """Returns the page's CSS, with the colours of the heat maps for light, dark and paper."""
    light, dark = level_rules("light"), level_rules("dark")
    return Markup(
        f"{(_TEMPLATES / 'style.css').read_text(encoding='utf-8')}{light}"
        f"@media screen and (prefers-color-scheme:dark){{{dark}}}"
    )


def _literal(value: object) -> object:
    """Escapes invisible and direction-changing characters of a text; keeps other values."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        finalize=_literal,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["sh"] = shlex.quote
    environment.filters["in_lines"] = lambda text: escape(visible_lines(text))
    environment.filters["share"] = lambda value: "–" if value is None else f"{value:.3f}"
    environment.filters["capital"] = lambda text: text[:1].upper() + text[1:]
    environment.filters["or_dash"] = lambda value: "–" if value is None else value
    environment.filters["units"] = words
    return environment
