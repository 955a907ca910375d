"""Finds one hypothesis of a run by what a user says of it: the beginning of its id, or its place.

Invariants: never guesses: where several are meant, the error lists them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from raysearch.errors import JobError
from raysearch.report.labels import VERDICT_WORDS
from raysearch.report.results_table import read_table, results
from raysearch.report.row_sequence import TableRow
from raysearch.report.unit_text import subspace_words, words
from raysearch.storage.open_folder import FolderLike
from raysearch.store.run_folder import RunFolder

SHORTEST_ID = 6
"""Digits of an id that are shown at least."""
SHOWN = 5
"""Candidates that an error lists."""
PLACE = ("variable", "layer", "component", "head", "position", "subspace", "features")
"""The columns by which a hypothesis may be picked; `subspace` is in words, such as "das 8"."""
FLAGS = {name: f"--{'k' if name == 'features' else name}" for name in PLACE}
"""The flag of `export` for each column of `PLACE`."""
NONE = {"features": "none of its subspaces has a size (whole vectors)"}
"""Words for a column that is empty in all rows, where "none" would be unclear."""


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
        place: values of some columns of `PLACE`; of a subspace also its name alone, "das".

    Raises: JobError where there is none, or several; StoreError.
    """
    read = results(run.folder, controls=beginning is not None).to_pylist()
    rows = [{**row, "subspace": subspace_words(row["units"])} for row in read]
    started = [row for row in rows if row["hypothesis"].startswith(beginning or "")]
    found = [row for row in started if all(_is_at(row, name, v) for name, v in place.items())]
    accepted = [row for row in found if row["verdict"] == "accept"] if place else []
    if len(found) == 1 or len(accepted) == 1:
        return found[0] if len(found) == 1 else accepted[0]
    asked = [] if beginning is None else [beginning]
    what = ", ".join(asked + _flags(place))
    if not found:
        raise JobError(f"{what}: {_none(run, rows, started, place)}")
    length = id_length([row["hypothesis"] for row in rows])
    first = accepted or found
    shown = "; ".join(_named(row, length) for row in first[:SHOWN]) + "; ..." * (len(first) > SHOWN)
    how = "were accepted" if accepted else "are so" if place else "begin so"
    more = _telling(first) if place else "give more of the id"
    raise JobError(f"{what or repr(what)}: {len(first)} hypotheses {how} ({shown}); {more}")


def _is_at(row: TableRow, name: str, value: Any) -> bool:
    """Says whether a column of a row has a value; of a subspace a dash is that of "0–15" too."""
    if name != "subspace" or row[name] is None:
        return bool(row[name] == value)
    words = row[name].replace("–", "-")
    return value.replace("–", "-") in (words, words.split(" ")[0])


def _telling(rows: Sequence[TableRow]) -> str:
    """Names the flags that tell rows apart, with the values that they may have."""
    told: list[str] = []
    for name in PLACE:
        values = {row[name] for row in rows}
        if len(values) == 1 or (name == "features" and any("--subspace" in flag for flag in told)):
            continue  # a subspace's words say how many features there are
        known = sorted(map(str, values - {None}), key=_by_number)
        more = ", ..." * (len(known) > SHOWN)
        told.append(f"{FLAGS[name]} ({', '.join(known[:SHOWN])}{more})")
    return f"tell them apart by {', '.join(told)}, or give an id" if told else "give an id"


def _none(
    run: RunFolder, rows: Sequence[TableRow], started: Sequence[TableRow], place: Mapping[str, Any]
) -> str:
    """Says what there is in the place of what was asked for."""
    if not started:
        example = f"such as {rows[0]['hypothesis']}" if rows else "none yet"
        return (
            f"no hypothesis of run {run.info.id} begins so; `raysearch results {run.place}` has "
            f"their ids, {example}"
        )
    for name, value in place.items():
        if not any(_is_at(row, name, value) for row in started):
            known = {row[name] for row in started} - {None}
            there = ", ".join(sorted(map(str, known), key=_by_number)[:30])
            has = f"it has {there}" if there else NONE.get(name, "it has none")
            return f"run {run.info.id} has no {FLAGS[name]} {value!r}; {has}"
    return (
        f"no hypothesis of run {run.info.id} is at {' and '.join(_flags(place))}; leave out one of "
        "these"
    )


def _flags(place: Mapping[str, Any]) -> list[str]:
    return [f"{FLAGS[name]} {value}" for name, value in place.items()]


def _by_number(text: str) -> tuple[float, str]:
    return (float(text) if text.isdigit() else -1.0), text


def _named(row: TableRow, length: int) -> str:
    verdict = VERDICT_WORDS[row["verdict"]]
    return f"{row['hypothesis'][:length]} {row['variable']} at {words(row['units'])}, {verdict}"
