"""Writes the report of a run as sections of plain blocks: question, alignment, what was not
accepted, sets, fits, claim, cost, provenance.

Invariants: the figures are those of the tables, the words those of the command line; long tables
show their first rows and say so; all text is literal.
"""

import json
import shlex
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from raysearch._version import __version__
from raysearch.core.control_kinds import JOB_CONTROLS
from raysearch.report.control_comparison import COLUMNS, ControlComparison
from raysearch.report.row_sequence import TableRow
from raysearch.report.run_data import MAX_ACCEPTED, RunData
from raysearch.report.sentences import (
    claim,
    every_threshold,
    interval_levels,
    limitations,
    question,
)
from raysearch.report.unit_text import words
from raysearch.report.warnings import warning_lines
from raysearch.viewer import report_notes
from raysearch.viewer.report_blocks import (
    PageBlock,
    code,
    dash,
    facts,
    fold,
    heading,
    interval,
    share,
    table,
    text,
)  # fmt: skip
from raysearch.visible_text import visible, visible_lines

MAX_OTHERS = 50
MAX_SETS = 400
MAX_WORKERS = 64
"""Maximum of rows in each table."""
MAX_JOB = 200_000
"""Maximum of characters of job.yaml."""


def sections(data: RunData) -> list[dict[str, Any]]:
    """Returns the sections that say something, in their order."""
    all_of = (
        ("question", "Question", "The question", _question(data)),
        ("alignment", "Alignment", "The alignment", _alignment(data)),
        ("effects", "Attribution", "What attribution foresaw", _effects(data)),
        ("rejected", "Not accepted", "What was not accepted, and how early", _rejected(data)),
        ("scores", "Scores", "Scores of what was accepted", _scores(data)),
        ("sets", "Sets", "Accepted hypotheses by set of pairs", _sets(data)),
        ("fits", "Fits", "Subspaces that were fit", _fits(data)),
        ("claim", "What it says", "What these results say", _claim(data)),
        ("cost", "Cost", "Cost", _cost(data)),
        ("provenance", "Provenance", "Provenance", _provenance(data)),
    )
    return [
        {"id": name, "short": short, "title": title, "blocks": blocks}
        for name, short, title, blocks in all_of
        if blocks
    ]


def _question(data: RunData) -> list[PageBlock]:
    undone = _undone(data)
    blocks = [*undone, *map(text, question(data))]
    if (e := data.example) is None:
        return blocks
    rows = [["base", "(a tensor)" if e.base is None else e.base, e.answer]]
    rows += [
        [name if name == "source" else f"source {name}", "(a tensor)" if t is None else t, answer]
        for name, t, answer in e.sources
    ]
    rows += [[f"base, with {v} from the source", "", answer] for v, answer in e.counterfactual]
    return [*blocks, heading("One of the pairs"), table(["", "input", "answer"], rows, "example")]


def _undone(data: RunData) -> list[PageBlock]:
    if not (data.waiting or data.unestimated):
        return []
    more = f", and {data.unestimated} accepted ones no holdout estimate" * bool(data.unestimated)
    return [
        text(
            f"This run is not done. {data.waiting} hypotheses (controls among them) have no "
            f"verdict yet{more}. What stands here may grow, and an accept stays one. Go on with: "
            f"raysearch resume {shlex.quote(data.facts.run)}",
            "warning",
        )
    ]


def _alignment(data: RunData) -> list[PageBlock]:
    if not data.comparisons:
        return [text(report_notes.none_accepted(bool(data.waiting), data.ablates))]
    score = data.facts.score.name
    controls = [
        name for name in (*COLUMNS, *JOB_CONTROLS) if any(name in b.iia for b in data.comparisons)
    ]
    head = ["variable", "layer: where", score, "95 % interval", "at every threshold", "n"]
    head += [f"holdout {score}", "keep IIA", "copies"]
    head += [name.replace("_", " ") for name in controls]
    warned = [b.warning for b in data.comparisons if b.warning]
    lines = [*warning_lines(data.rows.where("verdict", "accept")), *warned]
    as_well = [i for i, b in enumerate(data.comparisons) if b.as_well]
    shown = table(
        head,
        [_accepted(b, controls, data) for b in data.comparisons],
        "alignment-table",
        _first(data, MAX_ACCEPTED, data.count("accept")),
        as_well,
    )
    note = report_notes.alignment_note(
        data.facts.score,
        data.ablates,
        interval_levels(data),
        every_threshold(data),
        bool(as_well),
        data.facts.fixed,
    )
    chart = {
        "kind": "intervals",
        "names": {name: name.replace("_", " ") for name in controls},
        "rows": [_bar(b) for b in data.comparisons[:40]],
        "score": score,
        "description": report_notes.score_note(data.facts.score, data.ablates),
        "threshold": data.facts.threshold,
        "of": data.count("accept"),
    }
    return [*(text(line, "warning") for line in lines), shown, text(note, "soft"), chart]


def _accepted(b: ControlComparison, controls: Sequence[str], data: RunData) -> list[Any]:
    row = b.row
    different = row["distinct"] is not None and row["distinct"] < row["n"]
    return [
        row["variable"],
        _where(row) | {"small": row["hypothesis"][:8]},
        share(row["iia"]),
        {
            "text": interval(row["low"], row["high"]),
            "small": None if row["fcr_low"] is None else interval(row["fcr_low"], row["fcr_high"]),
        },
        _span(row, data),
        {"text": dash(row["n"]), "small": f"{row['distinct']} different" if different else None},
        _holdout(row),
        share(row["keep_iia"]),
        dash(row["copies"]),
        *(
            {
                "text": share(b.iia.get(name)),
                "small": interval(*b.margins[name]) if name in b.margins else None,
            }
            for name in controls
        ),
    ]


def _holdout(row: TableRow) -> Any:
    if row["holdout_iia"] is None:
        return "–"
    on = f"{share(row['holdout_iia'])} (n = {row['holdout_n']})"
    return {"text": on, "small": interval(row["holdout_low"], row["holdout_high"])}


def _bar(b: ControlComparison) -> dict[str, Any]:
    row = b.row
    named = ("iia", "low", "high", "holdout_iia")
    return {
        "name": visible(f"{row['variable']} ~ {words(row['units'])}"),
        **{name: row[name] for name in named},
        "controls": {name: iia for name, iia in b.iia.items() if iia is not None},
    }


def _effects(data: RunData) -> list[PageBlock]:
    return [text(report_notes.EFFECTS, "soft"), {"kind": "effects"}] if data.effects else []


def _rejected(data: RunData) -> list[PageBlock]:
    head = ["variable", "hypotheses", "accepted", "rejected", "undecided", "failed", "waiting"]
    head += ["half rejected within (pairs)", "last rejected at (pairs)", "change pairs at hand"]
    rows = [_counts(data, v) for v in data.proposed.values("variable")]
    stops = Counter(
        (_bin(row["n"]), row["verdict"])
        for row in data.rows.only("n", "verdict").where("verdict", "accept", "reject", "undecided")
    )
    chart = {"kind": "stops", "bins": [[b, v, n] for (b, v), n in sorted(stops.items())]}
    note = _first(data, MAX_SETS, len(rows))
    counts = table(head, rows[:MAX_SETS], "by-variable", note)
    return [counts, chart, *_others(data), *_failures(data)]


def _others(data: RunData) -> list[PageBlock]:
    """Returns a table of the hypotheses of each verdict but accept."""
    score = data.facts.score.name
    blocks: list[PageBlock] = []
    head = ["variable", "layer: where", score, "95 % interval", "at every threshold", "n", ""]
    for verdict, name in (
        ("undecided", "Undecided"),
        ("failed", "Failed"),
        ("reject", f"Rejected, the highest {score} first"),
    ):
        at = data.rows.places("verdict", verdict).to_pylist()
        if at:
            own = [_other(row, data) for row in data.rows.take(at[:MAX_OTHERS])]
            shown = table(head, own, None, _first(data, MAX_OTHERS, len(at)))
            blocks.append(fold(f"{name} ({len(at)})", [shown], verdict == "undecided"))
    return blocks


def _failures(data: RunData) -> list[PageBlock]:
    if not data.failures:
        return []
    rows = [list(failure) for failure in data.failures[:MAX_OTHERS]]
    note = _first(data, MAX_OTHERS, len(data.failures))
    shown = table(["kind", "message", "times"], rows, None, note)
    return [fold(f"Failures on the way ({sum(n for *_, n in data.failures)})", [shown])]


def _other(row: TableRow, data: RunData) -> list[Any]:
    figures = [share(row["iia"]), interval(row["low"], row["high"]), _span(row, data)]
    return [row["variable"], _where(row), *figures, dash(row["n"]), row["reason"] or ""]


def _counts(data: RunData, variable: str) -> list[Any]:
    """Counts a variable's verdicts, and how many pairs it took to reject half and all of the
    rejected."""
    rows = data.rows.only("variable", "n", "verdict").where("variable", variable)
    counts = Counter(rows.column("verdict").to_pylist())
    gone = sorted(rows.where("verdict", "reject").column("n").to_pylist())
    verdicts = (counts[v] for v in ("accept", "reject", "undecided", "failed", None))
    half = statistics.median_low(gone) if gone else None
    last = gone[-1] if gone else None
    pairs = data.facts.pairs.get(variable)
    return [variable, len(rows), *verdicts, *map(dash, (half, last, pairs))]


def _scores(data: RunData) -> list[PageBlock]:
    rows = [(b.row, json.loads(b.row["scores"])) for b in data.comparisons if b.row.get("scores")]
    if not rows:
        return []
    names = sorted(rows[0][1])
    body = [
        [row["variable"], _where(row), *(share(means[name]) for name in names)]
        for row, means in rows
    ]
    head = ["variable", "layer: where", *(name.replace("_", " ") for name in names)]
    return [table(head, body), text(report_notes.scores(data.facts.score), "soft")]


def _sets(data: RunData) -> list[PageBlock]:
    of: dict[str, list[TableRow]] = {}
    for row in data.sets:
        of.setdefault(row["hypothesis"], []).append(row)
    both = [(b.row, s) for b in data.comparisons for s in of.get(b.row["hypothesis"], ())]
    if not both:
        return []
    rows = [
        [
            row["variable"],
            _where(row),
            s["set"],
            share(s["iia"]),
            interval(s["low"], s["high"]),
            s["matches"],
            s["n"],
        ]
        for row, s in both[:MAX_SETS]
    ]
    head = ["variable", "layer: where", "set", data.facts.score.name, "95 % interval", "matches"]
    shown = table([*head, "n"], rows, None, _first(data, MAX_SETS, len(both)))
    return [shown, text(report_notes.SETS, "soft")]


def _fits(data: RunData) -> list[PageBlock]:
    ends: dict[tuple[str, int], TableRow] = {}
    held: dict[tuple[str, int], TableRow] = {}
    for f in data.fits:
        if f["status"] is not None:
            of = held if f["status"] == "holdout" else ends
            of[f["intervention"], f["seed"]] = f
    rows = []
    for b in data.comparisons:
        for key in sorted(key for key in ends if key[0] == b.row["intervention"]):
            end, tested = ends[key], ends[key]["fit"] == b.row["fit"]
            on_holdout = b.row if tested else held.get(key)
            figures = (
                share(end["validation_iia"]),
                "–" if on_holdout is None else share(on_holdout["holdout_iia"]),
            )
            own = [b.row["variable"], _where(b.row), end["seed"], end["status"], end["step"]]
            rows.append([*own, *figures, "yes" if tested else ""])
    if not rows:
        return []
    head = ["variable", "layer: where", "seed", "end", "steps", "validation IIA", "holdout IIA"]
    note = _first(data, MAX_SETS, len(rows))
    return [
        text(report_notes.FITS, "soft"),
        table([*head, "tested"], rows[:MAX_SETS], "seeds", note),
        *_courses(data),
    ]


def _courses(data: RunData) -> list[PageBlock]:
    """Returns the course of training of each seed, as the viewer draws fits."""
    titles = {
        b.row["intervention"]: f"{b.row['variable']} ~ {words(b.row['units'])}"
        for b in data.comparisons
    }
    fits: dict[str, list[list[Any]]] = {}
    for f in data.fits:
        if f["intervention"] in titles and f["status"] is None:
            row = [f["seed"], f["step"], f["loss"], f["validation_iia"], None]
            fits.setdefault(f["intervention"], []).append(row)
    return [
        {"kind": "training", "title": visible(titles[name]), "fits": rows}
        for name, rows in list(fits.items())[:40]
    ]


def _claim(data: RunData) -> list[PageBlock]:
    limits = {"kind": "list", "items": limitations(data)}
    return [*map(text, claim(data)), heading("What they do not say"), limits]


def _cost(data: RunData) -> list[PageBlock]:
    cost, workers = data.cost, data.cost.workers
    of = ", ".join(f"{worker}: {seconds:.2f} s" for worker, seconds in workers.items())
    return [
        facts(
            {
                "pairs counted": f"{cost.pairs} (interventions × pairs; what came back after the "
                "verdict is not among them)",
                "rows that the model ran": cost.rows,
                **{f"seconds on {device}": f"{s:.2f}" for device, s in cost.seconds.items()},
                "workers": f"{len(workers)}"
                + (f" ({of})" if 0 < len(workers) <= MAX_WORKERS else ""),
                "near-ties decided again": cost.near_ties,
                "repeats that said otherwise": cost.conflicts,
            }
        ),
        text(report_notes.COST, "soft"),
    ]


def _provenance(data: RunData) -> list[PageBlock]:
    info: Mapping[str, Any] = data.info
    commit = (info.get("facts") or {}).get("commit")
    job = [code(visible_lines(data.job_text[:MAX_JOB]))]
    if len(data.job_text) > MAX_JOB:
        more = f"The first {MAX_JOB} of {len(data.job_text)} characters; all: job.yaml"
        job.append(text(f"{more} in the folder of the run", "soft"))
    return [
        facts(
            {
                **{
                    key.replace("_", " "): dash(value)
                    for key, value in info.items()
                    if not isinstance(value, Mapping)
                },
                **info.get("versions", {}),
                **({"model commit": commit} if commit else {}),
                "this page": f"raysearch {__version__}",
            }
        ),
        fold("job.yaml, as resolved", job),
    ]


def _where(row: TableRow) -> dict[str, Any]:
    return {"text": words(row["units"]), "cell": row["hypothesis"]}


def _span(row: TableRow, data: RunData) -> Any:
    to, start = row["accept_to"], row["reject_from"]
    if to is None and start is None:
        return "–"
    told = [f"accept to {to:.2f}"] if to is not None else []
    told += [f"reject from {start:.2f}"] if start is not None else []
    return {"text": " ".join(told), "span": [to, start, data.facts.threshold or 0]}


def _bin(n: int | None) -> int:
    """Returns the power of two up to which a number of pairs is counted."""
    return max((n or 1) - 1, 0).bit_length()


def _first(data: RunData, shown: int, of: int) -> str | None:
    run = shlex.quote(data.facts.run)
    return f"The first {shown} of {of}; all: raysearch results {run}" if of > shown else None
