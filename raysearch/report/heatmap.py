"""Draws a run's heat maps: for each variable its sites, with layers upward, positions across and
IIA as colour, and one with heads across for each per-head component and position; as PNGs of the
run, or as PDF and SVG for a paper.

Invariants: all are drawn by the same code (`heatmap_drawing`), PNGs with their caption above.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

from raysearch.core.featurizers import FULL
from raysearch.errors import JobError, StoreError
from raysearch.report.figure import Picture, without_glyphs
from raysearch.report.heatmap_drawing import draw, sentences
from raysearch.report.panels import Panel, panels
from raysearch.report.results_table import read_verdicts
from raysearch.report.row_sequence import Rows, TableRow
from raysearch.report.run_facts import chart_facts
from raysearch.storage.folder import Folder
from raysearch.storage.open_folder import FolderLike, open_folder

_COLUMNS = ("variable", "layer", "position", "units", "verdict", "iia", "n")
_RESERVED = {
    "CON",
    "PRN",
    "AUX",
    "NUL",
    *(f"{port}{n}" for port in ("COM", "LPT") for n in range(1, 10)),
}
"""File names that Windows reserves for devices."""


def heatmaps(run: FolderLike, out: FolderLike, tokens: Mapping[str, str] = {}) -> list[str]:
    """Draws the heat maps of each variable into the folder `out` as PNG; returns the files' names,
    in variables' order.

    Args: tokens: the text of an example at each position.

    Raises: StoreError if the run has no hypotheses yet, a part cannot be read, or a picture cannot
    be written.
    """
    run, out = open_folder(run), open_folder(out)
    facts = chart_facts(run)
    names: list[str] = []
    for stem, panel in _each_panel(run):
        names.append(f"{stem}.png")
        try:
            out.write(names[-1], draw(panel, facts, tokens, titled=True).png())
        except StoreError as e:
            raise StoreError(f"{e}; the verdicts are safe, make room for pictures") from e
    return names


def figures(run: FolderLike, out: FolderLike, tokens: Mapping[str, str]) -> Iterator[str]:
    """Writes each heat map for a paper as PDF and SVG, and captions.txt; yields the names of the
    files.

    Args: tokens: as `heatmaps`.

    Raises: StoreError if the run has no hypotheses yet, or a file cannot be read or written.
    """
    run, out = open_folder(run), open_folder(out)
    facts, captions = chart_facts(run), []
    for stem, panel in _each_panel(run):
        picture = draw(panel, facts, tokens)
        for kind in ("pdf", "svg"):
            out.write(f"{stem}.{kind}", picture.file(kind))
            yield f"{stem}.{kind}"
        captions.append(f"{stem}: {' '.join(sentences(panel, facts))}")
    out.write("captions.txt", "\n\n".join([*captions, ""]).encode())
    yield "captions.txt"


def characters_without_font(run: FolderLike, tokens: Mapping[str, str]) -> str:
    """Returns the characters of labels that no installed font has."""
    labels = (label for _, panel in _each_panel(open_folder(run)) for label in panel.labels)
    return without_glyphs("".join(chain(labels, tokens.values())))


def _each_panel(run: Folder) -> Iterator[tuple[str, Panel]]:
    """Yields each heat map of a run, in variables' order, with the stem of its files' names.

    Raises: StoreError if the run has no hypotheses yet.
    """
    rows = _proposed_order(run)
    stems: list[str] = []
    for variable in dict.fromkeys(r["variable"] for r in rows):
        for panel in panels(variable, rows):
            parts = [part for part in panel.shared if part != FULL]
            stems.append(_file_name("-".join([variable, *parts]), stems))
            yield stems[-1], panel


def heatmap(
    run: FolderLike, variable: str | None = None, of: str = "", tokens: Mapping[str, str] = {}
) -> Picture:
    """Draws one heat map without writing it.

    Args: variable: None for the run's first. of: which of its maps, such as "das 4" or "head last";
    "" for the first. tokens: as `heatmaps`.

    Raises: StoreError if the run has no hypotheses yet; JobError for an unknown variable or map.
    """
    run = open_folder(run)
    rows = _proposed_order(run)
    variables = list(dict.fromkeys(r["variable"] for r in rows))
    chosen = variables[0] if variable is None else variable
    if chosen not in variables:
        raise JobError(f"{chosen!r} is no variable of this run; it has {', '.join(variables)}")
    drawn = panels(chosen, rows)
    named = {" ".join(panel.shared): panel for panel in reversed(drawn)}
    if of and of not in named:
        raise JobError(
            f"{of!r} is no heat map of {chosen}; it has "
            f"{', '.join(repr(n) for n in reversed(named))}"
        )
    return draw(named[of] if of else drawn[0], chart_facts(run), tokens, titled=True)


def _proposed_order(run: Folder) -> list[TableRow]:
    """Returns all rows in the order of proposal, which is also that of the job's positions."""
    rows = Rows(read_verdicts(run)).where("control", None)
    return list(rows.only(*_COLUMNS))


def _file_name(variable: str, taken: Sequence[str]) -> str:
    """Returns a name that every file system accepts: short, not reserved, and not in `taken`,
    ignoring case."""
    name = (
        re.sub(r"[^\w\-]", "_", variable)[:80].encode()[:180].decode(errors="ignore") or "variable"
    )
    name = f"{name}_" if name.upper() in _RESERVED else name
    used = {t.lower() for t in taken}
    free = (name, *(f"{name}_{i}" for i in range(len(taken), 2 * len(taken) + 1)))
    return next(n for n in free if n.lower() not in used)
