"""Writes what a command found as JSON, for scripts and agents, under keys that are listed here.

Invariants: with `-o json` stdout has JSON alone: what else is printed there, by code of the user
too, goes to stderr; a document has exactly the keys that are listed.
"""

import json
import math
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from typing import Any

import click

_STDOUT = "raysearch.stdout"
"""The key under which a command's context has the stream for its data."""
_STATE = "done, running, interrupted, failed, killed"
_RUN = {"run": "path or URI of the run"}
_FILES = {"files": "paths that were written"}
_JOB = {
    "id": "of the Ray job",
    "name": "of the job file",
    "status": "as Ray has it: PENDING, RUNNING, SUCCEEDED, STOPPED or FAILED",
    "exit_code": "of its driver; null before it ended",
    "began": "in ISO 8601; null before",
    "seconds": "that it took so far",
    "job": "hash of the job",
    "store": "of its runs",
    "run": "name or place of its run; null before there is one",
}
_SEARCH = {
    **_RUN,
    "status": "done or interrupted",
    "exit_code": "of the command",
    "accepted": "number of hypotheses",
    "rejected": "number",
    "undecided": "number",
    "failed": "number",
    "pairs": "evaluations so far, pairs x interventions",
    "alignment": "the accepted hypotheses, as `results --accepted -o json` has them; null before "
    "the run is done",
    "can_accept": "false where no hypothesis could have been accepted, whatever was seen; null "
    "where that is not known",
    "page": "the report; null before the run is done",
}
_SENT = (
    "with --address http://HEAD:8265: as `status` of a Ray job, a document at its end or, with "
    "--no-wait, at once"
)

JSON_KEYS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "compact": (
        "a document",
        _RUN | {"tables": "for each table that was merged: table, rows, before (parts)"},
    ),
    "deploy render": (
        "a document",
        {
            "files": "for each file: path, text; with --to, text is null and path is what was "
            "written"
        },
    ),
    "doctor": (
        "a list, a document for each check",
        {
            "check": "what was tried",
            "ok": "whether it is well",
            "message": "what was found, and what would help",
        },
    ),
    "example": ("a document", {"job": "path of the job file", **_FILES}),
    "export": (
        "a document",
        _RUN
        | {
            "hypothesis": "id; null for the whole alignment",
            "format": "as --format",
            "folders": "that were written",
            "hub": "OWNER/NAME@COMMIT, where it was pushed; else null",
        },
    ),
    "import": ("a document", {"folders": "that were written, one for each unit"}),
    "init": ("a document", {"job": "path of the job file", **_FILES}),
    "jobs": ("a list, a document for each Ray job, the newest first", _JOB),
    "logs": ("JSON lines, one for each line of the log", {"line": "its text"}),
    "plan": (
        "a document",
        {
            "...": "the fields of a plan, as `raysearch.plan` in [Python](python.md) returns them; "
            "`hopeless`: why nothing can be accepted, null where something can",
        },
    ),
    "repair": (
        "a document",
        _RUN | {**_FILES, "among": "files with digests, all as they were written by now"},
    ),
    "report": (
        "a document",
        _RUN | {"page": "path of the page", "figures": "paths that --figures drew"},
    ),
    "results": (
        "a list, a document for each hypothesis; with -o jsonl a line for each",
        {
            "...": "the columns of `hypotheses`, `verdicts` and `selection` in [the "
            "tables](tables.md), and `warnings`"
        },
    ),
    "resume": (f"a document; {_SENT}", _SEARCH),
    "run": ("a document", _SEARCH),
    "runs": (
        "a list, a document for each run, the newest first",
        {
            "id": "name of the run",
            "name": "of its job",
            "created": "in ISO 8601",
            "model": "end of its path",
            "state": f"{_STATE} or unreadable",
            "error": "why it is unreadable; else null",
            "stage": "of the search",
            "level": "chance of any false accept (test.false_accept)",
            "threshold": "test.threshold",
            "alive": "hypotheses without a verdict",
            "accepted": "number",
            "rejected": "number",
            "undecided": "number",
            "failed": "number",
        },
    ),
    "schema": ("the JSON Schema of job files", {"...": "as JSON Schema has them"}),
    "status": (
        "a document; of a Ray job: the keys of `jobs`, and `says`, its last line",
        _RUN
        | {
            "state": f"{_STATE}, as `runs` has it; running too where an object store's run has no "
            "end",
            "says": "the same in words: who works on it, for one",
            "continued": "further pairs of each continuation, by its number",
            "began": "when the run was made, in ISO 8601",
            "drivers": "how often it was begun or resumed",
            "started": "when the last driver started; null before any",
            "last_event": "when the journal was last written; null on an object store",
            "counted": "when what follows was counted",
            "stage": "of the search",
            "alive": "hypotheses without a verdict",
            "accepted": "number",
            "rejected": "number",
            "undecided": "number",
            "failed": "number",
            "fitting": "seeds in training",
            "training": "step, steps, loss and more of the seeds that train; null without any",
            "pairs": "evaluations so far",
            "at_most": "evaluations that may still come",
            "tracking_run_id": "of the tracker; null where it has none",
            "tracking_uri": "of the tracker; null without one",
        },
    ),
    "stop": (
        "a document",
        {**_JOB, "says": "last line of its log", "messages": "what was done, and how to go on"},
    ),
    "submit": (f"a document; {_SENT}", _SEARCH),
    "sync": (
        "a document",
        _RUN
        | {
            "tracking_uri": "of the tracker",
            "tracking_run_id": "of the run there",
            "experiment": "that it is in",
            "address": "of its page; null where the tracker has none",
        },
    ),
    "view": (
        "a document, once the server listens",
        {"address": "to open, with its token", "store": "that it shows"},
    ),
}
"""The form of each command's JSON, and its keys with their meaning."""


def data_alone(context: click.Context, _: click.Parameter, output: str) -> str:
    """Sends what is printed to stdout to stderr, until the command ends, where its data is JSON."""
    if output in ("json", "jsonl"):
        context.meta[_STDOUT] = sys.stdout
        context.with_resource(redirect_stdout(sys.stderr))
    return output


def emit(command: str, **values: Any) -> None:
    """Prints the document of a command."""
    assert tuple(values) == tuple(JSON_KEYS[command][1]), (command, tuple(values))
    emit_value(values)


def emit_value(value: Any, indent: int | None = 2) -> None:
    """Prints a value as JSON; without `indent` on one line. What is not finite is null."""
    emit_text(to_json(value, indent))


def to_json(value: Any, indent: int | None = None) -> str:
    """Returns a value as JSON, where what is not finite is null."""
    return json.dumps(_finite(value), indent=indent)


def emit_text(text: str, end: str = "\n") -> None:
    """Prints a part of the data of a command."""
    context = click.get_current_context(silent=True)
    stream = sys.stdout if context is None else context.meta.get(_STDOUT, sys.stdout)
    print(text, end=end, file=stream, flush=True)


def keys_page() -> str:
    """Returns the table of all commands and their keys, in Markdown."""
    lines = [
        f"| `{command}` | {form} | {_cell(keys)} |" for command, (form, keys) in JSON_KEYS.items()
    ]
    return "\n".join(["| command | JSON | keys |", "|---|---|---|", *lines])


def _cell(keys: Mapping[str, str]) -> str:
    named = (m if k == "..." else f"`{k}`: {m}" for k, m in keys.items())
    return "; ".join(named).replace("|", "&#124;")


def _finite(value: Any) -> Any:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {name: _finite(each) for name, each in value.items()}
        case list() | tuple():
            return [_finite(each) for each in value]
    return value
