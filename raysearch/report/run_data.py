"""Reads all data for a run's page: job, provenance, verdicts, controls, sets, fits, pairs, cost.

Invariants: reads only run.json, job.yaml, pairs.parquet and the tables, so that one folder always
gives the same page, even for an unfinished run; of observations, only the cost's columns are
loaded, part by part; hypotheses stay Arrow (row_sequence.py), and of accepted ones as many are
compared with their controls as a page shows.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from raysearch.core.population import PopulationName
from raysearch.errors import StoreError, check_memory
from raysearch.report.claim import ablations
from raysearch.report.control_comparison import ControlComparison
from raysearch.report.dropped_pairs import summarise_dropped
from raysearch.report.population_text import COLUMNS as POPULATION
from raysearch.report.population_text import population_name, population_words
from raysearch.report.results_table import read_parts, read_results, read_table
from raysearch.report.row_sequence import Rows, TableRow
from raysearch.report.run_facts import ChartFacts, chart_facts
from raysearch.report.run_results import RunResults, compare_controls
from raysearch.storage.digests_json import read_checked
from raysearch.storage.folder import Folder
from raysearch.storage.open_folder import FolderLike, open_folder
from raysearch.storage.parquet import from_parquet
from raysearch.store import schemas
from raysearch.store.job_file import read_job
from raysearch.store.run_folder import RunFolder

MAX_ACCEPTED = 200
"""Accepted hypotheses that a page shows at most."""
_COST = ("split", "pairs", "near_ties", "conflicts", "rows", "seconds", "device", "worker")
_PAIRS = (
    "split",
    "base_text",
    "base_positions",
    "base_answer",
    "base_answer_ids",
    "sources",
    "counterfactual",
    "solved",
    "block",
)


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of all counted blocks.

    `pairs`: (intervention, pair) evaluations; `rows`: run by the model; `seconds` and `workers`:
    replicas' seconds by device and by worker; `conflicts`: repeats that gave another answer.
    """

    pairs: int
    rows: int
    seconds: Mapping[str, float]
    workers: Mapping[str, float]
    near_ties: int
    conflicts: int

    @property
    def near_tie_share(self) -> float:
        """Share of rows whose two best logits were too close in a batch, so that they were
        recomputed."""
        return self.near_ties / max(self.rows, 1)


@dataclass(frozen=True, slots=True)
class SplitCounts:
    """Pairs of a split: drawn, solved by the model (None: not screened), and used in blocks."""

    name: str
    drawn: int
    solved: int | None
    used: int


@dataclass(frozen=True, slots=True)
class Example:
    """A used pair: base, its answer, (name, text, answer) of sources, and each variable's expected
    answer.

    Texts are None for tensors.
    """

    base: str | None
    answer: str
    sources: tuple[tuple[str, str | None, str], ...]
    counterfactual: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class RunData:
    """All data of a run. `rows`: its hypotheses as in `results`; `proposed`: in the order of
    proposal; `comparisons`, `sets` and `fits`: of the accepted ones that a page shows."""

    facts: ChartFacts
    info: Mapping[str, Any]
    job: Mapping[str, Any]
    job_text: str
    rows: Rows
    proposed: Rows
    controls: Rows
    comparisons: tuple[ControlComparison, ...]
    sets: Rows
    fits: Rows
    effects: Rows
    failures: tuple[tuple[str, str, int], ...]
    cost: Cost
    splits: tuple[SplitCounts, ...]
    example: Example | None
    dropped: tuple[str, ...] = ()

    @property
    def population(self) -> str:
        """The population of its verdicts, in words."""
        return population_words(self.job, self.rows.only(*POPULATION).table)

    @property
    def population_name(self) -> PopulationName:
        """The population of its verdicts."""
        return population_name(self.job, self.rows.only(*POPULATION).table)

    @property
    def ablates(self) -> frozenset[bool]:
        """The operations among its hypotheses: True for ablations, False for interchanges."""
        return frozenset(ablations(self.rows.values("units")))

    @property
    def waiting(self) -> int:
        """Number of hypotheses and controls without a verdict."""
        return self.count(None) + len(self.controls.only("verdict").where("verdict", None))

    @property
    def unestimated(self) -> int:
        """Number of accepted hypotheses still to be measured on the holdout pairs."""
        if not any(s.name == "holdout" and s.used for s in self.splits):
            return 0
        return len(self.rows.where("verdict", "accept").where("holdout_n", None))

    def count(self, verdict: str | None) -> int:
        """Returns the number of hypotheses with this verdict, without controls."""
        return len(self.rows.only("verdict").where("verdict", verdict))


def read_run(run: FolderLike, found: RunResults | None = None) -> RunData:
    """Reads the current state of a run folder.

    Args:
        found: its results, where they were read already.

    Raises: StoreError if it has no hypotheses yet, or a file of it cannot be read.
    """
    folder = open_folder(run)
    found = found or read_results(folder)
    rows, accepted = found.hypotheses, found.accepted[:MAX_ACCEPTED]
    order = read_table(folder, "hypotheses", ("hypothesis",))["hypothesis"]
    pairs = _pairs(folder)
    return RunData(
        facts=_read("run.json, job.yaml or pairs.parquet", folder, lambda: chart_facts(folder)),
        info=_read("run.json", folder, lambda: json.loads(folder.read("run.json"))),
        job=read_job(folder),
        job_text=RunFolder.open(folder).job_text,
        rows=rows,
        proposed=rows.in_order_of("hypothesis", order),
        controls=found.controls,
        comparisons=tuple(compare_controls(found, accepted)),
        sets=_of(folder, "sets", "hypothesis", accepted),
        fits=_of(folder, "fits", "intervention", accepted),
        effects=Rows(read_table(folder, "effects")),
        failures=_failures(read_table(folder, "failures")),
        cost=cost_of(folder),
        splits=_splits(pairs),
        example=_example(example_pair(pairs)),
        dropped=tuple(summarise_dropped(folder)),
    )


def _of(folder: Folder, table: str, key: str, rows: Rows) -> Rows:
    """Returns the rows of a table whose key is that of one of `rows`."""
    wanted = rows.values(key)
    parts = [Rows(part).where(key, *wanted).table for part in read_parts(folder, table)]
    empty = schemas.TABLES[table].remove_metadata().empty_table()
    return Rows(pa.concat_tables([empty, *parts], promote_options="default"))


def _read(name: str, folder: Folder, read: Any) -> Any:
    try:
        return read()
    except (ValueError, pa.ArrowException, KeyError) as e:
        check_memory(e, f"reading {folder.shown(name)}")
        raise StoreError(
            f"{folder.shown(name)}: cannot be read ({str(e).splitlines()[0]}); it is written by "
            f"raysearch"
        ) from e


def cost_of(folder: Folder) -> Cost:
    """Returns the cost of all counted blocks of a run."""
    pairs = rows = near_ties = conflicts = 0
    seconds: defaultdict[str, float] = defaultdict(float)
    workers: defaultdict[str, float] = defaultdict(float)
    for part in read_parts(folder, "observations", _COST):
        pairs += pc.sum(pc.list_value_length(part["pairs"])).as_py() or 0
        rows += pc.sum(part["rows"]).as_py() or 0
        near_ties += pc.sum(part["near_ties"]).as_py() or 0
        conflicts += pc.sum(part["conflicts"]).as_py() or 0
        for totals, column in ((seconds, "device"), (workers, "worker")):
            for row in part.group_by(column).aggregate([("seconds", "sum")]).to_pylist():
                totals[row[column] or "unknown"] += row["seconds_sum"] or 0.0
    return Cost(
        pairs,
        rows,
        dict(sorted(seconds.items())),
        dict(sorted(workers.items())),
        near_ties,
        conflicts,
    )


def _failures(table: pa.Table) -> tuple[tuple[str, str, int], ...]:
    """Returns (error type, first line of its message, count), most frequent first."""
    counts: Counter[tuple[str, str]] = Counter()
    for row in Rows(table).only("error_type", "message"):
        counts[row["error_type"] or "", (row["message"] or "").partition("\n")[0]] += 1
    return tuple((kind, message, n) for (kind, message), n in counts.most_common())


def _pairs(folder: Folder) -> Sequence[TableRow]:
    if not folder.exists("pairs.parquet"):
        return ()
    table = _read(
        "pairs.parquet", folder, lambda: from_parquet(read_checked(folder, "pairs.parquet"), _PAIRS)
    )
    rows: list[TableRow] = table.to_pylist()
    return rows


def _splits(pairs: Sequence[TableRow]) -> tuple[SplitCounts, ...]:
    found = []
    for name in ("test", "holdout", "fit"):
        own = [p for p in pairs if p["split"] == name]
        screened = [p for p in own if p["solved"] is not None]
        if own:
            solved = sum(p["solved"] for p in screened) if screened else None
            found.append(
                SplitCounts(
                    name,
                    len(screened) or len(own),
                    solved,
                    sum(p["block"] is not None for p in own),
                )
            )
    return tuple(found)


def example_pair(pairs: Sequence[TableRow]) -> TableRow | None:
    """Returns the pair, of the first hundred used, that distinguishes most variables from the
    base's answer."""
    used = [p for p in pairs if p["split"] == "test" and p["block"] is not None][:100]
    if not used:
        return None
    return max(
        used, key=lambda p: sum(c["ids"] != p["base_answer_ids"] for c in p["counterfactual"])
    )


def _example(pair: TableRow | None) -> Example | None:
    if pair is None:
        return None
    return Example(
        pair["base_text"],
        pair["base_answer"],
        tuple((s["name"], s["text"], s["answer"]) for s in pair["sources"]),
        tuple((c["variable"], c["answer"]) for c in pair["counterfactual"]),
    )
