"""Summarises a run as text and HTML: its question, its verdicts, and the alignment with intervals.

Invariants: every value is escaped; an accept is never shown without its interval, nor the alignment
without its claim.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any

import pyarrow as pa

from raysearch.job import Job
from raysearch.old_paths import OldName
from raysearch.report.claim import ablations, claim_words
from raysearch.report.labels import VERDICT_WORDS, ScoreLabel, score_label
from raysearch.report.population_text import population_name, population_words
from raysearch.report.unit_text import words
from raysearch.visible_text import visible

_LEFT = "text-align: left"


@dataclass(frozen=True, slots=True)
class Summary:
    """A run's summary. `results`: its hypotheses; `warnings`: accepted ones with a control that
    does as well; `continued`: as in `RunInfo`."""

    run: str
    place: str
    job: Job
    results: pa.Table
    warnings: tuple[str, ...] = ()
    continued: Mapping[str, Any] = field(default_factory=dict)
    asked = OldName("question")
    judged = OldName("score")

    @property
    def score(self) -> ScoreLabel:
        """The score that the test was on."""
        return score_label(self.job.model_dump())

    @property
    def columns(self) -> tuple[str, ...]:
        """The column headings of `alignment`."""
        return (
            "variable",
            "layer: site",
            self.score.name,
            "95 %",
            "n",
            f"holdout {self.score.name}",
            "n",
        )

    @property
    def question(self) -> str:
        """The question in one line."""
        variables = self.results["variable"].unique().to_pylist()
        return (
            f"{self.results.num_rows} hypotheses on {', '.join(variables)} in {self.job.model.path}"
        )

    @property
    def counts(self) -> str:
        """The verdicts so far."""
        found = Counter(self.results["verdict"].to_pylist())
        return ", ".join(
            f"{found[verdict]} {word}"
            for verdict, word in VERDICT_WORDS.items()
            if verdict or found[verdict]
        )

    @property
    def claim(self) -> str:
        """The meaning of an accept, and its limits; first of all that there is none, if so."""
        job = self.job.model_dump()
        population = population_words(job, self.results)
        ablates = ablations(self.results["units"].to_pylist())
        name = population_name(job, self.results)
        verdicts = self.results["verdict"].to_pylist()
        return claim_words(
            *(job, population, self.results.num_rows, ablates, self.continued, name), verdicts
        )

    @property
    def alignment(self) -> list[tuple[str, ...]]:
        """One row of text for each accepted hypothesis."""
        rows = [row for row in self.results.to_pylist() if row["verdict"] == "accept"]
        return [
            _cells(row)
            for row in sorted(rows, key=lambda r: (r["variable"], r["layer"] is None, r["layer"]))
        ]

    def html(self) -> str:
        """Returns the summary as HTML, for a notebook."""
        lines = [html("b", self.run), html("span", self.question), html("span", self.counts)]
        head = html("p", "<br>".join(lines), raw=True)
        foot = [
            html("p", self.claim),
            *(html("p", f"Warning: {w}") for w in self.warnings),
            html("code", self.place),
        ]
        return html("div", head + _table(self.columns, self.alignment) + "".join(foot), raw=True)

    def __str__(self) -> str:
        rows = (
            [tuple(map(visible, row)) for row in (self.columns, *self.alignment)]
            if self.alignment
            else []
        )
        wide = [max(len(row[i]) for row in rows) for i in range(len(self.columns))] if rows else []
        table = [
            "  ".join(cell.ljust(w) for cell, w in zip(row, wide, strict=True)).rstrip()
            for row in rows
        ]
        warnings = [f"Warning: {w}" for w in self.warnings]
        return "\n".join(
            map(
                visible,
                (
                    f"Run {self.run}",
                    self.question,
                    self.counts,
                    *table,
                    self.claim,
                    *warnings,
                    self.place,
                ),
            )
        )


def html(tag: str, content: str, style: str = "", raw: bool = False) -> str:
    """Returns an HTML element. `raw`: its content is HTML already."""
    inside = content if raw else escape(visible(content))
    return f'<{tag} style="{style}">{inside}</{tag}>' if style else f"<{tag}>{inside}</{tag}>"


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    interval = f"{_number(row['low'])} to {_number(row['high'])}"
    holdout = _number(row["holdout_iia"]), str(row["holdout_n"] or "-")
    return (
        row["variable"],
        words(row["units"]),
        _number(row["iia"]),
        interval,
        str(row["n"]),
        *holdout,
    )


def _number(share: float | None) -> str:
    return "-" if share is None else f"{share:.3f}"


def _table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    body = "".join(_row("td", row) for row in rows)
    if not body:
        return ""
    return html(
        "table",
        html("thead", _row("th", columns), raw=True) + html("tbody", body, raw=True),
        raw=True,
    )


def _row(tag: str, cells: tuple[str, ...]) -> str:
    made = [html(tag, cell, _LEFT if i < 2 else "") for i, cell in enumerate(cells)]
    return html("tr", "".join(made), raw=True)
