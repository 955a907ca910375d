"""Finds one hypothesis of a run by what a user says of it: the beginning of its id, or its place.

Invariants: never guesses: where several are meant, the error lists them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from raysearch.errors import JobError
from raysearch.report.labels import VERDICT_WORDS
from raysearch.report.results_table import read_table, results
from raysearch.report.row_sequence import Row
from raysearch.report.unit_text import words
from raysearch.storage.open_folder import FolderLike
from raysearch.store.run_folder import RunFolder

SHORTEST_ID = 6
"""Digits of an id that are shown at least."""
SHOWN = 5
"""Candidates that an error lists."""
PLACE = ("variable", "layer", "component", "head", "position")
"""The columns by which a hypothesis may be picked."""


def id_length(ids: Sequence[str]) -> int:
    """Returns how many digits tell the ids of a run apart, as git does with those of commits."""
    longest = max(map(len, ids), default=SHORTEST_ID)
    for length in range(SHORTEST_ID, longest):
        if len({each[:length] for each in ids}) == len(ids):
            return length
    return longest


def short_ids(run: FolderLike) -> int:
    """Returns how many digits tell the hypotheses of a run apart. Raises: StoreError."""
    return id_length(read_table(run, "hypotheses", ("hypothesis",))["hypothesis"].to_pylist())


def find_hypothesis(
    run: RunFolder, beginning: str | None, place: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the one row of the results whose id begins so and which lies at that place; of
    several the only one that was accepted.

    Args:
        beginning: of the id; None: any.
        place: values of some columns of `PLACE`.

    Raises: JobError where there is none, or several; StoreError.
    """
    rows: list[dict[str, Any]] = results(run.folder, controls=beginning is not None).to_pylist()
    started = [row for row in rows if row["hypothesis"].startswith(beginning or "")]
    found = [row for row in started if all(row[name] == v for name, v in place.items())]
    accepted = [row for row in found if row["verdict"] == "accept"] if place else []
    if len(found) == 1 or len(accepted) == 1:
        return found[0] if len(found) == 1 else accepted[0]
    asked = ([] if beginning is None else [beginning]) + [f"{n} {v}" for n, v in place.items()]
    what = ", ".join(asked)
    if not found:
        raise JobError(f"{what}: {_none(run, rows, started, place)}")
    length = id_length([row["hypothesis"] for row in rows])
    first = accepted or found
    shown = "; ".join(_named(row, length) for row in first[:SHOWN]) + "; ..." * (len(first) > SHOWN)
    how = "were accepted" if accepted else "are so" if place else "begin so"
    more = "give more of the id" if not place else "give an id, or more of its place"
    raise JobError(f"{what or repr(what)}: {len(first)} hypotheses {how} ({shown}); {more}")


def _none(
    run: RunFolder, rows: Sequence[Row], started: Sequence[Row], place: Mapping[str, Any]
) -> str:
    """Says what there is in the place of what was asked for."""
    if not started:
        example = f"such as {rows[0]['hypothesis']}" if rows else "none yet"
        return (
            f"no hypothesis of run {run.info.id} begins so; `raysearch results {run.place}` has "
            f"their ids, {example}"
        )
    known = {name: {row[name] for row in started} for name in place}
    wrong = [name for name, value in place.items() if value not in known[name]] or list(place)[-1:]
    there = ", ".join(sorted(map(str, known[wrong[0]] - {None}), key=_by_number)[:30])
    beside = " and ".join(f"{name} {value}" for name, value in place.items())
    if place[wrong[0]] in known[wrong[0]]:
        return f"no hypothesis of run {run.info.id} is at {beside}; leave out one of these"
    return f"run {run.info.id} has no {wrong[0]} {place[wrong[0]]!r}; it has {there or 'none'}"


def _by_number(text: str) -> tuple[float, str]:
    return (float(text) if text.isdigit() else -1.0), text


def _named(row: Row, length: int) -> str:
    verdict = VERDICT_WORDS[row["verdict"]]
    return f"{row['hypothesis'][:length]} {row['variable']} at {words(row['units'])}, {verdict}"
