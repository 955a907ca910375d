"""Reads the table `observations` of a run into flat arrays: the pair of each measurement, and the
model's output.

Invariants: of an intervention, pairs stand in the order of their blocks; equal outputs have equal
numbers.
"""

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raysearch.core.events import Ids
from raysearch.report.results_table import read_table
from raysearch.report.verdict_pairs import Ints
from raysearch.storage.folder import Folder
from raysearch.visible_text import visible

_KEY = ("intervention", "fit", "split")
_COLUMNS = (
    *_KEY,
    "block",
    "pairs",
    "outputs",
    "scores",
    "near_ties",
    "rows",
    "seconds",
    "worker",
    "device",
    "part",
)


@dataclass(frozen=True, slots=True)
class SplitObservations:
    """The outputs of an intervention on the pairs of a split.

    Args:
        pairs: indices of the pairs.
        said: the number of the output on each.
        parts: the part of the test pairs that each is of.
        rows: of the table `observations`.
    """

    pairs: Ints
    said: Ints
    parts: Ints
    rows: pa.Table

    def scores(self) -> dict[str, dict[str, list[float]]]:
        """Returns the numbers of the pairs, by score and variable, in the order of `pairs`; nothing
        where the job declares no score."""
        found: dict[str, dict[str, list[float]]] = {}
        if self.rows["scores"].null_count:
            return found
        for block in self.rows["scores"].to_pylist():
            for score, of in block:
                for variable, values in of:
                    own = found.setdefault(score.replace("_", " "), {})
                    own.setdefault(visible(variable), []).extend(float(f"{v:.4g}") for v in values)
        return found

    def cost(self) -> dict[str, Any]:
        """Returns model rows, seconds, near-ties, and who ran it."""
        return {
            "rows": pc.sum(self.rows["rows"]).as_py(),
            "seconds": pc.sum(self.rows["seconds"]).as_py(),
            "near_ties": pc.sum(self.rows["near_ties"]).as_py(),
            "workers": pc.unique(self.rows["worker"]).to_pylist()[:8],
            "devices": pc.unique(self.rows["device"]).to_pylist()[:8],
        }


class RunObservations:
    """The observations of a run. `outputs`: the ids of each number of an output;
    `pairs`: those that were seen."""

    def __init__(self, folder: Folder) -> None:
        table = read_table(folder, "observations", _COLUMNS)
        order = [(name, "ascending") for name in (*_KEY, "block")]
        self._table = table.take(pc.sort_indices(table, sort_keys=order)).combine_chunks()
        lists = self._table["pairs"].combine_chunks()
        self._pairs: Ints = lists.flatten().to_numpy(zero_copy_only=False).astype(np.int64)
        counts = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
        self._ends: Ints = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        self.outputs, self._said = _numbered(self._table["outputs"].combine_chunks().flatten())
        self.pairs: Ints = np.unique(self._pairs)
        self._starts = self._groups()
        keys = self._table.select(_KEY).take(pa.array(self._starts[:-1]))
        self._interventions, self._fits, self._splits = (keys[k].to_pylist() for k in _KEY)

    def splits(self, intervention: str, fit: str | None) -> dict[str, SplitObservations]:
        """Returns what an intervention did, by split; `fit`: with which fit, None for any."""
        found = {}
        first = bisect_left(self._interventions, intervention)
        last = bisect_right(self._interventions, intervention)
        for i in range(first, last):
            if fit is None or self._fits[i] == fit:
                found[self._splits[i]] = self._seen(self._starts[i], self._starts[i + 1])
        return found

    def _seen(self, a: int, b: int) -> SplitObservations:
        at = slice(self._ends[a], self._ends[b])
        rows = self._table.slice(a, b - a)
        parts = pc.fill_null(rows["part"], 0).to_numpy().astype(np.int64)
        parts = np.repeat(parts, np.diff(self._ends[a : b + 1]))
        return SplitObservations(self._pairs[at], self._said[at], parts, rows)

    def _groups(self) -> Ints:
        """Returns the first row of each intervention, fit and split, and the number of rows."""
        rows = self._table.num_rows
        changes = np.arange(rows) == 0
        for name in _KEY:
            codes = pc.fill_null(self._table[name], "").combine_chunks().dictionary_encode().indices
            code = codes.to_numpy(zero_copy_only=False)
            changes[1:] |= code[1:] != code[:-1]
        return np.append(np.flatnonzero(changes), rows)


def _numbered(outputs: pa.Array) -> tuple[list[Ids], Ints]:
    """Returns the different outputs, and for each output its number among them."""
    lengths: Ints = pc.list_value_length(outputs).to_numpy(zero_copy_only=False).astype(np.int64)
    width = int(lengths.max(initial=0))
    grid = np.full((len(lengths), max(width, 1)), -1, dtype=np.int64)
    grid[np.arange(max(width, 1)) < lengths[:, None]] = outputs.flatten().to_numpy(
        zero_copy_only=False
    )
    different, numbers = np.unique(grid, axis=0, return_inverse=True)
    return [tuple(int(i) for i in row if i >= 0) for row in different], numbers.reshape(-1)
