"""Makes the data files of a run's page: an index, cells in bundles, pairs in bundles.

Invariants: a function of the run folder; the index has what maps and lists show of every
hypothesis, a bundle of cells all else of AT_ONCE interventions; a cell needs the index, one bundle
of cells, and the bundles of the pairs that are shown.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from raysearch.report.labels import score_label
from raysearch.report.results_table import read_table
from raysearch.report.row_sequence import Rows, TableRow
from raysearch.report.run_data import RunData, read_run
from raysearch.report.run_results import RunResults
from raysearch.report.sentences import title
from raysearch.report.unit_text import words
from raysearch.storage.folder import Folder
from raysearch.storage.open_folder import FolderLike, open_folder
from raysearch.store.job_file import read_job
from raysearch.store.pairs_table import read_pairs
from raysearch.store.progress_file import read_progress
from raysearch.store.run_folder import RunFolder
from raysearch.store.run_history import run_state
from raysearch.viewer.cell import Cell, cell_of, intervention_of
from raysearch.viewer.heatmap_data import effects_of, maps_of
from raysearch.viewer.near_misses import near_misses, why
from raysearch.viewer.observations import RunObservations
from raysearch.viewer.pair_outcomes import MATCH, MISS, PairOutcomes
from raysearch.viewer.pair_texts import example_tokens, pair_rows, pair_texts
from raysearch.viewer.report_sections import sections
from raysearch.viewer.run_state import model_name
from raysearch.viewer.token_texts import TokenTexts
from raysearch.visible_text import visible

AT_ONCE = 128
"""Interventions in a bundle of cells, and pairs in a bundle of pairs."""
_OF_MAPS = ("variable", "layer", "position", "units")
_FIGURES = ("iia", "low", "high", "n")
_OF_INTERVENTIONS = ("fits", "failures")
_VERDICTS = {"accept": "a", "reject": "r", "undecided": "u", "failed": "f", None: "."}


class RunView:
    """The data of a run's page, each made when it is asked for.

    Args:
        results: those of the run, where they were read already.

    Raises: StoreError if a file of the run cannot be read.
    """

    def __init__(self, run: FolderLike, results: RunResults | None = None) -> None:
        self._folder: Folder = open_folder(run)
        self.data: RunData = read_run(self._folder, results)
        self._rows = self.data.proposed + self.data.controls
        names = self._rows.column("intervention").to_pylist()
        numbers: dict[str, int] = {}
        self._of = np.array([numbers.setdefault(n, len(numbers)) for n in names], dtype=np.int64)
        self._names = list(numbers)
        self._observed = RunObservations(self._folder)
        self._tables: dict[str, RowsBy] = {}

    def files(self) -> Iterator[tuple[str, Any]]:
        """Yields the name and the values of every file."""
        yield "index", self.index()
        yield "report", sections(self.data)
        for i in range(-(-len(self._names) // AT_ONCE)):
            yield f"cells-{i}", self.cells(i)
        for i in self._pairs_seen:
            yield f"pairs-{i}", self.pairs(i)

    def index(self) -> dict[str, Any]:
        """Returns what maps and lists show."""
        rows, data = self._rows, self.data
        variables = data.proposed.values("variable")
        tokens = example_tokens(self._pairs, self._texts)
        maps = maps_of(data.proposed.only(*_OF_MAPS), variables, tokens)
        at = {v: i for i, v in enumerate(variables)}
        of = [at.get(v, -1) for v in rows.column("variable").to_pylist()]
        verdicts, figures = rows.column("verdict").to_pylist(), self._figures()
        own = len(data.proposed)
        best = near_misses(of[:own], verdicts[:own], figures["iia"][:own])
        return {
            "run": self._about(),
            "variables": [visible(v) for v in variables],
            "positions": [visible(name) for name in self._positions],
            "maps": maps,
            "bundle": AT_ONCE,
            "outputs": [self._texts.text(ids) for ids in self._observed.outputs],
            "ids": [list(ids) for ids in self._observed.outputs],
            "hypotheses": {
                "id": rows.column("hypothesis").to_pylist(),
                "intervention": self._of.tolist(),
                "variable": of,
                "verdict": "".join(_VERDICTS[v] for v in verdicts),
                **figures,
            },
            "reasons": {h: visible(why(rows[h], data.job)) for h in best},
            "effects": effects_of(data, tokens),
            "elsewhere": self._elsewhere({i for m in maps for i in m["cells"]}),
        }

    def _elsewhere(self, mapped: set[int]) -> list[Any]:
        """Returns number and place of the hypotheses that are in no map."""
        return [
            [i, visible(words(row["units"]))]
            for i, row in enumerate(self._rows.only("units", "control"))
            if row["control"] is None and i not in mapped
        ]

    def cells(self, bundle: int) -> dict[str, Any]:
        """Returns a bundle of cells: interventions and hypotheses by their numbers; empty where
        there is no such bundle."""
        first = bundle * AT_ONCE
        own = np.flatnonzero((self._of >= first) & (self._of < first + AT_ONCE)).tolist()
        rows = dict(zip(own, self._rows.take(own), strict=True))
        names = self._names[first : first + AT_ONCE]
        if not names:
            return {}
        by = {row["intervention"]: row["fit"] for row in rows.values()}
        fits, failures = (self._by(table, "intervention").of(names) for table in _OF_INTERVENTIONS)
        sets = self._by("sets", "hypothesis").of([row["hypothesis"] for row in rows.values()])
        return {
            "interventions": {
                first + i: intervention_of(
                    self._observed.splits(name, by[name]), fits[name], failures[name]
                )
                for i, name in enumerate(names)
            },
            "hypotheses": {
                i: cell_of(self._cell(row, sets[row["hypothesis"]]), self.data)
                for i, row in rows.items()
            },
        }

    def pairs(self, bundle: int) -> dict[int, Any]:
        """Returns a bundle of the pairs that were seen, by their numbers."""
        variables = self.data.proposed.values("variable")
        numbers = {name: i for i, name in enumerate(self._positions)}
        chosen = self._pairs_seen.get(bundle, ())
        return {p["index"]: pair_texts(p, self._texts, variables, numbers) for p in chosen}

    def _about(self) -> dict[str, Any]:
        data, facts = self.data, self.data.facts
        progress = read_progress(self._folder)
        return {
            "id": facts.run,
            "question": visible(title(data)),
            "name": visible(data.info.get("name")),
            "created": data.info.get("created"),
            "model": model_name(data.job),
            "state": run_state(RunFolder.open(self._folder)),
            "at": None if progress is None else progress.at,
            "threshold": facts.threshold,
            "level": (data.job.get("test") or {}).get("false_accept"),
            "score": facts.score.name,
            "counted": facts.score.counted,
            "controls": len(data.controls),
        }

    def _figures(self) -> dict[str, list[Any]]:
        """Returns mean, interval and pairs of every hypothesis; so far, where it has no verdict."""
        found = {name: self._rows.column(name).to_pylist() for name in _FIGURES}
        for i in self._rows.places("verdict", None).to_pylist():
            seen = self._cell(self._rows[i]).outcomes.get("test", "")
            n = seen.count(MATCH) + seen.count(MISS)
            found["n"][i] = n
            found["iia"][i] = seen.count(MATCH) / n if n else None
        return found

    def _cell(self, row: TableRow, sets: Sequence[TableRow] = ()) -> Cell:
        """Returns a hypothesis with what was observed of it."""
        seen = self._observed.splits(row["intervention"], row["fit"])
        outcomes = {}
        if self._outcomes is not None:
            outcomes = {split: self._outcomes.of(row, of, split) for split, of in seen.items()}
        return Cell(row, seen, outcomes, sets, self._comparisons.get(row["hypothesis"]))

    @cached_property
    def _outcomes(self) -> PairOutcomes | None:
        encoded = read_pairs(self._folder).encoded if self._pairs else None
        if encoded is None:
            return None
        kinds = (self.data.job.get("pairs") or {}).get("kinds")
        return PairOutcomes(encoded, self._observed.outputs, kinds == "unfiltered")

    @cached_property
    def _comparisons(self) -> dict[str, Any]:
        return {b.row["hypothesis"]: b for b in self.data.comparisons}

    @cached_property
    def _pairs(self) -> list[TableRow]:
        return pair_rows(self._folder)

    @cached_property
    def _pairs_seen(self) -> dict[int, list[TableRow]]:
        """The pairs that some intervention was measured on, by bundle."""
        seen, found = set(self._observed.pairs.tolist()), dict[int, list[TableRow]]()
        for pair in self._pairs:
            if pair["index"] in seen:
                found.setdefault(pair["index"] // AT_ONCE, []).append(pair)
        return found

    @cached_property
    def _positions(self) -> list[str]:
        sides = (
            side
            for p in self._pairs
            for side in (p["base_positions"], *(s["positions"] for s in p["sources"]))
        )
        return list(dict.fromkeys(at["name"] for side in sides for at in side or ()))

    @cached_property
    def _texts(self) -> TokenTexts:
        return TokenTexts(self.data.job, self._pairs)

    def _by(self, table: str, column: str) -> "RowsBy":
        if table not in self._tables:
            self._tables[table] = RowsBy(read_table(self._folder, table), column)
        return self._tables[table]


def index_before_hypotheses(run: Folder) -> dict[str, Any]:
    """Returns the index of a run that has proposed nothing yet."""
    opened, job = RunFolder.open(run), read_job(run)
    figures: dict[str, Any] = {n: [] for n in ("id", "intervention", "variable", *_FIGURES)}
    about = {
        "id": opened.info.id,
        "question": visible(opened.info.name),
        "created": opened.info.created,
        "model": model_name(job),
        "state": run_state(opened),
        "score": score_label(job).name,
        "controls": 0,
    }
    lists = ("variables", "positions", "maps", "outputs", "ids", "elsewhere")
    return {
        "run": about,
        **{name: [] for name in lists},
        "bundle": AT_ONCE,
        "hypotheses": figures | {"verdict": ""},
    }


class RowsBy:
    """The rows of a table by one of its columns; few are Python objects at once."""

    def __init__(self, table: pa.Table, column: str) -> None:
        self._rows, self._column = Rows(table), column
        self._at: dict[str | None, list[int]] = {}
        for i, key in enumerate(table[column].to_pylist()):
            self._at.setdefault(key, []).append(i)

    def of(self, keys: Sequence[str]) -> dict[str, list[TableRow]]:
        """Returns the rows that have each key."""
        found: dict[str, list[TableRow]] = {key: [] for key in keys}
        for row in self._rows.take([i for key in found for i in self._at.get(key, ())]):
            found[row[self._column]].append(row)
        return found
