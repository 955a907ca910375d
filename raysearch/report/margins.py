"""Margins of accepted hypotheses over controls and over other variables, on the same pairs.

Invariants: each is a paired test (`stats/paired_test.py`) of what the run observed, with an
interval that is valid at any look; what was not observed on common pairs has no margin.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache

import numpy as np
import pyarrow.compute as pc

from raysearch.core.answers import matchers_of
from raysearch.core.codec import from_json_values
from raysearch.core.control_kinds import HOLDOUT_CONTROLS
from raysearch.core.controls import with_control
from raysearch.core.events import Ids
from raysearch.core.hypothesis import Intervention
from raysearch.report.row_sequence import TableRow
from raysearch.report.verdict_pairs import MATCH, MISS, VerdictPairs
from raysearch.search.pair_blocks import ExpectedAnswers, expected_answers
from raysearch.stats.paired_test import PairedTest
from raysearch.storage.digests_json import each_checked
from raysearch.storage.open_folder import FolderLike, open_folder
from raysearch.storage.parquet import from_parquet
from raysearch.store.job_file import read_job
from raysearch.store.pairs_table import FILE, read_encoded

Interval = tuple[float, float]
MarginKey = tuple[str, str, str | None]
"""(split, intervention, fit)."""


@dataclass(frozen=True)
class Margins:
    """The observed outputs of some interventions: for each, those of its pairs, in their order.

    `of_tested_score`: whether the test is on matches too, as margins are; `parts`: the part of the
    test pairs that a pair is of, where it is not 0."""

    pairs: Mapping[int, ExpectedAnswers]
    seen: Mapping[MarginKey, Mapping[int, Ids]]
    unfiltered: bool = False
    of_tested_score: bool = True
    parts: Mapping[int, int] = field(default_factory=dict)

    def over(self, row: TableRow, other: TableRow) -> Interval | None:
        """Returns the interval of IIA minus that of a control which is a hypothesis of its own."""
        return self._interval(row, self._matches("test", row), self._matches("test", other))

    def over_holdout(self, row: TableRow, control: str) -> Interval | None:
        """Returns the interval of IIA minus that of a control measured on the holdout."""
        if not self.seen:
            return None
        name = with_control(_intervention(row), control).id
        own, others = (
            self._matches("holdout", {**row, "intervention": i})
            for i in (row["intervention"], name)
        )
        return self._interval({**row, "population_size": None}, own, others)

    def over_variable(self, row: TableRow, variable: str) -> Interval | None:
        """Returns the interval of IIA minus the share of outputs that are another variable's
        counterfactual, on the same pairs; None where no pair of the run could ever tell the two
        apart. Where only the pairs up to the verdict could not, the interval is about 0.
        """
        own = self._matches("test", row)
        if not own or not self._differ(row["variable"], variable):
            return None
        return self._interval(row, own, self._matches("test", row, variable))

    def _differ(self, variable: str, other: str) -> bool:
        """Says whether two variables differ on any pair that counts for the first."""
        return any(
            e.counterfactual[variable] != e.counterfactual[other]
            for e in self.pairs.values()
            if self.unfiltered or e.changes(variable)
        )

    def over_source(self, row: TableRow) -> Interval | None:
        """Returns the interval of IIA minus the share of the same pairs on which an answer of a
        source would have been a match.
        """
        own, variable = self._matches("test", row), row["variable"]
        of = {p: self.pairs[p] for p in own}
        copied = {p: e.counterfactual[variable] in e.sources.values() for p, e in of.items()}
        return self._interval(row, own, copied)

    def _interval(
        self, row: TableRow, own: Mapping[int, bool], other: Mapping[int, bool]
    ) -> Interval | None:
        common = [p for p in own if p in other]
        differences = tuple(float(own[p]) - other[p] for p in common)
        matchings = tuple(m for p in common if (m := self.pairs[p].matching) is not None)
        size = row["population_size"] if row["claim"].endswith("these_pairs") else None
        return _paired(differences, matchings, size) if differences else None

    def _matches(self, split: str, row: TableRow, wanted: str | None = None) -> dict[int, bool]:
        """Returns whether each pair that counts for the row's variable is a match, in the order of
        the pairs; `wanted`: the variable whose counterfactual is a match.
        """
        seen = self.seen.get((split, row["intervention"], row["fit"]), {})
        of_each = self._outcomes.of(
            row,
            split,
            np.array([*seen], dtype=np.int64),
            np.array([self._numbers[output] for output in seen.values()], dtype=np.int64),
            np.array([self.parts.get(p, 0) for p in seen], dtype=np.int64),
            wanted,
        ).tolist()
        return {p: o == MATCH for p, o in zip(seen, of_each, strict=True) if o in (MATCH, MISS)}

    @cached_property
    def _numbers(self) -> dict[Ids, int]:
        """The different outputs, each with its number."""
        outputs = dict.fromkeys(output for of in self.seen.values() for output in of.values())
        return {output: number for number, output in enumerate(outputs)}

    @cached_property
    def _outcomes(self) -> VerdictPairs:
        return VerdictPairs(self.pairs, [*self._numbers], self.unfiltered)


NO_MARGINS = Margins({}, {})


def read_margins(
    run: FolderLike, accepted: Sequence[TableRow], controls: Sequence[TableRow]
) -> Margins:
    """Reads what was observed of accepted hypotheses and controls. Raises: StoreError."""
    folder = open_folder(run)
    job = read_job(folder)
    swaps = [row for row in accepted if '"operation"' not in row["units"]]
    if not swaps or not folder.exists(FILE):
        return NO_MARGINS
    if not (pairs := read_encoded(folder)):
        return NO_MARGINS
    names = {row["intervention"] for row in (*swaps, *controls)}
    names |= {
        with_control(_intervention(row), name).id for row in swaps for name in HOLDOUT_CONTROLS
    }
    matchers = matchers_of([encoded for encoded, _, _ in pairs])
    observed, parts = _observed(run, names)
    return Margins(
        {
            e.index: expected_answers(
                e, split, None, matchers[e.added], matching=matching, added=e.added
            )
            for e, split, matching in pairs
        },
        observed,
        (job.get("pairs") or {}).get("kinds") == "unfiltered",
        (job.get("test") or {}).get("score", "matches") == "matches",
        parts,
    )


def _observed(
    run: FolderLike, names: Iterable[str]
) -> tuple[dict[MarginKey, dict[int, Ids]], dict[int, int]]:
    """Returns what was observed of some interventions, and the parts that are not 0, by pair."""
    columns = ["intervention", "fit", "split", "block", "pairs", "outputs", "part"]
    rows = [
        row
        for _, content in each_checked(open_folder(run), "observations")
        for row in from_parquet(content, columns)
        .filter(pc.field("intervention").isin(sorted(names)))
        .to_pylist()
    ]
    found: dict[MarginKey, dict[int, Ids]] = {}
    parts: dict[int, int] = {}
    for row in sorted(rows, key=lambda row: row["block"]):
        outputs = zip(row["pairs"], map(tuple, row["outputs"]), strict=True)
        found.setdefault((row["split"], row["intervention"], row["fit"]), {}).update(outputs)
        if part := row.get("part"):
            parts |= dict.fromkeys(row["pairs"], part)
    return found, parts


def _intervention(row: TableRow) -> Intervention:
    plain = {"units": json.loads(row["units"]), "control": row["control"]}
    found = from_json_values(Intervention, plain, f"hypothesis {row['hypothesis']}")
    return replace(found, variable=row["variable"]) if found.is_fitted else found


@lru_cache(maxsize=1 << 12)
def _paired(
    differences: tuple[float, ...], matchings: tuple[int, ...], population: int | None
) -> Interval:
    """Returns the interval of a paired test; cached, since page, table and tracker ask for the same
    ones."""
    return PairedTest(population=population).interval(differences, matchings)
